"""Intervals that hold what they promise, and agree with the plain bootstrap."""

from slm_helpers.metrics.classification import accuracy
from slm_helpers.metrics.intervals import bootstrap_interval, bootstrap_table, interval_table, mean_interval, ratio_interval, resample

import numpy as np
import pytest


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


def test_the_interval_of_a_mean_agrees_with_the_plain_bootstrap():
    values = np.random.default_rng(0).choice([0.0, 0.5, 1.0], 300)
    np.testing.assert_allclose(mean_interval(values), bootstrap_interval(np.mean, values), atol=0.01)
    assert mean_interval([1.0, 1.0]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no row"):
        mean_interval([])


def test_interval_of_a_ratio_holds_it_and_shrinks_with_more_texts():
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 150, 400)
    amounts = sizes * rng.normal(2.0, 0.3, 400)
    few, many = (ratio_interval(amounts[:n], sizes[:n]) for n in (20, 400))
    assert few[1] < few[0] < few[2] and many[1] < 2.0 < many[2]
    assert many[2] - many[1] < (few[2] - few[1]) / 2
    with pytest.raises(ValueError, match="no row"):
        ratio_interval(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="sum to 0"):
        ratio_interval([1.0], [0.0])


def test_each_draw_has_as_many_rows_as_the_data_in_the_shares_of_the_data():
    for sizes in (np.ones(50), np.array([30, 15, 5])):
        draws = np.array(list(resample(sizes, num_samples=2000, seed=1)))
        assert (draws.sum(axis=1) == 50).all() and (draws >= 0).all()
        np.testing.assert_allclose(draws.mean(axis=0), sizes, rtol=0.15)
    with pytest.raises(ValueError, match="no row to draw"):
        next(resample(np.array([])))


def test_drawing_kinds_of_equal_rows_is_drawing_rows():
    rng = np.random.default_rng(0)
    rows = rng.integers([0, 1], [2, 3], (200, 2))  # four kinds

    def ratio(sums):
        return [sums[0] / sums[1]]

    table = bootstrap_table(["ratio"], ratio, rows, num_samples=4000)
    low, high = bootstrap_interval(lambda part: part[:, 0].sum() / part[:, 1].sum(), rows, num_samples=4000, seed=1)
    assert table["value"].item() == rows[:, 0].sum() / rows[:, 1].sum()
    assert table.loc[0, ["ci_low", "ci_high"]].tolist() == pytest.approx([low, high], abs=0.01)


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(1)
    values = rng.random(30)
    copies = np.tile(values, 10), np.ones(300)
    by_group = ratio_interval(*copies, groups=np.tile(np.arange(30), 10))
    assert by_group == pytest.approx(ratio_interval(values, np.ones(30)))  # ten equal rows of a student tell no more than one
    by_row = ratio_interval(*copies)
    assert by_row[2] - by_row[1] < (by_group[2] - by_group[1]) / 2


def test_columns_of_one_row_are_drawn_together():
    values = np.random.default_rng(2).normal(size=(100, 1))
    pairs = np.concatenate([values + 1, values], axis=1)  # a paired gain of exactly 1
    table = bootstrap_table(["gain"], lambda sums: [(sums[0] - sums[1]) / 100], pairs)
    assert table.loc[0, ["value", "ci_low", "ci_high"]].astype(float).tolist() == pytest.approx([1, 1, 1])


def test_draws_without_a_score_are_left_out_of_the_interval():
    table = interval_table(["a", "b"], [1.0, 2.0], [[1.0, 2.0], [np.nan, 2.0], [3.0, 2.0]], level=0.5)
    assert table.to_numpy().tolist() == [["a", 1.0, 1.5, 2.5], ["b", 2.0, 2.0, 2.0]]
