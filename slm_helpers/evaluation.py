"""Scores and their uncertainty. Language models are compared in bits per byte or character; perplexity only within one vocabulary."""

from collections.abc import Callable, Sequence

from slm_helpers.checks import check_positive

import numpy as np
import pandas as pd


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


def token_losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each target in nats: logits (..., vocab_size), targets (...), result (...)."""
    logits, targets = np.asarray(logits, dtype="float64"), np.asarray(targets)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits have shape {logits.shape} and targets {targets.shape}, but the targets need shape {logits.shape[:-1]}.")
    highest = logits.max(axis=-1, keepdims=True)
    log_total = np.log(np.exp(logits - highest).sum(axis=-1)) + highest[..., 0]
    return log_total - np.take_along_axis(logits, targets[..., None].astype(int), axis=-1)[..., 0]


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


def accuracy(labels: Sequence, predictions: Sequence) -> float:
    """Return the share of predictions that equal their label."""
    labels, predictions = _pair(labels, predictions)
    return float((labels == predictions).mean())


def macro_f1(labels: Sequence, predictions: Sequence) -> float:
    """Return the mean over classes of F1, every class counted alike; classes are those that occur in the labels."""
    from sklearn.metrics import f1_score

    labels, predictions = _pair(labels, predictions)
    return float(f1_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0))


def macro_recall(labels: Sequence, predictions: Sequence) -> float:
    """Return the mean over classes of recall, every class counted alike."""
    from sklearn.metrics import recall_score

    labels, predictions = _pair(labels, predictions)
    return float(recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0))


def bootstrap_interval(
    score: Callable[..., float], *arrays: Sequence, num_samples: int = 1000, level: float = 0.95, seed: int = 42
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `score(*arrays)`, resampling rows with replacement.

    Args:
        score: Takes as many arrays as are given; e.g. `accuracy`, or `np.mean`.
        arrays: One entry a row each, all of one length.
        num_samples: Resamples.
        level: Coverage, 0.95 for a 95 % interval.
        seed: Of the resampling.

    Example:
        >>> bootstrap_interval(np.mean, [1.0, 1.0, 1.0])
        (1.0, 1.0)

    Reference:
        Efron and Tibshirani (1993), "An Introduction to the Bootstrap".
    """
    check_positive(num_samples=num_samples)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but must lie between 0 and 1, e.g. 0.95.")
    columns = [np.asarray(a) for a in arrays]
    lengths = {len(a) for a in columns}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"The arrays have lengths {sorted(lengths)}, but must have one length of at least 1.")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(columns[0]), size=(num_samples, len(columns[0])))
    scores = [score(*(a[pick] for a in columns)) for pick in picks]
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_table(labels: Sequence, predictions: Sequence, *, seed: int = 42) -> pd.DataFrame:
    """Return accuracy, macro_f1 and macro_recall with 95 % intervals: columns metric, value, ci_low, ci_high."""
    labels, predictions = _pair(labels, predictions)
    names, codes = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    counts = confusion_counts(codes[: len(labels)], codes[len(labels) :], num_classes=len(names))
    return scores_from_confusion(counts, seed=seed)


def confusion_counts(labels: Sequence[int], predictions: Sequence[int], *, num_classes: int) -> np.ndarray:
    """Return how often each class (row) was taken for each (column): int64, shape (num_classes, num_classes)."""
    labels, predictions = _pair(labels, predictions)
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores_from_confusion(counts: np.ndarray, *, num_samples: int = 1000, seed: int = 42) -> pd.DataFrame:
    """Return accuracy, macro_f1 and macro_recall of a confusion matrix with 95 % intervals, as `score_table` does.

    To draw rows with replacement is to draw the cells of the matrix from a multinomial distribution, which does not get slower
    with more rows.
    """
    cells = np.flatnonzero(counts)
    rows, columns = np.unravel_index(cells, counts.shape)
    size, total = len(counts), int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts.reshape(-1)[cells] / total, size=num_samples)
    found = []
    for cell_counts in np.concatenate([counts.reshape(1, -1)[:, cells], drawn]):
        right = np.bincount(rows, cell_counts * (rows == columns), minlength=size)
        asked, answered = np.bincount(rows, cell_counts, minlength=size), np.bincount(columns, cell_counts, minlength=size)
        occurs = asked > 0
        f1 = 2 * right[occurs] / (asked + answered)[occurs]
        found.append((right.sum() / total, f1.mean(), (right[occurs] / asked[occurs]).mean()))
    found = np.array(found)
    low, high = np.quantile(found[1:], [0.025, 0.975], axis=0)
    return pd.DataFrame({"metric": ["accuracy", "macro_f1", "macro_recall"], "value": found[0], "ci_low": low, "ci_high": high})


def _pair(labels: Sequence, predictions: Sequence) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(f"There are {labels.size} labels and {predictions.size} predictions, but one prediction per label is needed.")
    return labels, predictions
