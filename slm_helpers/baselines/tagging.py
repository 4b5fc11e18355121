"""A linear tagger with Viterbi decoding."""

from collections.abc import Sequence

from slm_helpers.metrics.tagging import legal_tags
from slm_helpers.text.hashing import word_features

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.feature_extraction import FeatureHasher
from sklearn.svm import LinearSVC

_MISSING = -1e3  # score of a tag that train lacks


class LinearTagger(BaseEstimator):
    """Tag each word by a linear support vector machine on features of the word and its neighbours, then take the best legal tags.

    The features are yes or no: the word, its lower case, its beginnings and endings, its shape, and the words and shapes up to
    two positions away; they are hashed, so that no vocabulary is kept.

    Args:
        C: Inverse strength of the regularisation.
        outside_bias: Taken from the score of "O": above 0 more names are found, rightly and wrongly.
        seed: Of the solver.

    Attributes:
        labels_: The tags that may be predicted, "O" first.
        classifier_: The fitted support vector machine.
    """

    def __init__(self, *, C: float = 0.2, outside_bias: float = 0.0, seed: int = 42):
        self.C, self.outside_bias, self.seed = C, outside_bias, seed

    def fit(self, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> "LinearTagger":
        """Learn from sentences (lists of words) and as many IOB2 tags."""
        types = sorted({tag[2:] for row in tags for tag in row if tag != "O"})
        self.labels_ = ["O", *(f"{mark}-{kind}" for kind in types for mark in "BI")]
        features = _features(sentences)
        self.seen_ = np.unique(features.indices)  # of all others the weights would be 0, a hundred times as many
        codes = {label: code for code, label in enumerate(self.labels_)}
        self.classifier_ = LinearSVC(C=self.C, random_state=self.seed)
        self.classifier_.fit(features[:, self.seen_], [codes[tag] for row in tags for tag in row])
        return self

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return one tag a word."""
        if not any(len(words) for words in sentences):
            return [[] for _ in sentences]
        margins = self.classifier_.decision_function(_features(sentences)[:, self.seen_])
        if margins.ndim == 1:  # of two classes scikit-learn scores the second only
            margins = np.stack([-margins, margins], axis=1)
        scores = np.full((len(margins), len(self.labels_)), _MISSING)
        scores[:, self.classifier_.classes_] = margins
        scores[:, 0] -= self.outside_bias
        ends = np.cumsum([len(words) for words in sentences])
        return [[self.labels_[code] for code in row] for row in legal_tags(np.split(scores, ends[:-1]), self.labels_)]


def _features(sentences: Sequence[Sequence[str]]):
    hasher = FeatureHasher(n_features=1 << 20, input_type="string", alternate_sign=False, dtype=np.float32)
    return hasher.transform(features for words in sentences for features in word_features(words))
