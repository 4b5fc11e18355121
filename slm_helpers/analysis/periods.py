"""Dates and times as periods: years, quarters, months, weeks or days, whichever are at most twelve."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

MOST_PERIODS = 12
_LENGTHS = (("D", "%Y-%m-%d"), ("W", "%Y-%m-%d"), ("M", "%Y-%m"), ("Q", ""), ("Y", "%Y"))


def to_periods(values: Sequence[str]) -> tuple[np.ndarray, list[str], str]:
    """Return the period of each value, -1 for one that is not understood; the names of the periods in order; and what to tell the reader.

    Dates in usual spellings and years are dates; other numbers are cut into twelve equal parts in their order, as are more years than
    twelve. Values of which less than half are understood give no periods.

    Example:
        >>> to_periods(["2021-03-02", "2021-03-30", "2021-04-01", "?"])
        (array([ 0,  1,  2, -1]), ['2021-03-02', '2021-03-30', '2021-04-01'], '')
    """
    series = pd.Series([str(value).strip() for value in values], dtype=object)
    numbers = pd.to_numeric(series, errors="coerce")
    if numbers.notna().mean() > 0.5 and not series.str.fullmatch(r"(1[5-9]|20)\d\d|(19|20)\d{6}").mean() > 0.5:
        return _parts(numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns that it guesses; that is told below
        dates = pd.to_datetime(series, errors="coerce", format="mixed", utc=True).dt.tz_localize(None)
    if dates.notna().mean() < 0.5:
        return (
            np.full(len(series), -1),
            [],
            f"less than half of the times were understood as dates or numbers ({dates.notna().sum():,} were)",
        )
    told = "dates such as 03/04/2021 were read month first" if series.str.match(r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}").mean() > 0.1 else ""
    for code, form in _LENGTHS:
        period = dates.dt.to_period(code)
        names = sorted(period.dropna().unique())
        if len(names) <= MOST_PERIODS:
            shown = [name.start_time.strftime(form) if form else f"{name.year}-Q{name.quarter}" for name in names]
            place = period.map({name: number for number, name in enumerate(names)}).fillna(-1)
            return place.to_numpy(dtype="int64"), shown, told
    period, names, _ = _parts(dates.dt.year.astype("float64"))
    return period, names, told


def _parts(numbers: pd.Series) -> tuple[np.ndarray, list[str], str]:
    """Return twelve parts of about equal size, by order."""
    distinct = np.sort(numbers.dropna().unique())
    if len(distinct) <= MOST_PERIODS:
        place = numbers.map({value: number for number, value in enumerate(distinct)}).fillna(-1)
        return place.to_numpy(dtype="int64"), [f"{value:g}" for value in distinct], ""
    part = pd.qcut(numbers, MOST_PERIODS, labels=False, duplicates="drop")
    ends = [(f"{own.min():.10g}", f"{own.max():.10g}") for _, own in numbers.groupby(part)]
    names = [first if first == last else f"{first} to {last}" for first, last in ends]
    return part.fillna(-1).to_numpy(dtype="int64"), names, ""
