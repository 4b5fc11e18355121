"""Scores against values worked out by hand, and intervals that hold what they promise."""

from slm_helpers.metrics.classification import accuracy, confusion_counts, macro_f1, macro_recall, score_table, scores_from_confusion
from slm_helpers.metrics.intervals import bootstrap_interval
from slm_helpers.metrics.language_model import bits_per_byte, bits_per_char, loss_nats, perplexity, token_losses

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score


def test_uniform_logits_have_perplexity_of_vocab_size():
    logits, targets = np.zeros((2, 5, 7)), np.ones((2, 5), dtype="int32")
    assert perplexity(logits, targets) == pytest.approx(7.0)
    assert loss_nats(logits, targets) == pytest.approx(np.log(7))


def test_losses_equal_those_worked_out_by_hand():
    # Softmax of log 1, log 2, log 5 is 1/8, 2/8, 5/8, and adding a constant to the scores changes nothing.
    logits = np.log([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]) + np.array([[0.0], [1000.0]])
    np.testing.assert_allclose(token_losses(logits, np.array([0, 2])), [np.log(8), np.log(8 / 5)])
    # At temperature 1/2 the odds are 1 : 4 : 25.
    np.testing.assert_allclose(token_losses(logits, np.array([0, 2]), temperature=0.5), [np.log(30), np.log(30 / 25)])
    assert loss_nats(logits, np.array([0, 2])) == pytest.approx((np.log(8) + np.log(8 / 5)) / 2)
    assert perplexity(logits, np.array([0, 2])) == pytest.approx(8 / np.sqrt(5))


def test_losses_of_more_rows_than_a_block_holds_are_those_of_each_row():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(9, 40, 1000)).astype("float32"), rng.integers(0, 1000, (9, 40))
    each = [
        [token_losses(row, target) for row, target in zip(rows, right, strict=True)] for rows, right in zip(logits, targets, strict=True)
    ]
    np.testing.assert_allclose(token_losses(logits, targets), each)


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype="float32")
    np.testing.assert_allclose(token_losses(logits, np.array([0, 0])), [0.0, 2e4])


def test_masked_targets_do_not_count():
    logits = np.log([[[1.0, 1.0], [1.0, 3.0], [9.0, 1.0]]])
    targets = np.array([[0, 1, 1]])
    mask = np.array([[1, 1, 0]])
    expected = (np.log(2) + np.log(4 / 3)) / 2
    assert loss_nats(logits, targets, mask=mask) == pytest.approx(expected)
    assert loss_nats(logits, targets) == pytest.approx((np.log(2) + np.log(4 / 3) + np.log(10)) / 3)
    garbage = logits.copy()
    garbage[0, 2] = [1e6, -1e6]
    assert loss_nats(garbage, targets, mask=mask) == pytest.approx(expected)
    with pytest.raises(ValueError, match="mask leaves no target"):
        loss_nats(logits, targets, mask=np.zeros((1, 3)))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"logits have shape \(2, 5, 7\) and targets \(2, 4\).*need shape \(2, 5\)"):
        loss_nats(np.zeros((2, 5, 7)), np.zeros((2, 4), dtype=int))


def test_bits_are_nats_over_log_two_and_units():
    assert bits_per_char(12 * np.log(2), "abcd") == pytest.approx(3.0)
    assert bits_per_char(12 * np.log(2), "aé中🙂") == pytest.approx(3.0)
    assert bits_per_byte(12 * np.log(2), "abcd") == pytest.approx(3.0)
    assert bits_per_byte(12 * np.log(2), "aé中🙂") == pytest.approx(1.2)  # 1 + 2 + 3 + 4 bytes
    for bits in (bits_per_char, bits_per_byte):
        with pytest.raises(ValueError, match="The text is empty"):
            bits(1.0, "")


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


def test_a_bootstrap_interval_is_seeded_and_narrows_with_more_rows():
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    interval = bootstrap_interval(np.mean, values, seed=1)
    assert bootstrap_interval(np.mean, values, seed=1) == interval
    assert bootstrap_interval(np.mean, values, seed=2) != interval
    low, high = interval
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)  # two standard errors each way
    wide = bootstrap_interval(np.mean, values[:25], seed=1)
    assert wide[1] - wide[0] > 2 * (high - low)
    narrow = bootstrap_interval(np.mean, values, level=0.5, seed=1)
    assert low < narrow[0] < narrow[1] < high


def test_a_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    hits = 0
    for seed in range(100):
        low, high = bootstrap_interval(np.mean, rng.random(60) < 0.7, num_samples=300, seed=seed)
        hits += low <= 0.7 <= high
    assert 86 <= hits <= 100


def test_rows_are_resampled_together():
    labels = np.array([0, 1] * 50)
    assert bootstrap_interval(accuracy, labels, labels) == (1.0, 1.0)
    low, high = bootstrap_interval(accuracy, labels, 1 - labels)
    assert (low, high) == (0.0, 0.0)


def test_a_bootstrap_refuses_what_it_cannot_resample():
    with pytest.raises(ValueError, match=r"lengths \[2, 3\], but must have one length"):
        bootstrap_interval(accuracy, [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"lengths \[0\]"):
        bootstrap_interval(np.mean, [])
    with pytest.raises(ValueError, match="level is 95"):
        bootstrap_interval(np.mean, [1.0], level=95)
    with pytest.raises(ValueError, match="num_samples is 0"):
        bootstrap_interval(np.mean, [1.0], num_samples=0)


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


def test_confusion_counts_have_the_labels_in_rows():
    counts = confusion_counts([0, 0, 1, 2], [0, 1, 1, 0], num_classes=4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    values = scores_from_confusion(counts).set_index("metric")["value"]
    assert values["accuracy"] == 0.5
    assert values["macro_recall"] == pytest.approx((0.5 + 1 + 0) / 3)  # the fourth class never occurs and does not count
