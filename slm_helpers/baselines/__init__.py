"""What a network has to beat: counts and linear models, one module a task, with scikit-learn's verbs; no Keras."""

from slm_helpers.baselines.classification import TfidfClassifier
from slm_helpers.baselines.language_model import KneserNeyModel, xz_bits_per_byte
from slm_helpers.baselines.nearest import NearestText

__all__ = ["KneserNeyModel", "NearestText", "TfidfClassifier", "xz_bits_per_byte"]
