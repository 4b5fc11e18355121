"""TF-IDF with a linear classifier. The majority class is scikit-learn's `DummyClassifier`."""

from collections import Counter
from collections.abc import Sequence

from slm_helpers._checks import check_choice
from slm_helpers.metrics.multilabel import choose_thresholds, label_matrix, micro_f1, row_counts
from slm_helpers.text.tfidf import MANY_ROWS_TIMES_CLASSES, build_tfidf

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.metaestimators import available_if

TRIED_C = {"svm": (0.1, 0.3, 1.0, 3.0), "logreg": (1.0, 3.0, 10.0, 30.0)}
_USUAL_C = {"svm": 1.0, "logreg": 10.0}


class TfidfClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier on TF-IDF features of texts: what a network has to beat.

    Args:
        kind: "svm" (linear support vector machine) or "logreg" (logistic regression, which also gives probabilities).
        analyzer: "both" (words, word pairs and character n-grams of 2 to 5), or "word" or "char" alone.
        C: Inverse strength of the regularisation. None: of TRIED_C the one with the highest accuracy on validation data, 1 (svm) or
            10 (logreg) without such data.
        class_weight: "balanced" lets every class count alike, however many rows it has.
        seed: Of the solver.

    Attributes:
        classes_: The labels, sorted.
        C_: The value that was used.
        pipeline_: The fitted vectorizer and classifier.

    Example:
        >>> TfidfClassifier().fit(["so good", "very bad"], ["pos", "neg"]).predict(["good"]).tolist()
        ['pos']

    Reference:
        Wang and Manning (2012), "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification".
    """

    def __init__(
        self, *, kind: str = "svm", analyzer: str = "both", C: float | None = None, class_weight: str | None = None, seed: int = 42
    ):
        self.kind, self.analyzer, self.C, self.class_weight, self.seed = kind, analyzer, C, class_weight, seed

    def fit(
        self, texts: Sequence[str], labels: Sequence, *, validation_data: tuple[Sequence[str], Sequence] | None = None
    ) -> "TfidfClassifier":
        """Learn from texts and labels; `validation_data`, texts and labels too, choose C unless it is given."""
        check_choice(TRIED_C, kind=self.kind)
        vectorizer = build_tfidf(self.analyzer)
        features, labels = vectorizer.fit_transform(list(texts)), np.asarray(labels)
        if self.C is None and validation_data is not None:
            valid, valid_labels = vectorizer.transform(list(validation_data[0])), np.asarray(validation_data[1])
            tried = [self._classifier(C).fit(features, labels) for C in TRIED_C[self.kind]]
            best = max(tried, key=lambda classifier: classifier.score(valid, valid_labels))  # of equals the most regularised
        else:
            best = self._classifier(_USUAL_C[self.kind] if self.C is None else self.C).fit(features, labels)
        self.pipeline_ = make_pipeline(vectorizer, best)
        self.C_, self.classes_ = best.C, best.classes_
        return self

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Return one label a text."""
        return self.pipeline_.predict(list(texts)) if len(texts) else self.classes_[:0]

    def decision_function(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of scikit-learn's classifier: shape (num_texts, num_classes), or (num_texts,) for two classes."""
        columns = len(self.classes_) if len(self.classes_) > 2 else 0
        return self.pipeline_.decision_function(list(texts)) if len(texts) else np.zeros((0, columns) if columns else 0)

    @available_if(lambda self: self.kind == "logreg")
    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of each class, shape (num_texts, num_classes); of "logreg" only."""
        return self.pipeline_.predict_proba(list(texts)) if len(texts) else np.zeros((0, len(self.classes_)))

    def _classifier(self, C: float):
        shared = {"C": C, "class_weight": self.class_weight, "random_state": self.seed}
        return LinearSVC(**shared) if self.kind == "svm" else LogisticRegression(max_iter=1000, **shared)


class MostFrequentLabel(BaseEstimator):
    """The label that most texts of train have, for every text."""

    def fit(self, texts: Sequence[str], labels: Sequence[str], *, validation_data: object = None) -> "MostFrequentLabel":
        """Count labels, joined by ", "; nothing else is looked at."""
        counts = Counter(name for row in labels for name in row.split(", ") if name)
        self.label_ = min(counts, key=lambda name: (-counts[name], name))
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Return that label for each text."""
        return [self.label_] * len(texts)


class TfidfMultiLabel(BaseEstimator):
    """Linear machines on TF-IDF of words and characters, one for each label of texts that have several.

    Args:
        C: Inverse strength of the regularisation; None: of TRIED_C the one with the highest micro F1 on validation data; without such
            data, or with more than 300,000 rows times labels, 0.3.
        seed: Of the solver.

    Attributes:
        names_: The labels, sorted.
        thresholds_: From which score on each is given: chosen on validation data, else 0.
    """

    def __init__(self, *, C: float | None = None, seed: int = 42):
        self.C, self.seed = C, seed

    def fit(
        self, texts: Sequence[str], labels: Sequence[str], *, validation_data: tuple[Sequence[str], Sequence[str]] | None = None
    ) -> "TfidfMultiLabel":
        """Learn from texts and their labels, joined by ", "; `validation_data`, the same, choose C and thresholds."""
        self.names_ = sorted({name for row in labels for name in row.split(", ")} - {""})
        vectorizer, matrix = build_tfidf("both"), label_matrix(labels, self.names_)
        features = vectorizer.fit_transform(list(texts))
        few = validation_data is not None and matrix.size <= MANY_ROWS_TIMES_CLASSES
        tried = TRIED_C["svm"] if self.C is None and few else [self.C or 0.3]
        best = -1.0
        for C in tried:
            machines = OneVsRestClassifier(LinearSVC(C=C, random_state=self.seed)).fit(features, matrix)
            thresholds, f1 = np.zeros(len(self.names_)), 0.0
            if validation_data is not None:
                scores = _scores(machines, vectorizer.transform(list(validation_data[0])))
                gold = label_matrix(validation_data[1], self.names_)
                thresholds = choose_thresholds(scores, gold)
                f1 = micro_f1(row_counts(gold, (scores > thresholds).astype("int8")).sum(axis=0))
            if f1 > best:
                best, self.C_, self.thresholds_, self.pipeline_ = f1, C, thresholds, (vectorizer, machines)
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Return the labels of each text, joined by ", "."""
        vectorizer, machines = self.pipeline_
        found = _scores(machines, vectorizer.transform(list(texts))) > self.thresholds_ if len(texts) else []
        return [", ".join(np.array(self.names_, dtype=object)[row]) for row in found]


def _scores(machines: OneVsRestClassifier, features) -> np.ndarray:
    """Return the score of each label, shape (num_rows, num_labels); one that stands at every row or at none has a constant one."""
    return np.column_stack(
        [
            one.decision_function(features) if hasattr(one, "coef_") else np.full(features.shape[0], float(one.predict(features[:1])[0]))
            for one in machines.estimators_
        ]
    )
