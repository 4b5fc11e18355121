"""Losses of language models in nats, bits per character and bits per byte."""

import numpy as np

_BLOCK = 1 << 18  # scores looked at together: two MB


def loss_nats(logits: np.ndarray, targets: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return the mean cross-entropy in nats per predicted token.

    Args:
        logits: Scores before softmax, shape (..., vocab_size).
        targets: Token ids, shape (...).
        mask: 1 where a target counts and 0 where it is padding, shape (...); all count unless given.
    """
    losses = token_losses(logits, targets)
    if mask is None:
        return float(losses.mean())
    mask = np.asarray(mask, dtype="float64")
    if mask.sum() == 0:
        raise ValueError("The mask leaves no target to score.")
    return float((losses * mask).sum() / mask.sum())


def token_losses(logits: np.ndarray, targets: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Return the cross-entropy of each target in nats, of the logits divided by a temperature.

    Rows are taken in blocks: copies of the logits of many rows under a whole vocabulary would fill the memory.

    Args:
        logits: Shape (..., vocab_size).
        targets: Shape (...).
        temperature: Above 0.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits have shape {logits.shape} and targets {targets.shape}, but the targets need shape {logits.shape[:-1]}.")
    rows, right = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).astype(int)
    losses, size = np.empty(len(right)), max(1, _BLOCK // logits.shape[-1])
    for start in range(0, len(right), size):
        part = rows[start : start + size].astype("float64")
        part = (part - part.max(axis=-1, keepdims=True)) / temperature
        losses[start : start + size] = np.log(np.exp(part).sum(axis=-1)) - part[np.arange(len(part)), right[start : start + size]]
    return losses.reshape(targets.shape)


def perplexity(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return exp of the mean cross-entropy: the number of equally likely tokens the model hesitates between."""
    return float(np.exp(loss_nats(logits, targets)))


def bits_per_char(total_nats: float, text: str) -> float:
    """Return the bits a model needs per character of `text`, given its total cross-entropy over it."""
    if not text:
        raise ValueError("The text is empty: there is no character to divide by.")
    return float(total_nats / (np.log(2) * len(text)))


def bits_per_byte(total_nats: float, text: str) -> float:
    """Return the bits a model needs per UTF-8 byte of `text`: comparable across tokenisers and with file compressors."""
    if not text:
        raise ValueError("The text is empty: there is no byte to divide by.")
    return float(total_nats / (np.log(2) * len(text.encode())))
