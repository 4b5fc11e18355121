"""Scores of a knowledge tracer with intervals over students."""

from collections.abc import Sequence

from slm_helpers.metrics.ranking import auc, auc_interval

import numpy as np
import pandas as pd


def trace_table(correct: Sequence[int], probs: Sequence[float], students: Sequence) -> pd.DataFrame:
    """Return auc, accuracy and bits of predicted probabilities, with 95 % intervals that draw students: metric, value, ci_low, ci_high."""
    correct, probs = np.asarray(correct), np.asarray(probs, dtype="float64")
    bits = -np.log2(np.clip(np.where(correct == 1, probs, 1 - probs), 1e-9, 1))
    rows = [("auc", auc(correct, probs), *auc_interval(correct, probs, students))]
    for name, values in (("accuracy", (probs >= 0.5) == correct), ("bits", bits)):
        sums = pd.DataFrame({"student": students, "value": values}).groupby("student")["value"].agg(["sum", "size"]).to_numpy()
        picks = np.random.default_rng(42).integers(0, len(sums), size=(1000, len(sums)))
        drawn = sums[picks].sum(axis=1)
        rows.append((name, values.mean(), *np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])))
    return pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high"])
