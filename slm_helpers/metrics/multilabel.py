"""Scores of texts that have any number of labels each."""

from collections.abc import Sequence

from slm_helpers.metrics.intervals import bootstrap_table

import numpy as np
import pandas as pd


def label_matrix(rows: Sequence[str], names: Sequence[str], *, separator: str = ", ") -> np.ndarray:
    """Return 0 or 1 for each name and row of joined labels: int8, shape (num_rows, num_names); labels without a name are passed over."""
    place = {name: column for column, name in enumerate(names)}
    matrix = np.zeros((len(rows), len(names)), dtype="int8")
    for number, row in enumerate(rows):
        matrix[number, [place[label] for label in row.split(separator) if label in place]] = 1
    return matrix


def row_counts(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return what the scores are made of, one row a text: true positives of each label, predicted, gold, and whether the set is right."""
    both = (labels & predictions).astype("int64")
    return np.column_stack([both, predictions, labels, (labels == predictions).all(axis=1)]).astype("int64")


def micro_f1(sums: np.ndarray) -> float:
    """Return the F1 of all labels pooled, from summed `row_counts`; 0 where there is nothing to find and nothing is found."""
    correct, predicted, gold = np.split(sums[:-1], 3)
    return 2 * correct.sum() / max(1, predicted.sum() + gold.sum())


def multilabel_table(labels: np.ndarray, predictions: np.ndarray) -> pd.DataFrame:
    """Return micro_f1, macro_f1 (over labels that occur) and exact_match (the whole set is right) with 95 % intervals over texts.

    F1 is 0 where no label occurs.

    Args:
        labels: 0 or 1, shape (num_texts, num_labels).
        predictions: The same.
    """

    def scores(sums: np.ndarray) -> list[float]:
        correct, predicted, gold = np.split(sums[:-1], 3)
        occurs = gold > 0
        macro = float((2 * correct[occurs] / (predicted + gold)[occurs]).mean()) if occurs.any() else 0.0
        return [micro_f1(sums), macro, sums[-1] / len(labels)]

    return bootstrap_table(["micro_f1", "macro_f1", "exact_match"], scores, row_counts(labels, predictions))


def label_table(labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Return label, precision, recall, f1 and rows (with that label); 0 where nothing is divided."""
    correct, predicted, gold = ((labels & predictions).sum(axis=0), predictions.sum(axis=0), labels.sum(axis=0))
    table = {"precision": correct / np.maximum(predicted, 1), "recall": correct / np.maximum(gold, 1)}
    return pd.DataFrame({"label": list(names)} | table | {"f1": 2 * correct / np.maximum(predicted + gold, 1), "rows": gold})


def choose_thresholds(scores: np.ndarray, labels: np.ndarray, *, least: int = 20) -> np.ndarray:
    """Return from which score on a label is given, so that F1 is highest on these rows.

    A label with fewer than `least` rows takes the threshold that is best for all labels pooled: a few rows would fit one of their own to
    chance.

    Args:
        scores: Any scores, shape (num_rows, num_labels), of rows that were not trained on.
        labels: 0 or 1, the same shape.
        least: Rows with a label from which on it gets a threshold of its own.

    Reference:
        Lipton, Elkan and Naryanaswamy (2014), "Thresholding Classifiers to Maximize F1 Score", arXiv:1402.1892.
    """
    shared = _best_threshold(scores.reshape(-1), labels.reshape(-1))
    own = labels.sum(axis=0) >= least
    return np.array([_best_threshold(scores[:, i], labels[:, i]) if own[i] else shared for i in range(scores.shape[1])])


def _best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the threshold of the highest F1, half-way to the next score below; infinite where no row has the label."""
    if not labels.any():
        return float("inf")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order], dtype="int64")
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + labels.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # equal scores are given or left together
    best = int(f1.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best] - 1.0
    return float((ranked[best] + below) / 2)
