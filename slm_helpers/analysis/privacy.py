"""What a model gives away about the rows it learned from: exposure of canaries, membership inference, a lower bound on epsilon.

Reference:
    Carlini et al. (2019), "The Secret Sharer", arXiv:1802.08232, for exposure.
    Carlini et al. (2022), "Membership Inference Attacks From First Principles", arXiv:2112.03570, for LiRA.
    Brännvall (2026), "Exponential-Family Membership Inference: From LiRA and RMIA to BaVarIA", arXiv:2603.11799.
"""

from collections.abc import Sequence

from slm_helpers._checks import check_choice
from slm_helpers.metrics.intervals import interval_table, resample

import numpy as np
import pandas as pd

FALSE_POSITIVE_RATES = (0.001, 0.01)
_PRIOR_STRENGTH = 4.0  # rows that the variance of all examples counts as, beside the shadow models of one
_MIN_VARIANCE = 1e-6


def exposure(losses: np.ndarray, secret: int) -> float:
    """Return the exposure of a secret among all values it could have had, in bits: log2(candidates) - log2(rank).

    Guessing in the order of the model's losses, an attacker finds it after `rank` tries. The most is log2(candidates); a model that has
    not seen the secret gives 1.4 on average (1 / ln 2).

    Args:
        losses: The model's loss of each candidate, shape (candidates,).
        secret: Index of the true one. Equal losses share their mean rank.

    Example:
        >>> exposure(np.array([3.0, 1.0, 2.0, 4.0]), 1)
        2.0
    """
    losses = np.asarray(losses, dtype="float64")
    rank = 1 + (losses < losses[secret]).sum() + ((losses == losses[secret]).sum() - 1) / 2
    return float(np.log2(len(losses)) - np.log2(rank))


def logit_confidence(probs: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of the probability of the true class: nearly normal over models, as `membership_scores` assumes."""
    probs = np.clip(np.asarray(probs, dtype="float64"), 1e-12, 1 - 1e-12)
    return np.log(probs) - np.log1p(-probs)


def membership_scores(confidences: np.ndarray, members: np.ndarray, *, method: str = "bavaria") -> np.ndarray:
    """Attack each model with all others as its shadow models: the log-likelihood ratio that a row was a member.

    For each row, the confidences of the models that learned from it and of those that did not give two distributions.

    Args:
        confidences: What a model says of a row (`logit_confidence`), shape (models, rows).
        members: Which rows each model learned from, bool, the same shape; each row needs two models of either kind besides the target.
        method: "bavaria": Student-t predictive distributions whose variances lean towards that of all rows (a conjugate prior), which
            suits few models. "lira": normal distributions with the variance of each row as estimated. "loss": the confidence itself, an
            attack without shadow models.

    Returns:
        Scores, the same shape: the higher, the more likely a member.

    Raises:
        ValueError: If shapes differ, the method is unknown, or a row has too few models of a kind.
    """
    check_choice(("bavaria", "lira", "loss"), method=method)
    confidences, members = np.asarray(confidences, dtype="float64"), np.asarray(members, dtype=bool)
    if confidences.shape != members.shape or confidences.ndim != 2:
        raise ValueError(f"confidences has shape {confidences.shape}, members {members.shape}; both must be (models, rows).")
    if method == "loss":
        return confidences
    if min(members.sum(axis=0).min(), (~members).sum(axis=0).min()) < 3:
        raise ValueError("A row needs three models that learned from it and three that did not. Train more shadow models.")
    inside, outside = (_log_density(confidences, chosen, method) for chosen in (members, ~members))
    return inside - outside


def attack_table(members: np.ndarray, scores: np.ndarray, *, num_samples: int = 300, level: float = 0.95, seed: int = 42) -> pd.DataFrame:
    """Return how well scores tell members from others: auc, and the true-positive rates at 0.1 % and 1 % false positives.

    One threshold serves all models. Intervals draw rows of the data, each with what all models say of it.

    Args:
        members: Bool, shape (models, rows).
        scores: The same shape.
        num_samples: Resamples.
        level: Coverage.
        seed: Of the draws.

    Returns:
        Columns metric, value, ci_low, ci_high.
    """
    members, scores = np.atleast_2d(members).astype(bool), np.atleast_2d(scores)
    order = np.argsort(-scores.ravel(), kind="stable")  # once: a draw changes how often a row counts, not where it stands
    truth, rows = members.ravel()[order], np.tile(np.arange(members.shape[1]), len(members))[order]
    ends = np.flatnonzero(np.append(np.diff(scores.ravel()[order]) < 0, True))  # the last of each run of equal scores

    def measure(drawn: np.ndarray) -> list[float]:
        counts = drawn[rows]
        hits, false = np.cumsum(counts * truth)[ends], np.cumsum(counts * ~truth)[ends]
        area = (np.diff(false, prepend=0) * (hits - np.diff(hits, prepend=0) / 2)).sum() / (hits[-1] * false[-1])
        last = np.searchsorted(false, np.array(FALSE_POSITIVE_RATES) * false[-1], side="right")
        return [area, *(np.append(0, hits)[last] / hits[-1])]

    names = ["auc", *(f"tpr at {100 * rate:g} % fpr" for rate in FALSE_POSITIVE_RATES)]
    ones = np.ones(members.shape[1], dtype="int64")
    samples = [measure(drawn) for drawn in resample(ones, num_samples=num_samples, seed=seed)]
    return interval_table(names, measure(ones), samples, level=level)


def true_positive_rates(members: Sequence[bool], scores: Sequence[float], rates: Sequence[float] = FALSE_POSITIVE_RATES) -> list[float]:
    """Return the share of members whose score is above the threshold that so small a share of the others exceeds."""
    members, scores = np.asarray(members, dtype=bool).ravel(), np.asarray(scores, dtype="float64").ravel()
    others, found = np.sort(scores[~members])[::-1], []
    for rate in rates:
        allowed = int(rate * len(others))  # of the others may exceed the threshold
        found.append(float((scores[members] > others[allowed]).mean()))
    return found


def epsilon_lower_bound(members: np.ndarray, scores: np.ndarray, *, delta: float, level: float = 0.95) -> float:
    """Return an epsilon that the attacked training cannot be below, with a confidence of `level`.

    An (epsilon, delta) mechanism keeps tpr <= exp(epsilon) fpr + delta for every attack. The threshold is chosen on the first half of the
    trials, and both rates are bounded on the second (Clopper and Pearson 1934); trials are taken to be independent.

    Args:
        members: Bool, one a trial.
        scores: The same shape.
        delta: Of the promise that is tested.
        level: Confidence of the two bounds together.

    Reference:
        Nasr et al. (2021), "Adversary Instantiation", arXiv:2101.04535.
    """
    from scipy.stats import beta

    members, scores = np.asarray(members, dtype=bool).ravel(), np.asarray(scores, dtype="float64").ravel()
    half = len(scores) // 2

    def bound(part: slice, threshold: float) -> float:
        above, truth, error = scores[part] > threshold, members[part], (1 - level) / 2
        hits, false, positives, others = (above & truth).sum(), (above & ~truth).sum(), truth.sum(), (~truth).sum()
        low = beta.ppf(error, hits, positives - hits + 1) if hits else 0.0
        high = beta.ppf(1 - error, false + 1, others - false) if false < others else 1.0
        return float(np.log(max(low - delta, 1e-12) / high))

    thresholds = np.quantile(scores[:half], np.linspace(0.5, 0.999, 100))
    best = max(thresholds, key=lambda threshold: bound(slice(None, half), threshold))
    return max(0.0, bound(slice(half, None), best))


def _log_density(confidences: np.ndarray, chosen: np.ndarray, method: str) -> np.ndarray:
    """Return the log density of each confidence among those that are chosen, itself left out: shape (models, rows)."""
    from scipy.stats import norm, t

    # Leaving the model itself out of sums is what makes one pass over all models enough.
    count = chosen.sum(axis=0) - chosen
    mean = ((confidences * chosen).sum(axis=0) - confidences * chosen) / count
    squares = ((confidences**2 * chosen).sum(axis=0) - confidences**2 * chosen) - count * mean**2
    squares = np.maximum(squares, 0.0)
    if method == "lira":
        return norm.logpdf(confidences, mean, np.sqrt(squares / (count - 1) + _MIN_VARIANCE))
    common = (squares.sum(axis=1) / (count - 1).sum(axis=1))[:, None]
    freedom = _PRIOR_STRENGTH + count - 1
    variance = (_PRIOR_STRENGTH * common + squares) / freedom + _MIN_VARIANCE
    return t.logpdf(confidences, freedom, mean, np.sqrt(variance * (1 + 1 / count)))
