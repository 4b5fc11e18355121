"""A baseline for questions on a passage: a log-linear model over its spans."""

from collections import Counter
from collections.abc import Callable, Sequence

from slm_helpers.text.spans import SpanFeatures, words_of
from slm_helpers.text.words import Words

import numpy as np
from sklearn.base import BaseEstimator

_DRAWN = 100  # wrong spans of a passage to learn from


class SpanBaseline(BaseEstimator):
    """Answer with the span of a passage that scores highest in a log-linear model of simple features, or not at all.

    The features are those of `slm_helpers.text.spans.SpanFeatures`; where every training question has an answer, none is no choice.

    Args:
        idf: From a lower-case word to its inverse document frequency, scaled to 0-1: near 0 for "the". Learned from the training
            passages unless given.
        max_words: Words of the longest span that is considered.
        seed: Of the draw of wrong spans to learn from.

    Attributes:
        span_weights_: Weights of the features of a span.
        none_weights_: Weights of the features of no answer; None where every training question has one.

    Reference:
        The feature-based model of Rajpurkar et al. (2016), arXiv:1606.05250, without its syntax trees.
    """

    def __init__(self, *, idf: Callable[[str], float] | None = None, max_words: int = 8, seed: int = 42):
        self.idf, self.max_words, self.seed = idf, max_words, seed

    def fit(self, contexts: Sequence[str], questions: Sequence[str], answers: Sequence[str]) -> "SpanBaseline":
        """Learn from passages, questions and answers ("" where the passage holds none)."""
        self.idf_ = None if self.idf else _fit_idf([words_of(context) for context in dict.fromkeys(contexts)])
        features = self._features()
        rng, rows, targets, counts = np.random.default_rng(self.seed), [], [], []
        for context, question, answer in zip(contexts, questions, answers, strict=True):
            words, query = words_of(context), words_of(question)
            first, last = features.spans(words)
            right = np.zeros(len(first), dtype=bool)
            if answer:
                right[:] = [context[words.places[a, 0] : words.places[b, 1]] == answer for a, b in zip(first, last, strict=True)]
            if not len(first) or bool(answer) != right.any():
                continue
            wrong = np.flatnonzero(~right)
            drawn = rng.choice(wrong, min(_DRAWN, len(wrong)), replace=False)
            picked = np.concatenate([np.flatnonzero(right), drawn])
            described = features.describe(words, query)
            spans, none = features.features(described, first[picked], last[picked]), described["none"]
            rows.append(np.block([[spans, np.zeros((len(spans), len(none)))], [np.zeros(spans.shape[1]), none]]))
            targets.append(np.append(right[picked], not answer))
            # The wrong ones that are drawn stand for all, or no answer would look too unlikely beside them.
            counts.append(np.append(np.where(right[picked], 1, len(wrong) / max(len(drawn), 1)), 1))
        if not any(right[:-1].any() for right in targets):
            raise ValueError(f"No answer stands in its passage as one to {self.max_words} whole words, so there is nothing to learn from.")
        size = rows[0].shape[1] - len(described["none"])
        if any(right[-1] for right in targets):
            weights = _fit_choice(rows, targets, counts)
            self.none_weights_ = weights[size:]
        else:
            self.none_weights_ = None
            weights = _fit_choice([row[:-1, :size] for row in rows], [right[:-1] for right in targets], [count[:-1] for count in counts])
        self.span_weights_ = weights[:size]
        return self

    def scores(self, context: str, question: str) -> tuple[np.ndarray, float]:
        """Return the score of each span of a passage, in the order of `spans`, and that of no answer (-inf if there is always one)."""
        return self._features().scores(context, question, self.span_weights_, self.none_weights_)

    def predict(self, contexts: Sequence[str], questions: Sequence[str]) -> list[str]:
        """Return an answer a question, "" for none."""
        answers = []
        for context, question in zip(contexts, questions, strict=True):
            scores, none = self.scores(context, question)
            answers.append("")
            if len(scores) and scores.max() > none:
                words = words_of(context)
                first, last = (part[scores.argmax()] for part in self.spans(words))
                answers[-1] = context[words.places[first, 0] : words.places[last, 1]]
        return answers

    def spans(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """Return first and last word of all spans of up to max_words words within a sentence."""
        return self._features().spans(words)

    def _features(self) -> SpanFeatures:
        return SpanFeatures(self.idf or (lambda form: self.idf_.get(form, 1.0)), self.max_words)


def _fit_idf(passages: list[Words]) -> dict[str, float]:
    """Return the scaled inverse document frequency of each word: 0 if all passages have it, 1 if one has."""
    counts = Counter(form for words in passages for form in {form.lower() for form in words.forms})
    return {form: float(np.log(len(passages) / count) / np.log(max(len(passages), 2))) for form, count in counts.items()}


def _fit_choice(rows: list[np.ndarray], targets: list[np.ndarray], counts: list[np.ndarray], *, l2: float = 10.0) -> np.ndarray:
    """Fit weights of features so that softmax over the candidates of each question finds one of the right ones.

    Args:
        rows: For each question the features of its candidates, shape (num_candidates, num_features).
        targets: For each question which candidates are right.
        counts: For each question how many candidates each one stands for.
        l2: Weight of the squared weights of standardised features against the summed loss.
    """
    from scipy.optimize import minimize

    features, right, offsets = np.concatenate(rows), np.concatenate(targets), np.log(np.concatenate(counts))
    scale = features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, np.inf)  # a feature that never changes gets no weight
    features = features / scale
    starts = np.cumsum([0, *map(len, rows[:-1])])
    group = np.repeat(np.arange(len(rows)), [len(part) for part in rows])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = features @ weights + offsets
        scores -= np.maximum.reduceat(scores, starts)[group]
        powers = np.exp(scores)
        totals, hits = np.add.reduceat(powers, starts), np.add.reduceat(powers * right, starts)
        gradient = features.T @ (powers / totals[group] - powers * right / np.maximum(hits, 1e-300)[group])
        value = np.log(totals / np.maximum(hits, 1e-300)).sum() + l2 / 2 * (weights @ weights)
        return value, gradient + l2 * weights

    return minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x / scale
