"""Simple baselines for questions: the span of a passage nearest to the question's words, and the most similar question asked before."""

from collections import Counter
from collections.abc import Sequence

from slm_helpers.words import QUESTION_WORDS, SMALL_WORDS, Words, overlap_features, split_words

import numpy as np

_MAX_WORDS = 8  # in a span that the baseline considers


class SpanBaseline:
    """Answer with the span of a passage that a log-linear model of simple features likes best, or not at all.

    The features of a span of up to eight words within a sentence: how many of the question's words, weighted by their rarity
    in the training passages, its sentence holds and how near they stand; its length, digits, capitals and borders; the word before
    it; and these together with the kind of question. Below a score that is best on train it gives no answer.

    Reference:
        The feature-based model of Rajpurkar et al. (2016), arXiv:1606.05250, without its syntax trees.
    """

    def fit(self, contexts: Sequence[str], questions: Sequence[str], answers: Sequence[str], *, seed: int = 42) -> "SpanBaseline":
        """Learn from passages, questions and answers ("" where the passage holds none)."""
        self._passages: dict[str, Words] = {}
        passages = [self._words(context) for context in dict.fromkeys(contexts)]
        counts = Counter(form for words in passages for form in {form.lower() for form in words.forms})
        self._idf = {form: np.log(len(passages) / count) / np.log(max(len(passages), 2)) for form, count in counts.items()}
        rng, rows, targets = np.random.default_rng(seed), [], []
        for context, question, answer in zip(contexts, questions, answers, strict=True):
            spans = self._spans(self._words(context))
            right = np.array([context[a:b] == answer for a, b in spans["places"]], dtype=bool)
            if not right.any():
                continue
            picked = np.union1d(np.flatnonzero(right), rng.choice(len(right), min(300, len(right)), replace=False))
            rows.append(self._features(self._words(context), question, spans)[picked])
            targets.append(right[picked])
        if not rows:
            raise ValueError("No answer stands in its passage as one to eight whole words, so there is nothing to learn from.")
        self._weights = _fit_choice(rows, targets)
        self._threshold = -np.inf
        if any(not answer for answer in answers):
            guesses, scores = self._best(contexts, questions)
            right = np.array([guess == answer for guess, answer in zip(guesses, answers, strict=True)])
            none = np.array([not answer for answer in answers])
            order = np.argsort(scores)
            # Refusing the k lowest gains those without an answer and loses those that were right.
            gains = np.concatenate([[0], np.cumsum(none[order].astype(int) - right[order].astype(int))])
            self._threshold = np.concatenate([[-np.inf], scores[order]])[gains.argmax()]
        return self

    def predict(self, contexts: Sequence[str], questions: Sequence[str]) -> list[str]:
        """Return an answer a question, "" for none."""
        guesses, scores = self._best(contexts, questions)
        return [guess if score > self._threshold else "" for guess, score in zip(guesses, scores, strict=True)]

    def _best(self, contexts: Sequence[str], questions: Sequence[str]) -> tuple[list[str], np.ndarray]:
        guesses, scores = [], []
        for context, question in zip(contexts, questions, strict=True):
            words = self._words(context)
            spans = self._spans(words)
            found = self._features(words, question, spans) @ self._weights if len(words.forms) else np.zeros(0)
            a, b = spans["places"][found.argmax()] if len(found) else (0, 0)
            guesses.append(context[a:b])
            scores.append(found.max(initial=-1e9))
        return guesses, np.array(scores)

    def _words(self, text: str) -> Words:
        if text not in self._passages:
            self._passages[text] = split_words(text)
        return self._passages[text]

    def _spans(self, words: Words) -> dict[str, np.ndarray]:
        """Return all spans of up to _MAX_WORDS words within a sentence: first and last word, and places in the text."""
        first, more = (part.ravel() for part in np.indices((len(words.forms), _MAX_WORDS)))
        last = first + more
        kept = last < len(words.forms)
        first, last = first[kept], last[kept]
        kept = words.sentences[first] == words.sentences[last]
        first, last = first[kept], last[kept]
        return {"first": first, "last": last, "places": np.stack([words.places[first, 0], words.places[last, 1]], axis=1)}

    def _features(self, words: Words, question: str, spans: dict[str, np.ndarray]) -> np.ndarray:
        """Return the features of spans, shape (num_spans, num_features)."""
        asked = split_words(question)
        kind = next((i for i, word in enumerate(QUESTION_WORDS) if word in {form.lower() for form in asked.forms}), len(QUESTION_WORDS))
        first, last = spans["first"], spans["last"]
        overlap = overlap_features(words, asked, lambda form: self._idf.get(form, 1.0))
        lower = [form.lower() for form in words.forms]
        of_word = np.array(
            [
                (self._idf.get(form, 1.0), form[0].isdigit(), not form[0].isalnum(), as_written[0].isupper())
                for form, as_written in zip(lower, words.forms, strict=True)
            ]
        )
        of_word[:, 3] *= np.diff(words.sentences, prepend=-1) == 0  # every sentence begins with a capital
        edge = np.ones((1, of_word.shape[1])) * [0, 0, 1, 0]
        around = np.concatenate([edge, of_word, edge])
        nearby = np.concatenate([[0], overlap[:, 5], [0]])
        length = last - first + 1
        inside = np.concatenate([of_word, overlap[:, :2]], axis=1)
        sums = np.concatenate([np.zeros((1, inside.shape[1])), np.cumsum(inside, axis=0)])
        within = (sums[last + 1] - sums[first]) / length[:, None]
        before = np.array([SMALL_WORDS.index(form) if form in SMALL_WORDS else len(SMALL_WORDS) for form in ["", *lower]])
        plain = np.column_stack(
            [
                overlap[first][:, 2:5], nearby[first], nearby[last + 2], within, length, np.log(length), length == 1,
                around[first], around[first + 1], around[last + 1], around[last + 2],
                np.eye(len(SMALL_WORDS) + 1)[before[first]], np.eye(len(SMALL_WORDS) + 1)[before[first + 1]],
            ]
        )  # fmt: skip
        shape = np.column_stack(
            [np.ones(len(first)), within, np.log(length), around[first + 1], before[first + 1] == SMALL_WORDS.index("because")]
        )
        by_kind = np.zeros((len(first), (len(QUESTION_WORDS) + 1) * shape.shape[1]))
        by_kind[:, kind * shape.shape[1] : (kind + 1) * shape.shape[1]] = shape
        return np.concatenate([plain, by_kind], axis=1)


class NearestQuestion:
    """Answer a question as the most similar training question was answered: cosine of TF-IDF over words, word pairs and letter runs."""

    def fit(self, questions: Sequence[str], answers: Sequence[str]) -> "NearestQuestion":
        """Keep the training questions and their answers."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union

        self._vectors = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True),
        )
        self._questions = self._vectors.fit_transform(questions).tocsr()
        self._answers = list(answers)
        return self

    def predict(self, questions: Sequence[str]) -> list[str]:
        """Return an answer a question."""
        wanted = self._vectors.transform(questions).tocsr()
        # A part at a time: all similarities together would fill the memory.
        places = [np.asarray((wanted[i : i + 256] @ self._questions.T).argmax(axis=1)).ravel() for i in range(0, wanted.shape[0], 256)]
        return [self._answers[place] for place in np.concatenate(places)]


def _fit_choice(rows: list[np.ndarray], targets: list[np.ndarray], *, penalty: float = 3.0) -> np.ndarray:
    """Fit weights of features so that softmax over the candidates of each question finds one of the right ones.

    Args:
        rows: For each question the features of its candidates, shape (num_candidates, num_features).
        targets: For each question which candidates are right.
        penalty: Of the squared weights of standardised features against the summed loss.
    """
    from scipy.optimize import minimize

    features, right = np.concatenate(rows), np.concatenate(targets)
    scale = features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, np.inf)  # a feature that never changes gets no weight
    features = features / scale
    starts = np.cumsum([0, *map(len, rows[:-1])])
    group = np.repeat(np.arange(len(rows)), [len(part) for part in rows])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = features @ weights
        scores -= np.maximum.reduceat(scores, starts)[group]
        powers = np.exp(scores)
        totals, hits = np.add.reduceat(powers, starts), np.add.reduceat(powers * right, starts)
        slope = features.T @ (powers / totals[group] - powers * right / np.maximum(hits, 1e-300)[group])
        value = np.log(totals / np.maximum(hits, 1e-300)).sum() + penalty / 2 * (weights @ weights)
        return value, slope + penalty * weights

    return minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x / scale
