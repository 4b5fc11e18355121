"""What a network has to beat: counts and linear models, one module a task; no Keras."""

from slm_helpers.baselines.classification import MajorityClassifier, build_tfidf_classifier
from slm_helpers.baselines.language_model import KneserNeyModel, xz_bits_per_byte

__all__ = ["KneserNeyModel", "MajorityClassifier", "build_tfidf_classifier", "xz_bits_per_byte"]
