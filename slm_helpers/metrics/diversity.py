"""Measures of written texts: variety within and between them, repetition, and what is copied from the training texts.

None of them says whether a text is good. Each is worth something only beside the same measure of texts by people, of the same
number and length: longer or more texts have a lower share of distinct words whoever wrote them.
"""

from collections.abc import Iterable, Sequence

from slm_helpers._checks import check_positive
from slm_helpers.text.words import split_words

import numpy as np


def word_forms(text: str) -> list[str]:
    """Return the words and signs of a text in lower case: what all measures here count."""
    return [form.lower() for form in split_words(text).forms]


def shorten(text: str, num_words: int) -> str:
    """Return a text up to its `num_words`-th word or sign, so that texts of one length are compared."""
    check_positive(num_words=num_words)
    places = split_words(text).places
    return text if len(places) <= num_words else text[: places[num_words - 1, 1]]


def distinct_n(texts: Iterable[str], size: int = 2) -> float:
    """Return how many of the runs of `size` words in all texts together are different ones (distinct-n), in 0-1.

    Example:
        >>> distinct_n(["a cat and a dog"], 1)
        0.8

    Reference:
        Li et al. (2016), "A Diversity-Promoting Objective Function for Neural Conversation Models", arXiv:1510.03055.
    """
    check_positive(size=size)
    runs = [run for text in texts for run in _runs(word_forms(text), size)]
    if not runs:
        raise ValueError(f"No text has {size} words, so there is no run to count.")
    return len(set(runs)) / len(runs)


def rep_n(text: str, size: int = 4) -> float:
    """Return the share of a text's runs of `size` words that stood in it before, in 0-1; 0 for a text that is too short to have one."""
    check_positive(size=size)
    runs = _runs(word_forms(text), size)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def self_bleu(texts: Sequence[str]) -> np.ndarray:
    """Return for each text its BLEU, 0-100, against all others as references, shape (num_texts,): high if they resemble each other.

    Counted by sacrebleu on the words of `word_forms`, with smoothing (exp) of counts that are zero.

    Raises:
        ValueError: If there are fewer than two texts.

    Reference:
        Zhu et al. (2018), "Texygen: A Benchmarking Platform for Text Generation Models", arXiv:1802.01886.
    """
    from sacrebleu.metrics import BLEU

    if len(texts) < 2:
        raise ValueError(f"Self-BLEU compares texts with each other, but there are {len(texts)}. Give two at least.")
    bleu = BLEU(tokenize="none", effective_order=True, max_ngram_order=4)
    split = [" ".join(word_forms(text)) for text in texts]
    return np.array([bleu.sentence_score(text, split[:place] + split[place + 1 :]).score for place, text in enumerate(split)])


class LongestSharedNgram:
    """Finds the longest run of words that a text shares with any of some training texts; case and punctuation do not count."""

    def __init__(self, texts: Iterable[str]):
        """Keep the words of the training texts."""
        self.texts = [_words_only(text) for text in texts]
        if not any(self.texts):
            raise ValueError("There is no training text to look for copies from.")
        self._known: dict[int, set[int]] = {}  # by length, the hashes of all runs: the runs themselves take ten times the memory

    def longest(self, text: str) -> list[str]:
        """Return the longest run of words of `text` that stands in a training text, the first if there are several; maybe none.

        Example:
            >>> LongestSharedNgram(["the owl sat on the roof"]).longest("An owl sat on a tree")
            ['owl', 'sat', 'on']
        """
        words = _words_only(text)
        # A run of n words is copied only if one of n - 1 is: the lengths can be halved.
        low, high, best = 0, len(words), []
        while low < high:
            middle = (low + high + 1) // 2
            known = self._runs_of(middle)
            found = next((run for run in _runs(words, middle) if hash(run) in known), None)
            if found is None:
                high = middle - 1
            else:
                low, best = middle, list(found)
        return best

    def _runs_of(self, size: int) -> set[int]:
        if size not in self._known:
            self._known[size] = {hash(run) for words in self.texts for run in _runs(words, size)}
        return self._known[size]


def _words_only(text: str) -> list[str]:
    return [form for form in word_forms(text) if form[0].isalnum()]


def _runs(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
