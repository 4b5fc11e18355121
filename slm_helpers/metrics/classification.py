"""Scores and their uncertainty. Language models are compared in bits per byte or character; perplexity only within one vocabulary."""

from collections.abc import Sequence

from slm_helpers.metrics.language_model import token_losses

import numpy as np
import pandas as pd


def accuracy(labels: Sequence, predictions: Sequence) -> float:
    """Return the share of predictions that equal their label."""
    labels, predictions = check_pair(labels, predictions)
    return float((labels == predictions).mean())


def macro_f1(labels: Sequence, predictions: Sequence) -> float:
    """Return the mean over classes of F1, every class counted alike; classes are those that occur in the labels."""
    from sklearn.metrics import f1_score

    labels, predictions = check_pair(labels, predictions)
    return float(f1_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0))


def macro_recall(labels: Sequence, predictions: Sequence) -> float:
    """Return the mean over classes of recall, every class counted alike."""
    from sklearn.metrics import recall_score

    labels, predictions = check_pair(labels, predictions)
    return float(recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0))


def score_table(labels: Sequence, predictions: Sequence, *, seed: int = 42) -> pd.DataFrame:
    """Return accuracy, macro_f1 and macro_recall with 95 % intervals: columns metric, value, ci_low, ci_high."""
    labels, predictions = check_pair(labels, predictions)
    names, codes = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    counts = confusion_counts(codes[: len(labels)], codes[len(labels) :], num_classes=len(names))
    return scores_from_confusion(counts, seed=seed)


def confusion_counts(labels: Sequence[int], predictions: Sequence[int], *, num_classes: int) -> np.ndarray:
    """Return how often each class (row) was taken for each (column): int64, shape (num_classes, num_classes)."""
    labels, predictions = check_pair(labels, predictions)
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


def fit_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return what to divide scores by so that the probabilities made of them are as likely as they claim.

    Args:
        scores: Logits or log-probabilities, shape (num_rows, num_choices), of rows that were not trained on.
        targets: The right choice of each, shape (num_rows,).

    Reference:
        Guo et al. (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(token_losses(scores, targets, temperature=np.exp(log_temperature)).mean())

    # Within a factor of twenty: on few rows that are all right the best temperature would be zero.
    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def calibration_error(confidence: np.ndarray, right: np.ndarray, *, num_bins: int = 10) -> float:
    """Return the mean distance between confidence and accuracy, over bins of equally many rows, weighted by them."""
    order = np.argsort(confidence, kind="stable")
    bins = [part for part in np.array_split(order, num_bins) if len(part)]
    return float(sum(abs(confidence[part].mean() - right[part].mean()) * len(part) for part in bins) / len(order))


def check_pair(labels: Sequence, predictions: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays; raise ValueError unless there is one prediction per label."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(f"There are {labels.size} labels and {predictions.size} predictions, but one prediction per label is needed.")
    return labels, predictions
