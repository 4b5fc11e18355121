"""Cross-entropy of texts under a language model, several texts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from slm_helpers.generation.decoding import AnyRuntime

_CHUNK = 256  # tokens of a text read in one call ...
_TOGETHER = 1024  # ... and of all its texts together, but for 16 of each: a runtime may score them all against the vocabulary
_ROWS = 128  # of these, scored against the vocabulary at a time, so that the logits stay in the processor's cache
_SIDE_BY_SIDE = 32  # texts scored in one call
_MAX_TOKENS = 65_536  # ... or fewer, if they have more tokens together


def sequence_losses(runtime: AnyRuntime, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the cross-entropy in nats of each token but the first of each sequence: float32, shape (len(sequence) - 1,).

    The state is carried through the whole of a sequence, however long it is.
    """
    losses: list[np.ndarray] = [np.empty(0, "float32")] * len(sequences)
    # Sequences of about the same length side by side: what is padded (on the right) is scored in vain.
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    while order:
        size = min(_SIDE_BY_SIDE, max(1, _MAX_TOKENS // len(sequences[order[-1]])))
        group, order = order[-size:], order[:-size]
        padded = np.zeros((len(group), len(sequences[group[-1]])), dtype="int32")
        for row, number in enumerate(group):
            padded[row, : len(sequences[number])] = sequences[number]
        for number, part in zip(group, _losses(runtime, padded[:, :-1], padded[:, 1:]), strict=True):
            losses[number] = part[: len(sequences[number]) - 1]
    return losses


def _losses(runtime: AnyRuntime, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each target, shape (batch, time)."""
    states = runtime.zero_states(len(inputs))
    losses = []
    size = min(_CHUNK, max(16, _TOGETHER // len(inputs)))
    for start in range(0, inputs.shape[1], size):
        part = slice(start, start + size)
        features, states = runtime.read(inputs[:, part], states)
        flat = features.reshape(-1, features.shape[-1])
        losses.append(_cross_entropy(runtime, flat, targets[:, part].reshape(-1)).reshape(len(inputs), -1))
    return np.concatenate(losses, axis=1)


def _cross_entropy(runtime: AnyRuntime, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    losses = np.empty(len(targets), dtype="float32")
    out = np.empty((min(_ROWS, len(targets)), runtime.vocab_size), dtype="float32")
    for start in range(0, len(targets), _ROWS):
        rows = slice(start, start + _ROWS)
        logits = runtime.logits(features[rows], out[: len(targets[rows])])
        logits -= logits.max(axis=-1, keepdims=True)
        gold = np.take_along_axis(logits, targets[rows, None], axis=1)[:, 0]
        losses[rows] = np.log(np.exp(logits, out=logits).sum(axis=-1)) - gold  # in place: logsumexp would copy the vocabulary twice
    return losses
