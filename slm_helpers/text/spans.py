"""The spans of a passage that may answer a question, and simple features of each."""

from collections.abc import Callable
from functools import lru_cache

from slm_helpers.text.words import FUNCTION_WORDS, QUESTION_WORDS, Words, overlap_features, split_words

import numpy as np

_BLOCK = 4096  # spans whose features are computed together


class SpanFeatures:
    """What speaks for a span of a few words within a sentence.

    How many of the question's words, weighted by their idf, its sentence holds and how near they stand; its length, digits, capitals
    and borders; the word before it; and these together with the kind of question. No answer at all is one more choice, with features of
    its own: how much of the question the best sentence covers, and which rare words of it stand nowhere in the passage.

    Args:
        idf: From a lower-case word to its inverse document frequency, scaled to 0-1: near 0 for "the".
        max_words: Words of the longest span that is considered.
    """

    def __init__(self, idf: Callable[[str], float], max_words: int):
        self.idf, self.max_words = idf, max_words

    def spans(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """Return first and last word of all spans of up to max_words words within a sentence."""
        first, more = (part.ravel() for part in np.indices((len(words.forms), self.max_words)))
        kept = first + more < len(words.forms)
        first, last = first[kept], (first + more)[kept]
        kept = words.sentences[first] == words.sentences[last]
        return first[kept], last[kept]

    def scores(self, context: str, question: str, span_weights: np.ndarray, none_weights: np.ndarray | None) -> tuple[np.ndarray, float]:
        """Return the weighted sum of each span's features, in the order of `spans`, and that of no answer (-inf without its weights)."""
        words, query = words_of(context), words_of(question)
        first, last = self.spans(words)
        if not len(first):
            return np.zeros(0), 0.0
        described = self.describe(words, query)
        parts = [slice(start, start + _BLOCK) for start in range(0, len(first), _BLOCK)]
        found = [self.features(described, first[part], last[part]) @ span_weights for part in parts]
        return np.concatenate(found), -np.inf if none_weights is None else float(described["none"] @ none_weights)

    def describe(self, words: Words, query: Words) -> dict[str, np.ndarray]:
        """Return what the features of spans are made of, and those of the choice that there is no answer."""
        idf = self.idf
        overlap = overlap_features(words, query, idf)
        lower = [form.lower() for form in words.forms]
        of_word = np.array(
            [
                (idf(form), form[0].isdigit(), not form[0].isalnum(), as_written[0].isupper())
                for form, as_written in zip(lower, words.forms, strict=True)
            ]
        )
        of_word[:, 3] *= np.diff(words.sentences, prepend=-1) == 0  # every sentence begins with a capital
        edge = np.ones((1, of_word.shape[1])) * [0, 0, 1, 0]
        inside = np.concatenate([of_word, overlap[:, :2]], axis=1)
        stems = set(words.stems)
        strange = {form.lower() for form, stem in zip(query.forms, query.stems, strict=True) if form[0].isalnum() and stem not in stems}
        missing = [idf(form) for form in sorted(strange - set(QUESTION_WORDS))]
        kind = np.eye(len(QUESTION_WORDS) + 1)[_question_kind(query)]
        return {
            "sentence": overlap[:, 2:5],
            "near": np.concatenate([[0], overlap[:, 5], [0]]),
            "sums": np.concatenate([np.zeros((1, inside.shape[1])), np.cumsum(inside, axis=0)]),
            "around": np.concatenate([edge, of_word, edge]),
            "before": np.array([FUNCTION_WORDS.index(form) if form in FUNCTION_WORDS else len(FUNCTION_WORDS) for form in ["", *lower]]),
            "kind": kind,
            "none": np.array([1.0, overlap[:, 2].max(), max(missing, default=0.0), sum(missing), len(missing), *kind]),
        }

    def features(self, described: dict[str, np.ndarray], first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return the features of spans, shape (num_spans, num_features)."""
        around, before, near = described["around"], described["before"], described["near"]
        length = last - first + 1
        within = (described["sums"][last + 1] - described["sums"][first]) / length[:, None]
        small = np.eye(len(FUNCTION_WORDS) + 1)
        plain = np.column_stack(
            [
                described["sentence"][first], near[first], near[last + 2], within, length, np.log(length), length == 1,
                around[first], around[first + 1], around[last + 1], around[last + 2], small[before[first]], small[before[first + 1]],
            ]
        )  # fmt: skip
        shape = np.column_stack(
            [np.ones(len(first)), within, np.log(length), around[first + 1], before[first + 1] == FUNCTION_WORDS.index("because")]
        )
        return np.concatenate([plain, (described["kind"][None, :, None] * shape[:, None, :]).reshape(len(first), -1)], axis=1)


@lru_cache(maxsize=8192)
def words_of(text: str) -> Words:
    """Return the words of a text; the last texts are remembered."""
    return split_words(text)


def _question_kind(query: Words) -> int:
    """Return the place of a question's word among QUESTION_WORDS, or their number if it has none."""
    forms = {form.lower() for form in query.forms}
    return next((i for i, word in enumerate(QUESTION_WORDS) if word in forms), len(QUESTION_WORDS))
