"""Measures of written texts: worked out by hand, and properties a reader would expect."""

from slm_helpers.metrics.diversity import LongestSharedNgram, distinct_n, rep_n, self_bleu, shorten, word_forms
from slm_helpers.metrics.intervals import jackknife_interval

import numpy as np
import pytest


def test_words_and_signs_are_counted_in_lower_case():
    assert word_forms("The owl said: Who?") == ["the", "owl", "said", ":", "who", "?"]


def test_shortened_text_keeps_its_first_words_as_written():
    assert shorten("The owl, who  sat there.", 4) == "The owl, who"
    assert shorten("Short.", 9) == "Short."
    with pytest.raises(ValueError, match="num_words is 0"):
        shorten("text", 0)


def test_distinct_n_by_hand():
    assert distinct_n(["a cat and a dog"], 1) == pytest.approx(4 / 5)
    # Pairs: a b, b a, a b | a b: two different ones of four, over both texts.
    assert distinct_n(["a b a b", "A b"], 2) == pytest.approx(2 / 4)
    with pytest.raises(ValueError, match="No text has 3 words"):
        distinct_n(["one two"], 3)


def test_rep_n_counts_within_one_text():
    assert rep_n("a b c d e f g h") == 0
    assert rep_n("a b c d a b c d") == pytest.approx(1 / 5)
    assert rep_n("x " * 40) > 0.9
    assert rep_n("too short") == 0


def test_self_bleu_is_100_for_equal_texts_and_low_for_foreign_ones():
    np.testing.assert_allclose(self_bleu(["one two three four five"] * 3), 100)
    apart = self_bleu(["one two three four five", "red green blue black white", "ant bee cat dog emu"])
    assert apart.shape == (3,) and apart.max() < 20
    with pytest.raises(ValueError, match="there are 1"):
        self_bleu(["alone"])


def test_longest_copy_is_found_whatever_case_and_place():
    finder = LongestSharedNgram(["The owl sat on the roof. It said nothing.", "Nobody came, and the owl slept."])
    assert finder.longest("At night THE OWL SAT ON a branch") == ["the", "owl", "sat", "on"]
    assert finder.longest("xyz") == []
    assert finder.longest("") == []
    assert finder.longest("(The roof: it...)") == ["the", "roof", "it"]
    # Runs do not go across two texts.
    assert finder.longest("said nothing. Nobody came") == ["said", "nothing"]
    with pytest.raises(ValueError, match="no training text"):
        LongestSharedNgram([""])


def test_longest_copy_equals_a_search_of_all_lengths():
    rng = np.random.default_rng(0)
    train = [" ".join(rng.choice(list("abcd"), 60)) for _ in range(3)]
    text = " ".join(rng.choice(list("abcd"), 40))
    finder, words = LongestSharedNgram(train), text.split()
    slow = max(
        (
            end - start
            for start in range(40)
            for end in range(start, 41)
            if any(f" {' '.join(words[start:end])} " in f" {t} " for t in train)
        ),
    )
    assert len(finder.longest(text)) == slow


def test_jackknife_of_a_mean_is_its_standard_error():
    values = [1.0, 2.0, 4.0, 7.0]
    value, low, high = jackknife_interval(np.mean, values)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert (value, low, high) == pytest.approx((3.5, 3.5 - 1.96 * error, 3.5 + 1.96 * error))
    with pytest.raises(ValueError, match="There are 1 rows"):
        jackknife_interval(np.mean, [1.0])
