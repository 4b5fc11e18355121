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


def two_choices(scores: np.ndarray) -> np.ndarray:
    """Return yes-no scores as logits of two choices, no (0) and yes, shape (scores.size, 2): softmax of them is the sigmoid of a score."""
    return np.column_stack([np.zeros(scores.size, dtype=scores.dtype), scores.reshape(-1)])


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-scores)), the same shape, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * scores))
