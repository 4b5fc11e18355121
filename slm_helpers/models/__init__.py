"""Sizes to networks, and networks to folders and back."""
