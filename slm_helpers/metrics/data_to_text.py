"""Slot errors: facts of a record that a text misses or invents.

Reference:
    Wen et al. (2015), "Semantically Conditioned LSTM-based Natural Language Generation ...", arXiv:1508.01745 (slot error rate).
"""

import re
from collections.abc import Callable, Sequence

from slm_helpers.metrics.intervals import bootstrap_table
from slm_helpers.text.records import Record, states, value_pattern

import numpy as np
import pandas as pd

_PLACEHOLDER = re.compile(r"#([A-Za-z])(?![A-Za-z])")
_NUMBER = re.compile(r"(?<![\w#])\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"(?<!\w)[A-Z][\w'-]*")
_DAYS = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
_MONTHS = {"January", "February", "March", "April", "June", "July", "August", "September", "October", "November", "December"}  # not May
_SMALL = {"I", "I'm", "I'll", "I've", "I'd", "A", "The"}


def count_slot_errors(texts: Sequence[str], records: Sequence[Record], *, check: Callable | None = None) -> np.ndarray:
    """Return missing facts, invented ones and facts of each text: int64, shape (num_texts, 3).

    Args:
        texts: One a record.
        records: What they should state.
        check: (text, record) -> (number missing, number invented), where facts may be worded in other ways than their values;
            word for word unless given.
    """
    check = check or (lambda text, record: (len(missing_values(text, record)), len(invented_terms(text, record))))
    rows = [(*check(text, record), len(record.contents)) for text, record in zip(texts, records, strict=True)]
    return np.array(rows, dtype="int64").reshape(-1, 3)


def slot_error_table(counts: np.ndarray, *, num_samples: int = 1000, seed: int = 42) -> pd.DataFrame:
    """Return slot_error_rate, missing_rate and invented_rate, errors per fact, with 95 % intervals over texts.

    Columns metric, value, ci_low, ci_high; `counts` come from `count_slot_errors`.
    """

    def rates(sums: np.ndarray) -> np.ndarray:
        missing, invented, facts = sums
        return np.array([missing + invented, missing, invented]) / facts

    return bootstrap_table(["slot_error_rate", "missing_rate", "invented_rate"], rates, counts, num_samples=num_samples, seed=seed)


def missing_values(text: str, record: Record) -> list[str]:
    """Return the values of a record that do not stand in a text."""
    return [value for value in record.contents if not states(text, value)]


def invented_terms(text: str, record: Record) -> list[str]:
    """Return what a text adds to a record: numbers, days, months, names inside sentences, and placeholders without a value.

    A name is a word with a capital that does not begin a sentence; it counts as invented if it stands in no value and no name
    of a fact.
    """
    known = " ".join((*record.contents, *record.names)).lower()
    known_words = set(re.findall(r"[\w'-]+", known))
    found = [placeholder.group() for placeholder in _PLACEHOLDER.finditer(text)]
    rest = _PLACEHOLDER.sub("~", text)
    for value in sorted(record.contents, key=len, reverse=True):
        rest = value_pattern(value).sub("~", rest)
    found += [number.group() for number in _NUMBER.finditer(rest) if number.group() not in known]
    for name in _NAME.finditer(rest):
        word = name.group().removesuffix("'s")
        begins = not rest[: name.start()].strip(" \"'(") or re.search(r"[.!?:]['\")]?\s+['\"(]?$", rest[: name.start()])
        if word.removesuffix("s") in _DAYS | _MONTHS or (not begins and word not in _SMALL and word.lower() not in known_words):
            found.append(word)
    return found
