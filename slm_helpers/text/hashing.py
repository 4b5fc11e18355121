"""A linear model on hashed features of a text or of each of its words, in a form that a Keras network can hold beside its recurrent part.

What a recurrent network misses with few rows (rare names, exact phrases, spellings) is what counting is good at, and the reverse.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from slm_helpers._checks import check_positive
from slm_helpers._numerics import two_choices

import mmh3
import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MAX_NGRAMS = 4096  # of a text that are looked up; a longer text is represented by so many of them
NUM_WORD_FEATURES = 24  # of a word at most, see `word_features`
_MAX_TABLE = 1 << 21  # numbers in a table of scores
_LARGE_CORPUS = 10_000_000  # characters
_MANY_CLASSES = 1000  # of more the solver ends after a few passes: each class has a machine, those that cannot be told apart take all
_LETTERS = (3, 4, 5)  # characters in a run, within a word and its edges
_WORD = re.compile(r"\w+")


def num_buckets_for(num_classes: int, texts: Iterable[str] = ()) -> int:
    """Return into how many buckets n-grams are hashed: as many as leave the table of scores small, of words and of letters alike.

    Args:
        num_classes: Columns of the table but one.
        texts: To learn from; where there are very many, n-grams get more buckets, or too many would share one.
    """
    most = 1 << (19 if sum(map(len, texts)) > _LARGE_CORPUS else 17)
    return min(most, 1 << int(np.log2(_MAX_TABLE / (num_classes + 1))))


def hash_ngrams(texts: Sequence[str], *, num_buckets: int) -> list[np.ndarray]:
    """Return the hashed n-grams of each text: distinct ids in 1..num_buckets, int32, in ascending order.

    The lower half of the buckets is for words and pairs of neighbouring words, the upper for runs of three to five letters. Case
    is ignored. The hash is MurmurHash3, the same on every machine; ids are those of scikit-learn's HashingVectorizer.

    Args:
        texts: Any texts.
        num_buckets: An even number.
    """
    check_positive(num_buckets=num_buckets)
    half, found, known = num_buckets // 2, [], {}
    for text in texts:
        text = text.lower()
        words = _WORD.findall(text)
        low = _buckets({*words, *(f"{a} {b}" for a, b in pairwise(words))}, half)
        high = set()
        for word in set(text.split()):
            if word not in known:
                known[word] = _buckets(_letter_runs(f" {word} "), half)
            high |= known[word]
        ids = np.array(sorted(low) + [bucket + half for bucket in sorted(high)], dtype="int32") + 1
        # Ids are hashes: any regular choice among them is a fair sample of the text.
        found.append(ids if len(ids) <= MAX_NGRAMS else ids[np.linspace(0, len(ids) - 1, MAX_NGRAMS).round().astype("int64")])
    return found


def locate_ngrams(text: str, *, num_buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Say which words of a text the ids of `hash_ngrams` come from.

    Args:
        text: Any text; its words are what stands between spaces (`text.split()`).
        num_buckets: As given to `hash_ngrams`.

    Returns:
        Pairs of an id and a word that it comes from, both int64, shape (num_pairs,): a pair of neighbours, a run of letters that
        occurs twice, or two n-grams in one bucket give an id several words. The ids are those of `hash_ngrams` of any text that has
        no more than MAX_NGRAMS; of a longer one `hash_ngrams` keeps only some.
    """
    check_positive(num_buckets=num_buckets)
    half, forms = num_buckets // 2, text.lower().split()
    found: set[tuple[int, int]] = set()
    words = [(word, position) for position, form in enumerate(forms) for word in _WORD.findall(form)]
    for word, position in words:
        found |= {(bucket + 1, position) for bucket in _buckets([word], half)}
    for (first, position), (second, next_position) in pairwise(words):
        found |= {(bucket + 1, at) for bucket in _buckets([f"{first} {second}"], half) for at in (position, next_position)}
    for position, form in enumerate(forms):
        found |= {(bucket + half + 1, position) for bucket in _buckets(_letter_runs(f" {form} "), half)}
    pairs = np.array(sorted(found), dtype="int64").reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _letter_runs(word: str) -> set[str]:
    """Return the runs of letters of a word with its edges; one that is shorter than a run is a run itself."""
    return {word[start : start + size] for size in _LETTERS for start in range(max(1, len(word) - size + 1))}


def _buckets(features: Iterable[str], num_buckets: int) -> set[int]:
    return {abs(mmh3.hash(feature)) % num_buckets for feature in features}


def word_features(words: Sequence[str]) -> list[list[str]]:
    """Return the names of the features that hold for each word: itself, its case, edges and shape, its neighbours and theirs."""
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


def hash_words(sentences: Sequence[Sequence[str]], *, num_buckets: int) -> list[np.ndarray]:
    """Return the hashed `word_features` of each word: ids in 1..num_buckets, padded with 0; int32, shape (words, NUM_WORD_FEATURES).

    Args:
        sentences: Lists of words, one word at least in each.
        num_buckets: As for `hash_ngrams`. The hash is the same on every machine.
    """
    check_positive(num_buckets=num_buckets)
    found = []
    for words in sentences:
        rows = np.zeros((len(words), NUM_WORD_FEATURES), dtype="int32")
        for row, features in zip(rows, word_features(words), strict=True):
            buckets = sorted(_buckets(features, num_buckets))
            row[: len(buckets)] = np.array(buckets) + 1
        found.append(rows)
    return found


def fit_ngram_table(
    ngrams: Sequence[np.ndarray],
    codes: np.ndarray,
    *,
    num_classes: int,
    num_buckets: int,
    class_weight: str | None = None,
    use_idf: bool = True,
    l2: float = 1.0,
    seed: int = 42,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear support vector machine to TF-IDF of hashed n-grams (each counted once a text, rows of unit length).

    Args:
        ngrams: From `hash_ngrams`, one array a text; or of `hash_words`, one array a word. Id 0 is padding.
        codes: Class of each text or word, from 0, two classes at least; or, where each class is a question of its own, 0 or 1 for each,
            shape (num_rows, num_classes).
        num_classes: Number of classes.
        num_buckets: As given to `hash_ngrams`.
        class_weight: "balanced" gives every class the same weight, however many rows it has.
        use_idf: Weight n-grams by their inverse document frequency; else all alike.
        l2: Weight of the squared weights in the loss (1 / C of scikit-learn).
        seed: Of the solver.

    Returns:
        The table that `slm_helpers.models.layers.HashedLinear` looks up, float32, shape (num_buckets + 1, num_classes + 1), and the bias
        to add to its scores, shape (num_classes,).

    Reference:
        Wang and Manning (2012), "Baselines and Bigrams", for how strong this is; Weinberger et al. (2009), arXiv:0902.2206, hashing.
    """
    from scipy.sparse import csr_matrix

    ids = np.concatenate([np.asarray(row, dtype="int64") for row in ngrams])
    lengths = np.array([len(row) for row in ngrams])
    frequency = np.bincount(ids, minlength=num_buckets + 1)
    idf = np.log((1 + len(ngrams)) / (1 + frequency)) + 1 if use_idf else np.ones(num_buckets + 1)
    idf[0] = 0.0
    rows = np.repeat(np.arange(len(ngrams)), lengths)
    norms = np.sqrt(np.maximum(np.bincount(rows, weights=idf[ids] ** 2, minlength=len(ngrams)), 1e-12))
    features = csr_matrix((idf[ids] / norms[rows], ids, np.cumsum([0, *lengths])), shape=(len(ngrams), num_buckets + 1))
    weights, bias, classes = _fit_machines(features, np.asarray(codes), class_weight=class_weight, C=1 / l2, seed=seed)
    table = np.zeros((num_buckets + 1, num_classes + 1), dtype="float32")
    table[:, classes] = weights.T * idf[:, None]
    table[:, -1] = idf**2
    full_bias = np.full(num_classes, -1.0, dtype="float32")  # a class without a row stays behind all others
    full_bias[classes] = bias
    return table, full_bias


def _fit_machines(
    features: csr_matrix, codes: np.ndarray, *, class_weight: str | None, C: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights (classes, features) and biases of linear machines, one against the others, and the classes that they score."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    many = codes.ndim == 1 and codes.max() >= _MANY_CLASSES
    settings = {"C": C, "class_weight": class_weight, "max_iter": 20 if many else 1000, "random_state": seed}
    if codes.ndim == 2:
        asked = np.flatnonzero((codes.min(axis=0) == 0) & (codes.max(axis=0) == 1))
        fitted = [LinearSVC(**settings).fit(features, codes[:, column]) for column in asked]
        return np.concatenate([svm.coef_ for svm in fitted]), np.concatenate([svm.intercept_ for svm in fitted]), asked
    with warnings.catch_warnings():
        if many:
            warnings.simplefilter("ignore", ConvergenceWarning)
        svm = LinearSVC(**settings).fit(features, codes)
    weights, bias = svm.coef_, svm.intercept_
    if len(weights) == 1:  # of two classes scikit-learn scores the second only
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return weights, bias, svm.classes_


def ngram_scores(table: np.ndarray, ngrams: Sequence[np.ndarray]) -> np.ndarray:
    """Return what `slm_helpers.models.layers.HashedLinear` gives each class, without a bias: shape (num_rows, num_classes).

    Args:
        table: From `fit_ngram_table`.
        ngrams: As given to it; rows may differ in length.
    """
    sums = np.stack([table[ids].sum(axis=0) for ids in ngrams])
    return sums[:, :-1] / np.sqrt(np.maximum(sums[:, -1:], 1e-6))


def fit_ensemble_weights(first: np.ndarray, second: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the weights of two models' logits with which softmax of their sum predicts the targets best; neither is below 0.

    Args:
        first: Logits of one model, shape (num_rows, num_classes), on rows that neither model was trained on.
        second: The same of the other model.
        targets: The class of each row; or 0 or 1 for each class, with the shape of the logits.
    """
    from scipy.optimize import minimize

    if targets.ndim == 2:
        first, second, targets = two_choices(first), two_choices(second), targets.reshape(-1)
    parts = [np.asarray(logits, dtype="float64") - logits.max(axis=1, keepdims=True) for logits in (first, second)]
    rows = np.arange(len(targets))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = weights[0] * parts[0] + weights[1] * parts[1]
        scores -= scores.max(axis=1, keepdims=True)
        probs = np.exp(scores)
        probs /= probs.sum(axis=1, keepdims=True)
        gradient = [float(((probs * part).sum(axis=1) - part[rows, targets]).mean()) for part in parts]
        return float(-np.log(np.maximum(probs[rows, targets], 1e-300)).mean()), np.array(gradient)

    # Within bounds: on few rows that are all right the best weights would be without end.
    fitted = minimize(loss, [0.5, 1.0], jac=True, bounds=[(0.0, 10.0), (0.0, 30.0)], method="L-BFGS-B")
    return float(fitted.x[0]), float(fitted.x[1])


def _shape(word: str) -> str:
    """Return "Xx" for "Bergen", "X.X" for "U.S", "0-x" for "25-year": runs of one kind of sign become one."""
    kinds = ("0" if sign.isdigit() else "X" if sign.isupper() else "x" if sign.isalpha() else sign for sign in word)
    return re.sub(r"(.)\1+", r"\1", "".join(kinds))
