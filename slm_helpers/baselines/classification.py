"""Strong simple baselines: the majority class, TF-IDF with a linear model, a linear tagger, an interpolated Kneser-Ney n-gram model, xz."""

from collections.abc import Sequence

from slm_helpers._checks import check_choice, check_positive

import numpy as np


class MajorityClassifier:
    """Predict the commonest training label for every text."""

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> "MajorityClassifier":
        """Count the labels; the texts are ignored."""
        names, counts = np.unique(np.asarray(labels), return_counts=True)
        self.label = names[counts.argmax()]
        return self

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Return one label a text."""
        return np.full(len(texts), self.label)


def build_tfidf_classifier(*, kind: str = "svm", max_ngram: int = 2, balanced: bool = False, seed: int = 42):
    """Build TF-IDF over words and word pairs with a linear classifier, as a scikit-learn pipeline (`fit`, `predict`).

    Args:
        kind: "svm" (linear support vector machine) or "logreg" (logistic regression, which also gives probabilities).
        max_ngram: Longest run of words that counts as a feature.
        balanced: Every class counts alike, however many rows it has.
        seed: Of the solver.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    check_choice(("svm", "logreg"), kind=kind)
    check_positive(max_ngram=max_ngram)
    words = TfidfVectorizer(ngram_range=(1, max_ngram), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    shared = {"class_weight": "balanced" if balanced else None, "random_state": seed}
    return make_pipeline(words, LinearSVC(**shared) if kind == "svm" else LogisticRegression(C=10.0, max_iter=1000, **shared))
