from slm_helpers.metrics.multilabel import choose_thresholds, label_matrix, label_table, micro_f1, multilabel_table, row_counts

import numpy as np
import pytest

NAMES = ["a", "b", "c"]
GOLD = label_matrix(["a, b", "a", "", "c"], NAMES)
GIVEN = label_matrix(["a", "a", "b", "b, c"], NAMES)


def test_labels_become_columns_and_unknown_ones_are_passed_over():
    assert label_matrix(["b, a", "", "z, c"], NAMES).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_scores_of_four_texts_worked_out_by_hand():
    # 3 of 5 given labels are right, of 4 gold ones: micro F1 6/9. Labels: a 2/2 and 2/2, b 0 of 2, c 1/1; sets right: the second text.
    table = multilabel_table(GOLD, GIVEN).set_index("metric")["value"]
    assert table["micro_f1"] == pytest.approx(6 / 9) and table["macro_f1"] == pytest.approx(2 / 3) and table["exact_match"] == 0.25
    assert micro_f1(row_counts(GOLD, GIVEN).sum(axis=0)) == pytest.approx(6 / 9)
    assert label_table(GOLD, GIVEN, NAMES)["f1"].round(3).tolist() == [1.0, 0.0, 1.0]


def test_intervals_hold_the_value_and_have_a_width():
    rng = np.random.default_rng(0)
    gold = (rng.random((200, 3)) < 0.3).astype("int8")
    given = np.where(rng.random((200, 3)) < 0.8, gold, 1 - gold).astype("int8")
    table = multilabel_table(gold, given)
    assert ((table["ci_low"] < table["value"]) & (table["value"] < table["ci_high"])).all()


def test_nothing_to_find_and_nothing_found_is_zero_not_an_error():
    nothing = np.zeros((3, 2), dtype="int8")
    assert micro_f1(row_counts(nothing, nothing).sum(axis=0)) == 0 and multilabel_table(nothing, nothing)["value"].tolist() == [0, 0, 1]


def test_a_threshold_lies_where_f1_is_highest_and_equal_scores_stay_together():
    scores, labels = np.array([[3.0], [2.0], [1.0], [0.0]]), np.array([[1], [0], [1], [0]])
    # Given the first: F1 2/3; the first two: 2/4; the first three: 4/5.
    assert choose_thresholds(scores, labels, least=1).tolist() == [0.5]
    assert choose_thresholds(np.array([[1.0], [1.0], [0.0]]), np.array([[1], [0], [0]]), least=1).tolist() == [0.5]


def test_a_rare_label_takes_the_threshold_of_all_pooled():
    scores = np.array([[5.0, 9.0], [4.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    own = choose_thresholds(scores, labels, least=1)
    pooled = choose_thresholds(scores, labels, least=2)
    assert own[1] < 1 and pooled[0] == own[0]
    assert pooled[1] == choose_thresholds(scores.reshape(-1, 1), labels.reshape(-1, 1), least=1)[0]
    assert choose_thresholds(scores, 0 * labels).tolist() == [float("inf")] * 2
