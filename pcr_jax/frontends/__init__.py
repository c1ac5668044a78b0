"""A person in front of it: the terminal, the page, the study."""
