"""Predictions and references to tables of scores with 95 % intervals; no Keras."""

from slm_helpers.metrics.classification import accuracy, calibration_error, score_table
from slm_helpers.metrics.intervals import bootstrap_interval, mean_interval
from slm_helpers.metrics.language_model import bits_per_byte, bits_per_char, perplexity

__all__ = [
    "accuracy",
    "bits_per_byte",
    "bits_per_char",
    "bootstrap_interval",
    "calibration_error",
    "mean_interval",
    "perplexity",
    "score_table",
]
