"""Slot errors: facts of a record that a text misses or invents."""

from collections.abc import Callable, Sequence

from slm_helpers.metrics.intervals import bootstrap_table
from slm_helpers.text.records import Record, invented_terms, missing_values

import numpy as np
import pandas as pd


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
