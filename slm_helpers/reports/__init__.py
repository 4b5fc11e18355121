"""Notebooks executed into HTML reports, and the check of a machine."""
