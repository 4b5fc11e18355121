"""Softmax and its kin in NumPy, along the last axis: what predictions need without loading SciPy, which takes longer than most of them."""

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities of scores, the same shape."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return the logarithms of the probabilities of scores; -inf stays -inf."""
    scores = scores - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
