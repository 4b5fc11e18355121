"""A linear tagger with Viterbi decoding."""

from collections.abc import Sequence

from slm_helpers.metrics.tagging import legal_tags
from slm_helpers.text.hashing import word_features

import numpy as np


class LinearTagger:
    """Tag each word by a linear support vector machine on features of the word and its neighbours, then take the best legal tags.

    The features are yes or no: the word, its lower case, its beginnings and endings, its shape, and the words and shapes up to
    two places away; they are hashed, so that no vocabulary is kept.
    """

    def __init__(self, *, penalty: float = 5.0, seed: int = 42):
        """Prepare an untrained tagger.

        Args:
            penalty: Of the squared weights against the summed loss (1 / C of scikit-learn).
            seed: Of the solver.
        """
        from sklearn.feature_extraction import FeatureHasher
        from sklearn.svm import LinearSVC

        self.hasher = FeatureHasher(n_features=1 << 20, input_type="string", alternate_sign=False, dtype=np.float32)
        self.classifier = LinearSVC(C=1 / penalty, random_state=seed)

    def fit(self, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> "LinearTagger":
        """Learn from sentences (lists of words) and as many IOB2 tags."""
        kinds = sorted({tag[2:] for row in tags for tag in row if tag != "O"})
        self.labels = ["O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]
        features = self._features(sentences)
        self.met = np.unique(features.indices)  # of all others the weights would be 0, a hundred times as many
        self.classifier.fit(features[:, self.met], [self.labels.index(tag) for row in tags for tag in row])
        return self

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return one tag a word."""
        margins = self.classifier.decision_function(self._features(sentences)[:, self.met])
        if margins.ndim == 1:  # of two classes scikit-learn scores the second only
            margins = np.stack([-margins, margins], axis=1)
        scores = np.full((len(margins), len(self.labels)), -1e3)  # a tag that train lacks
        scores[:, self.classifier.classes_] = margins
        ends = np.cumsum([len(words) for words in sentences])
        return [[self.labels[code] for code in row] for row in legal_tags(np.split(scores, ends[:-1]), self.labels)]

    def _features(self, sentences: Sequence[Sequence[str]]):
        return self.hasher.transform(features for words in sentences for features in word_features(words))
