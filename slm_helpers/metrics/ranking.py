"""Area under the ROC curve with intervals over groups."""

from collections.abc import Sequence

from slm_helpers.metrics.classification import check_pair

import numpy as np
import pandas as pd


def auc(labels: Sequence[int], scores: Sequence[float]) -> float:
    """Return the area under the ROC curve: how often a row with label 1 has a higher score than one with label 0; ties count half."""
    labels, scores = check_pair(labels, scores)
    return float(_weighted_auc(*_sorted_by_score(labels, scores)[:2], np.ones(len(labels))))


def auc_interval(
    labels: Sequence[int], scores: Sequence[float], groups: Sequence, *, num_samples: int = 1000, level: float = 0.95, seed: int = 42
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `auc`. Drawn are whole groups (students): the rows of one are not independent."""
    return auc_difference_interval(labels, scores, None, groups, num_samples=num_samples, level=level, seed=seed)


def auc_difference_interval(
    labels: Sequence[int],
    scores: Sequence[float],
    others: Sequence[float] | None,
    groups: Sequence,
    *,
    num_samples: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> tuple[float, float]:
    """Return the paired interval of how much higher the AUC of `scores` is than that of `others`, both on the same draws of groups."""
    labels, scores = check_pair(labels, scores)
    codes, names = pd.factorize(np.asarray(groups))
    ordered = [_sorted_by_score(labels, np.asarray(column)) for column in (scores, others) if column is not None]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num_samples):
        weights = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[codes].astype("float64")
        areas = [_weighted_auc(hits, ends, weights[order]) for hits, ends, order in ordered]
        found.append(areas[0] - (areas[1] if others is not None else 0.0))
    # A draw of few students may hold one kind of answer only, and has no area.
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sorted_by_score(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels by rising score, the last place of each run of equal scores, and the order."""
    if not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        raise ValueError("The AUC needs labels of both kinds, 0 and 1, and no others.")
    order = np.argsort(scores, kind="stable")
    return labels[order].astype(bool), np.flatnonzero(np.append(np.diff(scores[order]) > 0, True)), order


def _weighted_auc(hits: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> float:
    right, wrong = (np.diff(np.cumsum(weights * part)[ends], prepend=0.0) for part in (hits, ~hits))
    total = right.sum() * wrong.sum()
    return float((right * (np.cumsum(wrong) - wrong / 2)).sum() / total) if total else float("nan")
