"""A baseline for questions on a passage: a log-linear model over its spans."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from slm_helpers.text.words import FUNCTION_WORDS, QUESTION_WORDS, Words, overlap_features, split_words

import numpy as np
from sklearn.base import BaseEstimator

_BLOCK = 4096  # spans whose features are computed together
_DRAWN = 100  # wrong spans of a passage to learn from


class SpanBaseline(BaseEstimator):
    """Answer with the span of a passage that scores highest in a log-linear model of simple features, or not at all.

    The features of a span of a few words within a sentence: how many of the question's words, weighted by their idf, its
    sentence holds and how near they stand; its length, digits, capitals and borders; the word before it; and these together with
    the kind of question. Where some training questions have no answer, none is one more choice, with features of its own: how
    much of the question the best sentence covers, and which rare words of it stand nowhere in the passage.

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
        self.idf_ = None if self.idf else _fit_idf([_words(context) for context in dict.fromkeys(contexts)])
        rng, rows, targets, counts = np.random.default_rng(self.seed), [], [], []
        for context, question, answer in zip(contexts, questions, answers, strict=True):
            words, query = _words(context), _words(question)
            first, last = self.spans(words)
            right = np.zeros(len(first), dtype=bool)
            if answer:
                right[:] = [context[words.places[a, 0] : words.places[b, 1]] == answer for a, b in zip(first, last, strict=True)]
            if not len(first) or bool(answer) != right.any():
                continue
            wrong = np.flatnonzero(~right)
            drawn = rng.choice(wrong, min(_DRAWN, len(wrong)), replace=False)
            picked = np.concatenate([np.flatnonzero(right), drawn])
            described = self._describe(words, query)
            spans, none = self._features(described, first[picked], last[picked]), described["none"]
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
        words, query = _words(context), _words(question)
        first, last = self.spans(words)
        if not len(first):
            return np.zeros(0), 0.0
        described = self._describe(words, query)
        parts = [slice(start, start + _BLOCK) for start in range(0, len(first), _BLOCK)]
        found = [self._features(described, first[part], last[part]) @ self.span_weights_ for part in parts]
        none = -np.inf if self.none_weights_ is None else float(described["none"] @ self.none_weights_)
        return np.concatenate(found), none

    def predict(self, contexts: Sequence[str], questions: Sequence[str]) -> list[str]:
        """Return an answer a question, "" for none."""
        answers = []
        for context, question in zip(contexts, questions, strict=True):
            scores, none = self.scores(context, question)
            answers.append("")
            if len(scores) and scores.max() > none:
                words = _words(context)
                first, last = (part[scores.argmax()] for part in self.spans(words))
                answers[-1] = context[words.places[first, 0] : words.places[last, 1]]
        return answers

    def spans(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """Return first and last word of all spans of up to max_words words within a sentence."""
        first, more = (part.ravel() for part in np.indices((len(words.forms), self.max_words)))
        kept = first + more < len(words.forms)
        first, last = first[kept], (first + more)[kept]
        kept = words.sentences[first] == words.sentences[last]
        return first[kept], last[kept]

    def _describe(self, words: Words, query: Words) -> dict[str, np.ndarray]:
        """Return what the features of spans are made of, and those of the choice that there is no answer."""
        idf = self.idf or (lambda form: self.idf_.get(form, 1.0))
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

    def _features(self, described: dict[str, np.ndarray], first: np.ndarray, last: np.ndarray) -> np.ndarray:
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
def _words(text: str) -> Words:
    return split_words(text)


def _fit_idf(passages: list[Words]) -> dict[str, float]:
    """Return the scaled inverse document frequency of each word: 0 if all passages have it, 1 if one has."""
    counts = Counter(form for words in passages for form in {form.lower() for form in words.forms})
    return {form: float(np.log(len(passages) / count) / np.log(max(len(passages), 2))) for form, count in counts.items()}


def _question_kind(query: Words) -> int:
    """Return the place of a question's word among QUESTION_WORDS, or their number if it has none."""
    forms = {form.lower() for form in query.forms}
    return next((i for i, word in enumerate(QUESTION_WORDS) if word in forms), len(QUESTION_WORDS))


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
