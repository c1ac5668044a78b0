"""The pages that a person sits in front of."""
