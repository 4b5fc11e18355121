"""Area under the ROC curve with intervals over groups."""

from collections.abc import Sequence

from slm_helpers.metrics.classification import check_pair
from slm_helpers.metrics.intervals import interval_table, resample

import numpy as np
import pandas as pd


def auc(labels: Sequence[int], scores: Sequence[float]) -> float:
    """Return the area under the ROC curve: how often a row with label 1 has a higher score than one with label 0; ties count half."""
    from sklearn.metrics import roc_auc_score

    labels, scores = _check(labels, scores)
    return float(roc_auc_score(labels, scores))


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
    codes, names = pd.factorize(np.asarray(groups))
    systems = [_sorted_by_score(*_check(labels, each)) for each in (scores, others) if each is not None]

    def gain(weights: np.ndarray) -> float:
        areas = [_weighted_auc(*system, weights) for system in systems]
        return areas[0] - (areas[1] if others is not None else 0.0)

    # A draw of few students may hold one kind of answer only, and has no area (nan).
    draws = resample(np.ones(len(names)), num_samples=num_samples, seed=seed)
    table = interval_table(["auc"], [gain(np.ones(len(codes)))], [[gain(drawn[codes])] for drawn in draws], level=level)
    return float(table["ci_low"].iloc[0]), float(table["ci_high"].iloc[0])


def _check(labels: Sequence[int], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = check_pair(labels, np.asarray(scores, dtype="float64"))
    if not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        raise ValueError("The AUC needs labels of both kinds, 0 and 1, and no others.")
    if not np.isfinite(scores).all():
        bad = np.flatnonzero(~np.isfinite(scores))
        raise ValueError(
            f"Score {bad[0] + 1} of {len(scores)} is {scores[bad[0]]}, but only numbers can be ranked. Has the model diverged?"
        )
    return labels, scores


def _sorted_by_score(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels by rising score, the last position of each run of equal scores, and the order."""
    order = np.argsort(scores, kind="stable")
    return labels[order].astype(bool), np.flatnonzero(np.append(np.diff(scores[order]) > 0, True)), order


def _weighted_auc(positive: np.ndarray, ends: np.ndarray, order: np.ndarray, weights: np.ndarray) -> float:
    """Return the area where each row counts `weights` times: scikit-learn's, without sorting anew for each draw."""
    weights = weights[order].astype("float64")
    positives, negatives = (np.diff(np.cumsum(weights * part)[ends], prepend=0.0) for part in (positive, ~positive))
    total = positives.sum() * negatives.sum()
    return float((positives * (np.cumsum(negatives) - negatives / 2)).sum() / total) if total else float("nan")
