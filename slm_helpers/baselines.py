"""Strong simple baselines: the majority class, TF-IDF with a linear model, an interpolated Kneser-Ney n-gram model, xz.

For questions: the span of a passage that stands nearest to the words of the question, and the most similar question asked before.
"""

import lzma
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slm_helpers.checks import check_choice, check_positive
from slm_helpers.evaluation import legal_tags

import numpy as np

# Words, or single signs: punctuation, and the characters of scripts that write no spaces. Marks belong to the letter before them.
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0dff\u0e00-\u0eff\u200d\ufe0f"
_UNIT = re.compile(rf"[{_CJK}]|(?:[^\W{_CJK}]|[{_MARKS}])+|[^\w\s]")
_ENDING = re.compile(r"(?<=\w{3})(ments?|ions?|ings?|ers?|ed|es|ly|s|e|y)$")
QUESTION_WORDS = ("who", "when", "where", "why", "which", "what", "many", "much", "how")  # how many and how much before how
SMALL_WORDS = (
    "a", "an", "the", "in", "on", "at", "of", "by", "to", "for", "from", "with", "as", "because", "and", "or", "is", "was", "were", "are",
    "that", "which", "who", "it", "its", "his", "her", "their", "into", "than", "when", "so", "but", "had", "has",
)  # fmt: skip
_MAX_WORDS = 8  # in a span that the baseline considers


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


def build_tfidf_classifier(*, kind: str = "svm", max_ngram: int = 2, seed: int = 42):
    """Build TF-IDF over words and word pairs with a linear classifier, as a scikit-learn pipeline (`fit`, `predict`).

    Args:
        kind: "svm" (linear support vector machine) or "logreg" (logistic regression, which also gives probabilities).
        max_ngram: Longest run of words that counts as a feature.
        seed: Of the solver.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    check_choice(("svm", "logreg"), kind=kind)
    check_positive(max_ngram=max_ngram)
    words = TfidfVectorizer(ngram_range=(1, max_ngram), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = LinearSVC(random_state=seed) if kind == "svm" else LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
    return make_pipeline(words, model)


@dataclass(frozen=True)
class Words:
    """The words and signs of a text: where they stand, as written, their stems, and the sentence that each belongs to."""

    places: np.ndarray  # first character and end, shape (num_words, 2)
    forms: list[str]
    stems: list[str]
    sentences: np.ndarray  # from 0, shape (num_words,)


def split_words(text: str) -> Words:
    """Cut a text into words and signs. Stems are rough: the lower-case word without a common English ending."""
    found = list(_UNIT.finditer(text))
    forms = [match.group() for match in found]
    places = np.array([match.span() for match in found], dtype="int64").reshape(-1, 2)
    stems = [_ENDING.sub("", form.lower()) for form in forms]
    sentences, number = [], 0
    for place, form in enumerate(forms):
        sentences.append(number)
        if form in ".!?。？！" and place + 1 < len(forms):
            gap, following = text[places[place, 1] : places[place + 1, 0]], forms[place + 1]
            number += bool(form in "。？！" or (gap and not following[0].islower()) or "\n" in gap)
    return Words(places, forms, stems, np.array(sentences, dtype="int64"))


def overlap_features(passage: Words, question: Words, rarity: Callable[[str], float]) -> np.ndarray:
    """Say of each word of a passage how much it and its surroundings share with a question.

    Args:
        passage: From `split_words`.
        question: From `split_words`.
        rarity: Tells from a lower-case word how much it says, in 0-1: near 0 for "the".

    Returns:
        Numbers in 0-1, shape (num_words, 6): is this word asked for, its stem; how much of the question its sentence covers,
        that compared with the best sentence, how much its sentence and the one before cover; how near words of the question stand.
    """
    asked_forms = {form.lower() for form in question.forms}
    asked: dict[str, float] = {}
    for form, stem in zip(question.forms, question.stems, strict=True):
        if form[0].isalnum() and form.lower() not in QUESTION_WORDS:
            asked[stem] = max(asked.get(stem, 0.0), rarity(form.lower()))
    total = max(sum(asked.values()), 1e-9)
    shared = np.array([asked.get(stem, 0.0) for stem in passage.stems])
    exact = shared * [form.lower() in asked_forms for form in passage.forms]
    num_sentences = int(passage.sentences[-1]) + 1 if len(passage.forms) else 0
    found: list[set[str]] = [set() for _ in range(num_sentences)]
    for stem, sentence in zip(passage.stems, passage.sentences, strict=True):
        if stem in asked:
            found[sentence].add(stem)
    covered = np.array([sum(asked[stem] for stem in stems) / total for stems in found])
    pairs = np.array([sum(asked[s] for s in found[i] | found[max(i - 1, 0)]) / total for i in range(num_sentences)])
    best = covered / max(covered.max(initial=0.0), 1e-9)
    by_sentence = np.stack([covered, best, pairs], axis=1) if num_sentences else np.zeros((0, 3))
    near = _spread(shared) + _spread(shared[::-1])[::-1]
    return np.column_stack([exact, shared, by_sentence[passage.sentences], 1 - np.exp(-near)])


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
        self.classifier.fit(self._features(sentences), [self.labels.index(tag) for row in tags for tag in row])
        return self

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return one tag a word."""
        margins = self.classifier.decision_function(self._features(sentences))
        if margins.ndim == 1:  # of two classes scikit-learn scores the second only
            margins = np.stack([-margins, margins], axis=1)
        scores = np.full((len(margins), len(self.labels)), -1e3)  # a tag that train lacks
        scores[:, self.classifier.classes_] = margins
        ends = np.cumsum([len(words) for words in sentences])
        return [[self.labels[code] for code in row] for row in legal_tags(np.split(scores, ends[:-1]), self.labels)]

    def _features(self, sentences: Sequence[Sequence[str]]):
        return self.hasher.transform(features for words in sentences for features in _word_features(words))


class KneserNeyModel:
    """Interpolated Kneser-Ney n-gram model over token ids, counted with sorted arrays instead of dictionaries.

    The probability of a token after a context interpolates from the longest context down to the uniform distribution. Counts
    are raw at the highest order and continuation counts (in how many different contexts?) below; one discount per order,
    n1 / (n1 + 2 n2), is taken from each count and given to the shorter context.

    Reference:
        Ney, Essen and Kneser (1994); Chen and Goodman (1999), "An empirical study of smoothing techniques for language modeling".
    """

    def __init__(self, order: int, vocab_size: int):
        """Prepare an empty model.

        Args:
            order: Tokens in the longest n-gram, context and predicted token together.
            vocab_size: Number of distinct token ids.
        """
        check_positive(order=order, vocab_size=vocab_size)
        self.order = order
        self.vocab_size = vocab_size

    def fit(self, token_ids: np.ndarray) -> "KneserNeyModel":
        """Count the n-grams of one stream of token ids, shape (num_tokens,)."""
        token_ids = np.asarray(token_ids)
        if token_ids.ndim != 1 or len(token_ids) <= self.order:
            raise ValueError(f"token_ids has shape {token_ids.shape}, but a flat array of more than {self.order} tokens is needed.")
        if token_ids.min() < 0 or token_ids.max() >= self.vocab_size:
            raise ValueError(f"token ids lie in {token_ids.min()}..{token_ids.max()}, but vocab_size is {self.vocab_size}.")
        hashes = self._hashes(token_ids)
        self._tables: list[dict[str, np.ndarray]] = []  # index k holds the n-grams of k + 1 tokens
        for k in range(1, self.order + 1):
            grams, where, counts = np.unique(hashes[k][k - 1 :], return_index=True, return_counts=True)
            if k < self.order:
                # How many different tokens stand before this n-gram: count it once per longer n-gram.
                _, first = np.unique(hashes[k + 1][k:], return_index=True)
                counts = _count_in(grams, hashes[k][k:][first])
            context = hashes[k - 1][k - 2 :][where] if k > 1 else np.zeros(len(grams), dtype="uint64")
            self._tables.append(self._table(grams, counts, context))
        return self

    def log_probs(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the natural-log probability of each token after the tokens before it, shape (num_tokens,)."""
        token_ids = np.asarray(token_ids)
        hashes = self._hashes(token_ids)
        probability = np.full(len(token_ids), 1.0 / self.vocab_size)
        for k in range(1, self.order + 1):
            grams = hashes[k][k - 1 :]
            context = np.zeros(len(grams), dtype="uint64") if k == 1 else hashes[k - 1][k - 2 : len(token_ids) - 1]
            probability[k - 1 :] = self._interpolate(k, grams, context, probability[k - 1 :])
        return np.log(probability)

    def next_probs(self, context_ids: Sequence[int]) -> np.ndarray:
        """Return the probability of every token after `context_ids` (its last order - 1 tokens count): shape (vocab_size,)."""
        context_ids = np.asarray(context_ids, dtype="int64")[-(self.order - 1) :] if self.order > 1 else np.zeros(0, dtype="int64")
        every = np.arange(self.vocab_size, dtype="uint64")
        probability = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for k in range(1, min(self.order, len(context_ids) + 1) + 1):
            context = np.zeros(1, dtype="uint64")
            for token in context_ids[len(context_ids) - (k - 1) :]:
                context = _mix(context, np.array([token]))
            probability = self._interpolate(k, _mix(context, every), np.broadcast_to(context, every.shape), probability)
        return probability

    def generate(self, prompt_ids: Sequence[int], *, num_tokens: int, seed: int) -> np.ndarray:
        """Sample `num_tokens` token ids that continue `prompt_ids`."""
        rng = np.random.default_rng(seed)
        ids = list(prompt_ids)
        for _ in range(num_tokens):
            probs = self.next_probs(ids)
            ids.append(int(rng.choice(self.vocab_size, p=probs / probs.sum())))
        return np.array(ids[len(prompt_ids) :], dtype="int32")

    def _hashes(self, token_ids: np.ndarray) -> list[np.ndarray]:
        """Return, for each length k, a 64-bit code of the k tokens that end at each position (index 0: the empty run)."""
        codes = [np.zeros(len(token_ids), dtype="uint64")]
        for _ in range(self.order):
            before = np.concatenate([np.zeros(1, dtype="uint64"), codes[-1][:-1]])
            codes.append(_mix(before, token_ids))
        return codes

    def _table(self, grams: np.ndarray, counts: np.ndarray, context: np.ndarray) -> dict[str, np.ndarray]:
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        # With next to no singletons (a tiny vocabulary, much text) the estimate degenerates; keep some mass for the unseen.
        discount = float(np.clip(ones / max(1, ones + 2 * twos), 0.1, 0.95))
        contexts, group = np.unique(context, return_inverse=True)
        totals = np.bincount(group, weights=counts)
        kinds = np.bincount(group, weights=counts > 0)
        return {"grams": grams, "counts": counts, "contexts": contexts, "totals": totals, "kinds": kinds, "discount": np.array(discount)}

    def _interpolate(self, k: int, grams: np.ndarray, context: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        table = self._tables[k - 1]
        discount = float(table["discount"])
        counts = _look_up(table["grams"], table["counts"], grams)
        totals = _look_up(table["contexts"], table["totals"], context)
        kinds = _look_up(table["contexts"], table["kinds"], context)
        seen = totals > 0
        safe = np.where(seen, totals, 1.0)
        mixed = (np.maximum(counts - discount, 0.0) + discount * kinds * shorter) / safe
        return np.where(seen, mixed, shorter)  # an unseen context says nothing: keep the shorter one's word


def xz_bits_per_byte(text: str, *, primer: str = "") -> float:
    """Return the bits per byte that xz (LZMA) needs for `text` when it has read `primer` before.

    The cost of `text` is the size of both together minus the size of the primer alone. The dictionary is 64 MB.
    """
    if not text:
        raise ValueError("The text is empty: there is nothing to compress.")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]

    def size(data: str) -> int:
        return len(lzma.compress(data.encode(), format=lzma.FORMAT_RAW, filters=filters))

    return 8 * (size(primer + text) - (size(primer) if primer else 0)) / len(text.encode())


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


def _spread(values: np.ndarray, *, reach: float = 5.0) -> np.ndarray:
    """Return at each place what stood before it, less the further back it stood."""
    spread, carried = np.zeros(len(values)), 0.0
    for place, value in enumerate(values):
        spread[place] = carried
        carried = (carried + value) * np.exp(-1 / reach)
    return spread


def _word_features(words: Sequence[str]) -> list[list[str]]:
    """Return the names of the features that hold for each word."""
    lower = ["", "", *(word.lower() for word in words), "", ""]
    shapes = ["", "", *(_shape(word) for word in words), "", ""]
    found = []
    for i, word in enumerate(words, 2):
        low = lower[i]
        names = ["always", f"word {word}", f"begins {i == 2} {shapes[i]}", f"pair {lower[i - 1]} {low}", f"pair2 {low} {lower[i + 1]}"]
        names += [f"low {d} {lower[i + d]}" for d in (-2, -1, 0, 1, 2)] + [f"shape {d} {shapes[i + d]}" for d in (-2, -1, 0, 1, 2)]
        names += [f"shapes {shapes[i - 1]} {shapes[i]} {shapes[i + 1]}"]
        names += [f"start {low[:n]}" for n in (1, 2, 3, 4)] + [f"end {low[-n:]}" for n in (1, 2, 3, 4)]
        found.append(names)
    return found


def _shape(word: str) -> str:
    """Return "Xx" for "Bergen", "X.X" for "U.S", "0-x" for "25-year": runs of one kind of sign become one."""
    kinds = ("0" if sign.isdigit() else "X" if sign.isupper() else "x" if sign.isalpha() else sign for sign in word)
    return re.sub(r"(.)\1+", r"\1", "".join(kinds))


def _mix(before: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
    """Extend 64-bit codes by one token each (a multiply-and-shift hash; collisions are about one in 10^19 pairs)."""
    with np.errstate(over="ignore"):
        mixed = (before * np.uint64(0x9E3779B97F4A7C15)) ^ (token_ids.astype("uint64") + np.uint64(1)) * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        return mixed ^ (mixed >> np.uint64(32))


def _count_in(sorted_keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    places = np.searchsorted(sorted_keys, values)
    return np.bincount(places, minlength=len(sorted_keys))


def _look_up(sorted_keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, 0 where it is not among the keys."""
    places = np.minimum(np.searchsorted(sorted_keys, wanted), len(sorted_keys) - 1)
    return np.where(sorted_keys[places] == wanted, values[places], 0).astype("float64")
