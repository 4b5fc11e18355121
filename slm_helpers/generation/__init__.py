"""A network to a text."""

from slm_helpers.generation.generator import Generation, TextGenerator

__all__ = ["Generation", "TextGenerator"]
