"""Confidence intervals: the one bootstrap of the package, and the jackknife.

Most scores depend on the data only through sums over rows (correct answers, matched n-grams, nats): `bootstrap_table` resamples
such sums. Rows that are not independent, such as the answers of one student, are drawn together as `groups`. Two systems are
compared on the same draws when their counts stand side by side in one row.

Reference:
    Efron and Tibshirani (1993), "An Introduction to the Bootstrap".
"""

from collections.abc import Callable, Iterator, Sequence

from slm_helpers._checks import check_positive

import numpy as np
import pandas as pd


def resample(sizes: np.ndarray, *, num_samples: int = 1000, seed: int = 42) -> Iterator[np.ndarray]:
    """Yield, `num_samples` times, how often each kind of row is drawn: int64, shape (num_kinds,). One at a time, to spare memory.

    Args:
        sizes: How many equal rows there are of each kind, shape (num_kinds,); ones where each row is a kind of its own.
        num_samples: Resamples, each of as many rows as there are.
        seed: Of the draws.
    """
    check_positive(num_samples=num_samples)
    rng, sizes = np.random.default_rng(seed), np.asarray(sizes)
    total = int(sizes.sum())
    if not total:
        raise ValueError("There is no row to draw. An interval needs one at least.")
    for _ in range(num_samples):
        if len(sizes) == total:  # five times as fast as the multinomial
            yield np.bincount(rng.integers(0, total, total), minlength=total)
        else:
            yield rng.multinomial(total, sizes / total)


def bootstrap_table(
    metrics: Sequence[str],
    score: Callable[[np.ndarray], Sequence[float]],
    rows: np.ndarray,
    *,
    groups: Sequence | None = None,
    num_samples: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> pd.DataFrame:
    """Return scores of summed rows with percentile bootstrap intervals: columns metric, value, ci_low, ci_high.

    Args:
        metrics: Names of the scores.
        score: From the sums of all rows, shape (num_columns,), to one score for each name; nan where a draw has none.
        rows: What is counted in each row, shape (num_rows, num_columns).
        groups: The group of each row, where whole groups are drawn.
        num_samples: Resamples.
        level: Coverage, 0.95 for a 95 % interval.
        seed: Of the draws.

    Example:
        >>> accuracy = lambda sums: [sums[0] / sums[1]]
        >>> bootstrap_table(["accuracy"], accuracy, [[1, 1], [1, 1]]).values.tolist()
        [['accuracy', 1.0, 1.0, 1.0]]
    """
    rows = np.asarray(rows)
    rows = rows if groups is None else pd.DataFrame(rows).groupby(np.asarray(groups), sort=True).sum().to_numpy()
    kinds, sizes = np.unique(rows, axis=0, return_counts=True)
    if len(kinds) * 4 > len(rows):  # few rows are equal: drawing kinds would be slower
        kinds, sizes = rows, np.ones(len(rows), dtype="int64")
    samples = [score(drawn @ kinds) for drawn in resample(sizes, num_samples=num_samples, seed=seed)]
    return interval_table(metrics, score(sizes @ kinds), samples, level=level)


def interval_table(metrics: Sequence[str], values: Sequence[float], samples: Sequence, *, level: float = 0.95) -> pd.DataFrame:
    """Return values with the quantiles of their samples, shape (num_samples, num_metrics): columns metric, value, ci_low, ci_high."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but must lie between 0 and 1, e.g. 0.95.")
    low, high = np.nanquantile(np.asarray(samples, dtype="float64"), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return pd.DataFrame({"metric": list(metrics), "value": np.asarray(values, dtype="float64"), "ci_low": low, "ci_high": high})


def bootstrap_interval(
    score: Callable[..., float], *arrays: Sequence, num_samples: int = 1000, level: float = 0.95, seed: int = 42
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of any `score(*arrays)`, resampling rows with replacement.

    Args:
        score: Takes as many arrays as are given; e.g. `accuracy`, or `np.mean`. The order of the rows must not matter to it.
        arrays: One entry a row each, all of one length.
        num_samples: Resamples.
        level: Coverage, 0.95 for a 95 % interval.
        seed: Of the draws.

    Example:
        >>> bootstrap_interval(np.mean, [1.0, 1.0, 1.0])
        (1.0, 1.0)
    """
    columns = [np.asarray(a) for a in arrays]
    lengths = {len(a) for a in columns}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"The arrays have lengths {sorted(lengths)}, but must have one length of at least 1.")
    rows = np.arange(lengths.pop())
    draws = resample(np.ones(len(rows)), num_samples=num_samples, seed=seed)
    samples = [[score(*(a[picked] for a in columns))] for picked in (np.repeat(rows, drawn) for drawn in draws)]
    return _bounds(interval_table([""], [np.nan], samples, level=level))


def mean_interval(values: Sequence[float], *, num_samples: int = 1000, level: float = 0.95, seed: int = 42) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over rows; of the differences of two systems it is the paired interval."""
    return ratio_interval(values, np.ones(len(values)), num_samples=num_samples, level=level, seed=seed)[1:]


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    groups: Sequence | None = None,
    num_samples: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> tuple[float, float, float]:
    """Return sum(numerators) / sum(denominators), one of each a row, with its percentile bootstrap interval.

    Example:
        >>> ratio_interval([2.0, 4.0], [1, 2])  # nats and bytes of two texts
        (2.0, 2.0, 2.0)
    """
    rows = np.column_stack([np.asarray(numerators, dtype="float64"), np.asarray(denominators, dtype="float64")])
    if len(rows) and not rows[:, 1].sum():
        raise ValueError("The denominators sum to 0, so there is no ratio. Give one row at least that counts.")
    table = bootstrap_table([""], lambda sums: [_ratio(*sums)], rows, groups=groups, num_samples=num_samples, level=level, seed=seed)
    return float(table["value"].iloc[0]), *_bounds(table)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else np.nan


def _bounds(table: pd.DataFrame) -> tuple[float, float]:
    return float(table["ci_low"].iloc[0]), float(table["ci_high"].iloc[0])


def jackknife_interval(score: Callable[[list], float], rows: Sequence, *, margin: float = 1.96) -> tuple[float, float, float]:
    """Return score(rows) and its 95 % interval by leaving out one row at a time.

    For measures of a set of texts, such as `distinct_n`, that the bootstrap distorts: a text drawn twice is a repetition.

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
    without = np.array([score(rows[:i] + rows[i + 1 :]) for i in range(len(rows))])
    error = float(np.sqrt((len(rows) - 1) / len(rows) * ((without - without.mean()) ** 2).sum()))
    value = float(score(rows))
    return value, value - margin * error, value + margin * error
