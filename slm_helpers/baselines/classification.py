"""Strong simple baselines: the majority class, TF-IDF with a linear model, a linear tagger, an interpolated Kneser-Ney n-gram model, xz."""

import lzma
from collections.abc import Sequence

from slm_helpers._checks import check_choice, check_positive
from slm_helpers.metrics.classification import legal_tags
from slm_helpers.text.hashing import word_features

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


class LinearCommander:
    """Read commands by two linear models: `build_tfidf_classifier` for the intent, `LinearTagger` for the slots."""

    def __init__(self, *, seed: int = 42):
        """Prepare untrained models; `seed` is of their solvers."""
        self.classifier, self.tagger = build_tfidf_classifier(seed=seed), LinearTagger(seed=seed)

    def fit(self, commands: Sequence[str], frames: Sequence[tuple[str, str]]) -> "LinearCommander":
        """Learn from commands and as many pairs of an intent and tags; words and tags are joined by single spaces."""
        self.classifier.fit(commands, [intent for intent, _ in frames])
        self.tagger.fit([text.split(" ") for text in commands], [tags.split(" ") for _, tags in frames])
        return self

    def predict(self, commands: Sequence[str]) -> list[tuple[str, str]]:
        """Return a pair of an intent and tags for each command."""
        tags = self.tagger.predict([text.split(" ") for text in commands])
        return [(str(intent), " ".join(row)) for intent, row in zip(self.classifier.predict(commands), tags, strict=True)]


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
            self._tables.append(self._table(grams, counts, context, token_ids[k - 1 :][where]))
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
            context = _code_of(context_ids[len(context_ids) - (k - 1) :])
            probability = self._interpolate(k, _mix(context, every), np.broadcast_to(context, every.shape), probability)
        return probability

    def generate(self, prompt_ids: Sequence[int], *, num_tokens: int, seed: int) -> np.ndarray:
        """Sample `num_tokens` token ids that continue `prompt_ids`."""
        rng = np.random.default_rng(seed)
        ids = list(prompt_ids)
        for _ in range(num_tokens):
            ids.append(self._draw(ids, rng))
        return np.array(ids[len(prompt_ids) :], dtype="int32")

    def _draw(self, context_ids: Sequence[int], rng: np.random.Generator) -> int:
        """Draw a token as `next_probs` has it, but without computing them all: go down the orders until one of them gives it.

        What an order has left after its discounts is its own share of the probability; the rest is the shorter context's.
        """
        for k in range(min(self.order, len(context_ids) + 1), 0, -1):
            table = self._tables[k - 1]
            context = _code_of(context_ids[len(context_ids) - (k - 1) :])[0]
            place = int(np.searchsorted(table["contexts"], context))
            if place == len(table["contexts"]) or table["contexts"][place] != context or not table["totals"][place]:
                continue  # never seen
            grams = table["by_context"][table["starts"][place] : table["starts"][place + 1]]
            sums = np.cumsum(np.maximum(table["counts"][grams] - table["discount"], 0.0))
            drawn = rng.random() * table["totals"][place]
            if drawn < sums[-1]:
                return int(table["tokens"][grams[np.searchsorted(sums, drawn, side="right")]])
        return int(rng.integers(self.vocab_size))

    def _hashes(self, token_ids: np.ndarray) -> list[np.ndarray]:
        """Return, for each length k, a 64-bit code of the k tokens that end at each position (index 0: the empty run)."""
        codes = [np.zeros(len(token_ids), dtype="uint64")]
        for _ in range(self.order):
            before = np.concatenate([np.zeros(1, dtype="uint64"), codes[-1][:-1]])
            codes.append(_mix(before, token_ids))
        return codes

    def _table(self, grams: np.ndarray, counts: np.ndarray, context: np.ndarray, tokens: np.ndarray) -> dict[str, np.ndarray]:
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        # With next to no singletons (a tiny vocabulary, much text) the estimate degenerates; keep some mass for the unseen.
        discount = float(np.clip(ones / max(1, ones + 2 * twos), 0.1, 0.95))
        contexts, group = np.unique(context, return_inverse=True)
        return {
            "grams": grams,
            "counts": counts,
            "contexts": contexts,
            "totals": np.bincount(group, weights=counts),
            "kinds": np.bincount(group, weights=counts > 0),
            "discount": np.array(discount),
            "tokens": tokens.astype("int32"),  # the last one of each gram
            "by_context": np.argsort(group, kind="stable").astype("int32"),  # grams of one context stand side by side
            "starts": np.concatenate([[0], np.cumsum(np.bincount(group))]),
        }

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


def _mix(before: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
    """Extend 64-bit codes by one token each (a multiply-and-shift hash; collisions are about one in 10^19 pairs)."""
    with np.errstate(over="ignore"):
        mixed = (before * np.uint64(0x9E3779B97F4A7C15)) ^ (token_ids.astype("uint64") + np.uint64(1)) * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        return mixed ^ (mixed >> np.uint64(32))


def _code_of(token_ids: Sequence[int]) -> np.ndarray:
    """Return the 64-bit code of one run of tokens, shape (1,)."""
    code = np.zeros(1, dtype="uint64")
    for token in token_ids:
        code = _mix(code, np.array([token]))
    return code


def _count_in(sorted_keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    places = np.searchsorted(sorted_keys, values)
    return np.bincount(places, minlength=len(sorted_keys))


def _look_up(sorted_keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, 0 where it is not among the keys."""
    places = np.minimum(np.searchsorted(sorted_keys, wanted), len(sorted_keys) - 1)
    return np.where(sorted_keys[places] == wanted, values[places], 0).astype("float64")
