"""Answer with what belongs to the most similar known text."""

from collections.abc import Sequence
from typing import Any

from slm_helpers.text.tfidf import build_tfidf

import numpy as np
from sklearn.base import BaseEstimator, clone

_BLOCK = 256  # texts compared together: all similarities at once would fill the memory


class NearestText(BaseEstimator):
    """Answer as the nearest training text was answered, by the cosine of TF-IDF vectors: questions, a translation memory, replies.

    Args:
        vectorizer: A scikit-learn vectorizer whose rows have unit length; words, word pairs and characters unless given.

    Attributes:
        vectorizer_: The fitted vectorizer.
        texts_, answers_: What it was fitted to.

    Example:
        >>> NearestText().fit(["capital of Peru", "capital of Chad"], ["Lima", "N'Djamena"]).predict(["Peru's capital?"])
        ['Lima']
    """

    def __init__(self, vectorizer: Any = None):
        self.vectorizer = vectorizer

    def fit(self, texts: Sequence[str], answers: Sequence) -> "NearestText":
        """Keep training texts and their answers, which may be anything."""
        self.texts_, self.answers_ = list(texts), list(answers)
        if not self.texts_ or len(self.texts_) != len(self.answers_):
            raise ValueError(f"There are {len(self.texts_)} texts and {len(self.answers_)} answers, but each text needs one answer.")
        self.vectorizer_ = build_tfidf("both", char_ngrams=(3, 5)) if self.vectorizer is None else clone(self.vectorizer)
        self._known = self.vectorizer_.fit_transform(self.texts_).tocsr()
        return self

    def predict(self, texts: Sequence[str]) -> list:
        """Return an answer a text; the first of equally near ones."""
        return [self.answers_[index] for index in self.nearest(texts)]

    def nearest(self, texts: Sequence[str]) -> np.ndarray:
        """Return the index of the nearest training text, int64, shape (num_texts,)."""
        best = [np.asarray(block.argmax(axis=1)).ravel() for block in self._similarities(texts)]
        return np.concatenate(best) if best else np.zeros(0, dtype="int64")

    def similarities(self, texts: Sequence[str]) -> np.ndarray:
        """Return the cosine of each text with each training text, shape (num_texts, num_training_texts)."""
        blocks = [block.toarray() for block in self._similarities(texts)]
        return np.concatenate(blocks) if blocks else np.zeros((0, len(self.texts_)))

    def _similarities(self, texts: Sequence[str]):
        texts = list(texts)
        for start in range(0, len(texts), _BLOCK):
            # Sparse: most texts share a word with few others. sklearn.neighbors would fill blocks of a gigabyte.
            yield self.vectorizer_.transform(texts[start : start + _BLOCK]) @ self._known.T
