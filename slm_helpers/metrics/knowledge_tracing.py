"""Scores of a knowledge tracer with intervals over students."""

from collections.abc import Sequence

from slm_helpers.metrics.intervals import ratio_interval
from slm_helpers.metrics.ranking import auc, auc_interval

import numpy as np
import pandas as pd


def trace_table(correct: Sequence[int], probs: Sequence[float], students: Sequence) -> pd.DataFrame:
    """Return auc, accuracy and log_loss_bits (log loss to base 2) of predicted probabilities: metric, value, ci_low, ci_high.

    The 95 % intervals draw whole students.
    """
    correct, probs = np.asarray(correct), np.asarray(probs, dtype="float64")
    bits = -np.log2(np.clip(np.where(correct == 1, probs, 1 - probs), 1e-9, 1))
    rows = [("auc", auc(correct, probs), *auc_interval(correct, probs, students))]
    for metric, values in (("accuracy", (probs >= 0.5) == correct), ("log_loss_bits", bits)):
        rows.append((metric, *ratio_interval(values, np.ones(len(values)), groups=students)))
    return pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high"])
