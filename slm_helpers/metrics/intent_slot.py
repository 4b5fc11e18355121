"""Scores of whole commands: intent, slots, both."""

from collections.abc import Sequence

from slm_helpers.metrics.intervals import mean_interval
from slm_helpers.metrics.tagging import tag_table

import numpy as np
import pandas as pd


def frame_table(wanted: Sequence[tuple[str, str]], found: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return the scores of frames, pairs of an intent and tags joined by spaces: columns metric, value, ci_low, ci_high (95 %).

    Metrics are as `evaluate` says; the intervals draw commands with replacement.
    """
    intents = np.array([ours[0] == theirs[0] for ours, theirs in zip(found, wanted, strict=True)], dtype=float)
    frames = np.array([ours == theirs for ours, theirs in zip(found, wanted, strict=True)], dtype=float)
    slots = tag_table(*([tags.split(" ") for _, tags in each] for each in (wanted, found))).set_index("metric")
    rows = [("intent_accuracy", intents.mean(), *mean_interval(intents))]
    rows.append(("slot_f1", *slots.loc["entity_f1", ["value", "ci_low", "ci_high"]]))
    rows.append(("frame_accuracy", frames.mean(), *mean_interval(frames)))
    rows += [(f"slot_{name}", *slots.loc[f"entity_{name}", ["value", "ci_low", "ci_high"]]) for name in ("precision", "recall")]
    return pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high"])
