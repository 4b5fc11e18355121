"""What a translator has to beat: the source itself, the nearest known sentence, and phrases looked up one after the other."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from slm_helpers.baselines.nearest import NearestText
from slm_helpers.text.tfidf import build_tfidf
from slm_helpers.text.words import CJK, WORD_UNIT

import numpy as np
from sklearn.base import BaseEstimator

MAX_PHRASE = 4  # words


class CopySource(BaseEstimator):
    """Hand the source on as it is: names, numbers and signs are right."""

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> "CopySource":
        """Do nothing."""
        return self

    def predict(self, sources: Sequence[str]) -> list[str]:
        """Return the sources."""
        return list(sources)


def build_translation_memory() -> NearestText:
    """Build a baseline that answers with the translation of the most similar training sentence, punctuation included."""
    return NearestText(build_tfidf("word", punctuation=True))


class PhraseLookup(BaseEstimator):
    """Translate the longest known phrase, then the next: phrases of up to four words from aligned pairs, in the order of the source.

    Words are aligned by IBM model 1 in both directions, and the links that both find are kept. A phrase pair is a run of source
    words and the run of target words linked to it, if no link leads out of the two. For each source phrase the most frequent target is
    kept; a word without any is copied.

    Args:
        num_rounds: Rounds of expectation maximisation.

    Attributes:
        phrases_: The most frequent target words of each phrase of source words.

    Reference:
        Brown et al. (1993), "The Mathematics of Statistical Machine Translation"; Koehn et al. (2003), "Statistical Phrase-Based
        Translation".
    """

    def __init__(self, *, num_rounds: int = 5):
        self.num_rounds = num_rounds

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> "PhraseLookup":
        """Align the pairs and count the phrases."""
        pairs = [(_words(source), _words(target)) for source, target in zip(sources, targets, strict=True)]
        self.forms_ = _usual_forms(words for _, words in pairs)
        lowered = [tuple([word.strip().lower() for word in words] for words in pair) for pair in pairs]
        forward = _best_links(lowered, self.num_rounds)
        backward = _best_links([(target, source) for source, target in lowered], self.num_rounds)
        counts: dict[tuple[str, ...], Counter] = defaultdict(Counter)
        for (source, _), (_, words), to_source, to_target in zip(lowered, pairs, forward, backward, strict=True):
            links = [(i, j) for j, i in enumerate(to_source) if i >= 0 and to_target[i] == j]
            for first, last, start, stop in _phrases(links, len(source)):
                counts[tuple(source[first:last])][tuple(words[start:stop])] += 1
        self.phrases_ = {phrase: found.most_common(1)[0][0] for phrase, found in counts.items()}
        return self

    def predict(self, sources: Sequence[str]) -> list[str]:
        """Return one translation a source."""
        return [self._translate(source) for source in sources]

    def _translate(self, source: str) -> str:
        words, text, position = _words(source), "", 0
        lowered = tuple(word.strip().lower() for word in words)
        while position < len(words):
            size = next((n for n in range(MAX_PHRASE, 1, -1) if lowered[position : position + n] in self.phrases_), 1)
            for word in self.phrases_.get(lowered[position : position + size], (words[position],)):
                bare = word.strip()
                word = word.replace(bare, self.forms_.get(bare.lower(), bare))
                text += f" {word}" if re.search(rf"[^\W{CJK}]$", text) and re.match(rf"[^\W{CJK}]", word) else word
            position += size
        text = text.strip()
        return text[:1].upper() + text[1:] if source[:1].isupper() else text


def _words(text: str) -> list[str]:
    """Return words and signs, each with the space before it: joined again they are the text."""
    ends = [0, *(match.end() for match in WORD_UNIT.finditer(text))]
    return [text[start:end] for start, end in pairwise(ends)]


def _usual_forms(sentences) -> dict[str, str]:
    """Return how each word is mostly written where it does not begin a sentence."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for words in sentences:
        started = False
        for word in words:
            bare = word.strip()
            counts[bare.lower()][bare if started else bare.lower()] += 10 if started else 1
            started = started or bare[:1].isalnum()
    return {word: forms.most_common(1)[0][0] for word, forms in counts.items()}


def _best_links(pairs: list[tuple[list[str], list[str]]], num_rounds: int) -> list[np.ndarray]:
    """Return for each pair and target word the most probable source word by IBM model 1, -1 for none: int64, shape (num_target_words,)."""
    numbers: tuple[dict[str, int], dict[str, int]] = ({"": 0}, {})
    coded = [
        tuple([known.setdefault(word, len(known)) for word in words] for words, known in zip(pair, numbers, strict=True)) for pair in pairs
    ]
    # All ways to link a target word with a source word (the first is none), laid out in one row.
    sources = np.concatenate([np.tile([0, *source], len(target)) for source, target in coded]).astype("int64")
    targets = np.concatenate([np.repeat(target, len(source) + 1) for source, target in coded]).astype("int64")
    sizes = np.concatenate([np.full(len(target), len(source) + 1) for source, target in coded]).astype("int64")
    place = np.repeat(np.arange(len(sizes)), sizes)
    kinds, kind = np.unique(sources * len(numbers[1]) + targets, return_inverse=True)
    of_source = kinds // len(numbers[1])
    chances = np.ones(len(kinds))
    for _ in range(num_rounds):
        weights = chances[kind]
        counts = np.bincount(kind, weights / np.bincount(place, weights)[place])
        chances = counts / np.bincount(of_source, counts)[of_source]
    weights = chances[kind]
    starts = np.cumsum(sizes) - sizes
    highest = np.maximum.reduceat(weights, starts)[place] if len(starts) else weights
    best = np.flatnonzero(weights >= highest)
    first = best[np.unique(place[best], return_index=True)[1]]
    links = first - starts - 1
    return np.split(links, np.cumsum([len(target) for _, target in coded])[:-1])


def _phrases(links: list[tuple[int, int]], num_words: int):
    """Yield (first, last, start, stop) of the source and target runs that no link leads out of."""
    for first in range(num_words):
        for last in range(first + 1, min(first + MAX_PHRASE, num_words) + 1):
            inside = [j for i, j in links if first <= i < last]
            if not inside:
                continue
            start, stop = min(inside), max(inside) + 1
            if stop - start <= 2 * MAX_PHRASE and all(first <= i < last for i, j in links if start <= j < stop):
                yield first, last, start, stop
