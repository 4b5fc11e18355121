"""Sentences as a tagger reads them: tokens and spellings of words, windows of long sentences, label indices."""

import doctest

from slm_helpers.text import tagging
from slm_helpers.text.tagging import (
    MAX_CHARACTERS,
    MAX_WORDS,
    check_known_tags,
    encode_sentences,
    iob_labels,
    tag_codes,
    token_lists,
    window_targets,
    windows_of,
)
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import numpy as np
import pandas as pd
import pytest


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(tagging) == (0, 2)


def test_sentences_are_strings_or_lists_of_tokens():
    expected = [["a", "b"], ["c"]]
    for sentences in (["a b", "c"], [["a", "b"], ["c"]], pd.Series(["a b", "c"], index=[7, 3]), np.array(["a b", "c"]), (("a", "b"), "c")):
        assert token_lists(sentences) == expected
    assert token_lists([]) == [] and token_lists([[]]) == [[]]


@pytest.mark.parametrize(
    ("sentences", "error", "message"),
    [
        ("a b", TypeError, r"X is one string \('a b'\), .* pass \['a b'\]"),
        (["a", ["b", 3]], TypeError, "X, sentence 2, token 2: 3 is int"),
        ([["New York", "is"]], ValueError, "X, sentence 1, token 1: 'New York' holds a space"),
    ],
)
def test_what_is_no_sentence_is_named(sentences, error, message):
    with pytest.raises(error, match=message):
        token_lists(sentences)


def test_tags_become_indices_and_unknown_ones_are_named():
    labels = iob_labels(["O B-b", "I-a O"])
    assert labels == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert [codes.tolist() for codes in tag_codes(["O I-b", "B-a"], labels)] == [[0, 4], [1]]
    with pytest.raises(ValueError, match="All tags in train are O"):
        iob_labels(["O O"])
    with pytest.raises(ValueError, match=r"^row 2: the tag 'B-c' is unknown to this model, which knows O, B-a"):
        check_known_tags(["O", "O B-c"], labels, "row", "is unknown to this model, which knows")


def test_words_that_are_context_only_are_no_targets():
    codes = np.arange(300) % 3
    targets = np.full(300, -1)
    for window, window_codes in window_targets(codes):
        assert len(window_codes) == window.stop - window.start <= MAX_WORDS
        counts = window_codes >= 0
        assert (targets[window][counts] == -1).all(), "a word counts twice"
        targets[window] = np.where(counts, window_codes, targets[window])
    np.testing.assert_array_equal(targets, codes)


def test_each_word_ends_where_its_tokens_do():
    tokenizer = train_bpe_tokenizer(["Ada went to Bergen", "Ada went to Oslo"], vocab_size=270)
    words = ["Ada", "went", "to", "Bergen", "Zürich🙂", "", "x" * 500]
    found = encode_sentences(tokenizer, [words, ["Ada"]])
    ids, ends, characters = (found[name][0] for name in ("token_ids", "word_ends", "characters"))
    assert ids[0] == tokenizer.end_id and len(ids) == ends[-1] + 1 and characters.shape == (7, MAX_CHARACTERS)
    assert (np.diff(ends, prepend=0) > 0).all()  # even a word without a sign has a token
    assert tokenizer.decode(ids[: ends[4] + 1]) == "Ada went to Bergen Zürich🙂"
    assert characters[0].tolist() == [257, *(byte + 1 for byte in b"Ada"), 258, *[0] * (MAX_CHARACTERS - 5)]
    assert characters[5].tolist()[:3] == [257, 258, 0] and characters[6].min() > 0
    assert ends[6] - ends[5] <= 16


@pytest.mark.parametrize("num_words", [0, 1, 127, 128, 129, 159, 160, 161, 224, 225, 5000])
def test_windows_hold_every_word_once_with_context_around_it(num_words):
    windows = windows_of(num_words)
    counted = [index for _, _, first, last in windows for index in range(first, last)]
    assert counted == list(range(num_words))
    for start, stop, first, last in windows:
        assert 0 <= start <= first < last <= stop <= num_words and stop - start <= MAX_WORDS
        assert first - start >= 16 or start == 0
        assert stop - last >= 16 or stop == num_words
