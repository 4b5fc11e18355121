"""Scores of whole commands: intent, slots, both."""

from collections.abc import Sequence

from slm_helpers.metrics.intervals import mean_interval
from slm_helpers.metrics.tagging import tag_table

import numpy as np
import pandas as pd


def frame_table(references: Sequence[tuple[str, str]], predictions: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return the scores of frames, pairs of an intent and tags joined by spaces: columns metric, value, ci_low, ci_high (95 %).

    intent_accuracy; slot_f1, slot_precision and slot_recall of exact slots, over all commands together; frame_accuracy, the share
    of commands with the right intent and all the right tags. The intervals draw commands with replacement.
    """
    pairs = list(zip(predictions, references, strict=True))
    intents = np.array([predicted[0] == gold[0] for predicted, gold in pairs], dtype=float)
    frames = np.array([tuple(predicted) == tuple(gold) for predicted, gold in pairs], dtype=float)
    slots = tag_table(*([tags.split(" ") for _, tags in each] for each in (references, predictions))).set_index("metric")
    slots = {f"slot_{name}": slots.loc[f"entity_{name}", ["value", "ci_low", "ci_high"]] for name in ("f1", "precision", "recall")}
    rows = {"intent_accuracy": (intents.mean(), *mean_interval(intents)), "slot_f1": slots["slot_f1"]}
    rows |= {"frame_accuracy": (frames.mean(), *mean_interval(frames))} | slots
    return pd.DataFrame([(metric, *row) for metric, row in rows.items()], columns=["metric", "value", "ci_low", "ci_high"])
