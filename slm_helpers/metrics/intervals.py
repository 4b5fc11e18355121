"""Bootstrap confidence intervals."""

from collections.abc import Callable, Sequence

from slm_helpers._checks import check_positive

import numpy as np


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


def mean_interval(values: Sequence[float], *, num_samples: int = 1000, level: float = 0.95, seed: int = 42) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over rows; of the differences of two systems it is the paired interval.

    Faster than `bootstrap_interval(np.mean, ...)`, and the same: only how often each value is drawn counts.
    """
    values, counts = np.unique(np.asarray(values, dtype="float64"), return_counts=True)
    if not len(values):
        raise ValueError("There is no value to take the mean of.")
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=num_samples)
    low, high = np.quantile(drawn @ values / counts.sum(), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def jackknife_interval(score: Callable[[list], float], rows: Sequence, *, margin: float = 1.96) -> tuple[float, float, float]:
    """Return score(rows) and its 95 % interval by leaving out one row at a time.

    For measures of a set of texts, such as `distinct_share`, that the bootstrap distorts: a text drawn twice is a repetition.

    Args:
        score: Takes a list of rows.
        rows: Two at least.
        margin: Standard errors on either side.

    Reference:
        Efron and Stein (1981), "The Jackknife Estimate of Variance".
    """
    rows = list(rows)
    if len(rows) < 2:
        raise ValueError(f"There are {len(rows)} rows, but two at least are needed for an interval.")
    without = np.array([score(rows[:place] + rows[place + 1 :]) for place in range(len(rows))])
    error = float(np.sqrt((len(rows) - 1) / len(rows) * ((without - without.mean()) ** 2).sum()))
    value = float(score(rows))
    return value, value - margin * error, value + margin * error
