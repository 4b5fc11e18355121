"""The sentence of a passage in which some characters stand, as a question generator reads it."""

from collections.abc import Mapping
from typing import Any

from slm_helpers.text.words import split_words

import numpy as np

MAX_WORDS = 128  # of a sentence, or of a context without an answer, that a question is asked of


def enclosing_sentence(context: str, start: int, end: int) -> tuple[str, int]:
    """Return the sentence of a passage in which the characters from `start` to `end` stand, and where it begins."""
    words = split_words(context)
    if not len(words.forms):
        return context, 0
    first = int(np.searchsorted(words.places[:, 1], start, side="right"))
    last = max(first, int(np.searchsorted(words.places[:, 0], end, side="left")) - 1)
    inside = np.flatnonzero((words.sentences >= words.sentences[first]) & (words.sentences <= words.sentences[last]))
    begin = int(words.places[inside[0], 0])
    return context[begin : int(words.places[inside[-1], 1])], begin


def source_sentence(row: Mapping[str, Any]) -> str:
    """Return what a question is asked of: the sentence in which the answer stands or, without an answer, the whole context.

    Of more than MAX_WORDS words those around the answer are taken, or the first.

    Args:
        row: With context, answer ("" for none) and answer_start, its first character in the context.
    """
    if not row["answer"]:
        return _words_around(row["context"], 0, 0)
    start = int(row["answer_start"])
    sentence, begin = enclosing_sentence(row["context"], start, start + len(row["answer"]))
    return _words_around(sentence, start - begin, start - begin + len(row["answer"]))


def _words_around(text: str, start: int, end: int) -> str:
    """Return MAX_WORDS words of a text, or all, with the characters from `start` to `end` in their middle."""
    places = split_words(text).places
    if len(places) <= MAX_WORDS:
        return text
    middle = int(np.searchsorted(places[:, 0], (start + end) / 2))
    first = min(max(0, middle - MAX_WORDS // 2), len(places) - MAX_WORDS)
    return text[places[first, 0] : places[first + MAX_WORDS - 1, 1]]
