"""Sizes to networks, and networks to folders and back."""

from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import SavedModel, load_model, load_pretrained, save_model

__all__ = ["SavedModel", "build_language_model", "build_text_classifier", "load_model", "load_pretrained", "save_model"]
