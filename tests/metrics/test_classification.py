"""Scores against values worked out by hand, and intervals that hold what they promise."""

from slm_helpers.metrics.classification import (
    accuracy,
    calibration_error,
    class_table,
    confusion_table,
    macro_f1,
    macro_recall,
    score_table,
)
from slm_helpers.metrics.intervals import bootstrap_interval

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score

# Six of one class, two of another, one of a third. By hand: "a" has precision 5/6 and recall 5/6, "b" 1/3 and 1/2, "c" is missed.
LABELS = ["a", "a", "a", "a", "a", "a", "b", "b", "c"]
PREDICTIONS = ["a", "a", "a", "a", "a", "b", "b", "a", "b"]


def test_class_scores_equal_those_worked_out_by_hand():
    assert accuracy(LABELS, PREDICTIONS) == pytest.approx(6 / 9)
    assert macro_recall(LABELS, PREDICTIONS) == pytest.approx((5 / 6 + 1 / 2 + 0) / 3)
    assert macro_f1(LABELS, PREDICTIONS) == pytest.approx((5 / 6 + 2 / 5 + 0) / 3)


def test_class_scores_equal_those_of_scikit_learn_on_skewed_classes():
    rng = np.random.default_rng(0)
    labels = rng.choice(["ham", "spam", "rare"], 300, p=[0.9, 0.08, 0.02])
    predictions = np.where(rng.random(300) < 0.7, labels, rng.permutation(labels))
    assert macro_f1(labels, predictions) == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert macro_recall(labels, predictions) == pytest.approx(recall_score(labels, predictions, average="macro"))
    assert macro_f1(labels, predictions) < accuracy(labels, predictions)  # the common class is the easy one


def test_classes_are_those_of_the_labels():
    # "c" is predicted once but is no label: it costs recall of "a", and is no class of its own.
    assert macro_recall(["a", "a", "b"], ["a", "c", "b"]) == pytest.approx(0.75)
    assert macro_f1(["a", "a", "b"], ["a", "c", "b"]) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("score", [accuracy, macro_f1, macro_recall])
def test_labels_and_predictions_of_other_lengths_are_refused(score):
    with pytest.raises(ValueError, match="There are 2 labels and 1 predictions"):
        score(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="There are 0 labels"):
        score([], [])


def test_score_table_holds_each_score_with_its_interval():
    table = score_table(LABELS * 10, PREDICTIONS * 10).set_index("metric")
    assert table.index.tolist() == ["accuracy", "macro_f1", "macro_recall"]
    assert table.loc["accuracy", "value"] == pytest.approx(6 / 9)
    assert ((table["ci_low"] < table["value"]) & (table["value"] < table["ci_high"])).all()
    # Drawn by cells of the confusion matrix, not by rows: the same distribution, other draws.
    for score in (macro_f1, macro_recall):
        interval = bootstrap_interval(score, LABELS * 10, PREDICTIONS * 10)
        assert table.loc[score.__name__, "value"] == pytest.approx(score(LABELS, PREDICTIONS))
        assert table.loc[score.__name__, ["ci_low", "ci_high"]].tolist() == pytest.approx(interval, abs=0.03)


def test_class_and_confusion_tables_by_hand():
    table = class_table(LABELS, PREDICTIONS, ["b", "a", "c", "d"])  # in the order asked for; d never occurs
    assert table["label"].tolist() == ["b", "a", "c", "d"]
    np.testing.assert_allclose(table["precision"], [1 / 3, 5 / 6, 0, 0])
    np.testing.assert_allclose(table["recall"], [1 / 2, 5 / 6, 0, 0])
    np.testing.assert_allclose(table["f1"], [2 / 5, 5 / 6, 0, 0])
    assert table["rows"].tolist() == [2, 6, 1, 0]
    confusion = confusion_table(LABELS, PREDICTIONS, ["a", "b", "c"])
    assert confusion.to_numpy().tolist() == [["a", "a", 5], ["a", "b", 1], ["b", "a", 1], ["b", "b", 1], ["c", "b", 1]]


def test_the_calibration_error_weighs_bins_by_their_rows():
    # Three bins of 2, 1 and 1 rows, gaps 0.1, 0.2 and 0.3: not their plain mean, 0.2.
    confidence, correct = [0.3, 0.5, 0.8, 0.7], [0, 1, 1, 1]
    assert calibration_error(confidence, correct, num_bins=3) == pytest.approx((2 * 0.1 + 0.3 + 0.2) / 4)
    assert calibration_error(np.array(confidence), np.array(correct, dtype=bool), num_bins=3) == pytest.approx(0.175)
    assert calibration_error([1.0, 0.0], [1, 0]) == 0  # fewer rows than bins
    with pytest.raises(ValueError, match="1 labels and 2 predictions"):
        calibration_error([0.5], [1, 0])
    with pytest.raises(ValueError, match="There are 0"):
        calibration_error([], [])
