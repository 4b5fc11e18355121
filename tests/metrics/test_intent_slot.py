"""Scores of whole commands by hand."""

from slm_helpers.metrics.intent_slot import frame_table

import pytest


def test_scores_of_frames_by_hand():
    wanted = [("a", "B-x I-x O"), ("b", "O O"), ("b", "B-y O"), ("a", "O")]
    found = [("a", "B-x I-x O"), ("a", "O O"), ("b", "B-x O"), ("a", "O")]
    values = frame_table(wanted, found).set_index("metric")["value"]
    assert values.to_dict() == pytest.approx(
        {"intent_accuracy": 3 / 4, "slot_f1": 2 / 4, "frame_accuracy": 2 / 4, "slot_precision": 1 / 2, "slot_recall": 1 / 2}
    )
