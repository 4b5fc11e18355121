"""The area under the ROC curve: by hand, against scikit-learn, and with intervals over students."""

from slm_helpers.metrics.ranking import auc, auc_difference_interval, auc_interval

import numpy as np
import pytest


def test_auc_worked_out_by_hand():
    assert auc([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.9]) == 0.75
    assert auc([0, 1, 1], [0.5, 0.5, 0.5]) == 0.5
    assert auc([0, 1, 1], [0.5, 0.5, 0.7]) == 0.75
    with pytest.raises(ValueError, match="both kinds"):
        auc([1, 1], [0.2, 0.3])
    with pytest.raises(ValueError, match="both kinds"):
        auc([1, 2], [0.2, 0.3])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    labels, scores = [0, 1, 1, 0], [0.1, bad, 0.3, bad]
    with pytest.raises(ValueError, match=f"Score 2 of 4 is {bad}"):
        auc(labels, scores)
    with pytest.raises(ValueError, match=f"Score 2 of 4 is {bad}"):
        auc_difference_interval(labels, [0.1, 0.2, 0.3, 0.4], scores, [1, 2, 3, 4])


def test_auc_agrees_with_scikit_learn_with_and_without_weights():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 300), rng.integers(0, 20, 300) / 20
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    low, high = auc_interval(labels, scores, np.arange(300))
    draws = [rng.integers(0, 300, 300) for _ in range(400)]
    values = np.quantile([roc_auc_score(labels[pick], scores[pick]) for pick in draws], [0.025, 0.975])
    assert (low, high) == pytest.approx(values, abs=0.02)


def test_intervals_draw_students_and_not_rows():
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 40), rng.random(40)
    many = [np.tile(part, 25) for part in (labels, scores, np.arange(40))]
    rows = auc_interval(labels, scores, np.arange(40), num_samples=400)
    assert auc_interval(*many, num_samples=400) == pytest.approx(rows)  # 25 equal rows of a student tell no more than one
    low, high = auc_difference_interval(labels, scores, scores, np.arange(40), num_samples=50)
    assert low == high == 0
