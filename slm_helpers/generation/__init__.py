"""A network to a text."""
