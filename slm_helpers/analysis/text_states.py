"""Texts as vectors that a language model makes of them, scaled by public texts alone, for whoever may not look at the private ones.

A mean or a standard deviation over private rows is a result about them and costs epsilon like any other; one over public rows is free.
"""

from collections.abc import Sequence
from typing import Any

from slm_helpers._checks import check_positive

import numpy as np

_ROWS = 512  # texts read side by side


def mean_states(model: Any, tokenizer: Any, texts: Sequence[str], *, max_tokens: int = 48) -> np.ndarray:
    """Return the mean of a language model's states over the tokens of each text: float32, shape (num_texts, units of all states).

    Args:
        model: With `zero_states` and `advance`, such as `open_saved(folder).model` (ONNX Runtime).
        tokenizer: Of the model.
        texts: Strings; each is read behind the token that ends a document.
        max_tokens: Tokens of a text that are read at most.
    """
    check_positive(max_tokens=max_tokens)
    rows = [np.concatenate([[tokenizer.end_id], ids])[:max_tokens] for ids in tokenizer.encode_batch(list(texts))]
    order = np.argsort([len(row) for row in rows], kind="stable")  # texts of like length side by side
    states = [_mean_states(model, [rows[number] for number in order[start : start + _ROWS]]) for start in range(0, len(order), _ROWS)]
    return np.concatenate(states)[np.argsort(order)] if states else np.zeros((0, sum(s.shape[1] for s in model.zero_states(1))), "float32")


class PublicScaling:
    """Vectors -> their main directions in public texts, each of length 1, so that none can weigh more than another.

    Args:
        public: States of public texts, shape (num_texts, dims).
        rank: Directions that are kept: noise enters along each, so fewer can be better.
        power: How far the directions are made alike: 0 leaves their spread, 1 makes all spreads 1 (whitening).
    """

    def __init__(self, public: np.ndarray, *, rank: int = 128, power: float = 0.5):
        check_positive(rank=rank)
        if rank > min(public.shape):
            raise ValueError(
                f"rank is {rank}, but {public.shape[0]} texts with {public.shape[1]} numbers have {min(public.shape)} at most."
            )
        self.mean, spread = public.mean(axis=0), public.std(axis=0) + 1e-3
        _, sizes, directions = np.linalg.svd((public - self.mean) / spread, full_matrices=False)
        scaled = (sizes[:rank] / np.sqrt(len(public))) ** power
        self.matrix = (directions[:rank].T / spread[:, None] / scaled).astype("float32")

    def __call__(self, states: np.ndarray, *, unit: bool = True) -> np.ndarray:
        """Return states in the new directions, shape (num_texts, rank); `unit`: each divided by its length."""
        scaled = (states - self.mean) @ self.matrix
        return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9) if unit else scaled


def _mean_states(model: Any, rows: Sequence[np.ndarray]) -> np.ndarray:
    lengths = np.array([len(row) for row in rows])
    padded = np.zeros((len(rows), lengths.max()), dtype="int32")
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    states, total = model.zero_states(len(rows)), 0.0
    for position in range(padded.shape[1]):
        states = model.advance(padded[:, position : position + 1], states)
        total = total + np.concatenate(states, axis=1) * (position < lengths)[:, None]
    return (total / lengths[:, None]).astype("float32")
