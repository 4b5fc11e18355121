from slm_helpers.analysis.drift import drift_verdict, moved_ngrams, separability

import numpy as np
import pytest


def texts_of(num, words, seed):
    rng = np.random.default_rng(seed)
    fill = [f"w{i}" for i in range(300)]
    return [" ".join([*rng.choice(fill, 10), *rng.choice(words, 2)]) for _ in range(num)]


def test_the_same_source_is_not_told_apart_and_another_is():
    first, second, other = texts_of(400, ["soup"], 1), texts_of(400, ["soup"], 2), texts_of(400, ["boat", "soup"], 3)
    value, low, high, tested = separability(first, second, np.arange(800))
    assert low < 0.5 < high and 350 < tested < 450 and "No drift" in drift_verdict(value, low, high, tested)
    value, low, high, tested = separability(first, other, np.arange(800))
    assert low > 0.75 and low < value < high and "another kind of text" in drift_verdict(value, low, high, tested)
    moved = moved_ngrams(first, other)
    found = set(zip(moved["direction"], moved["ngram"], strict=True))
    assert ("more", "boat") in found and found & {("fewer", "soup"), ("fewer", "soup soup")}
    row = moved[moved["ngram"] == "boat"].iloc[0]
    assert row["before"] == 0 and row["share"] == pytest.approx(np.mean(["boat" in text for text in other]))


def test_copies_stay_in_one_half_so_that_nothing_is_known_by_heart():
    rng = np.random.default_rng(4)
    unique = [f"{a} {b}" for a, b in rng.integers(0, 10**6, (200, 2))]  # nothing but names that no other text has
    first, second = unique[:100] * 4, unique[100:] * 4
    groups = np.concatenate([np.tile(np.arange(100), 4), np.tile(np.arange(100, 200), 4)])
    leaky = separability(first, second, np.arange(800))[0]
    value, low, high, _ = separability(first, second, groups)
    assert leaky > 0.95 and low <= 0.5 <= high and 0.4 < value < 0.6


def test_few_texts_give_no_number():
    value, _, _, tested = separability(["a"], ["b"], np.arange(2))
    assert np.isnan(value) and tested == 0 and "Too few" in drift_verdict(value, value, value, tested)
