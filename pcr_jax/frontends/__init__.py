"""In front of a person: the terminal, the page, and studies."""
