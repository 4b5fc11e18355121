"""A linear model on the words, word pairs and letter runs of a text, in a form that a Keras network can hold beside its recurrent part.

What a recurrent network misses with few rows (rare names, exact phrases, spellings) is what counting is good at, and the reverse.
"""

from collections.abc import Sequence

from slm_helpers.checks import check_positive

import numpy as np

MAX_NGRAMS = 4096  # of a text that are looked up; a longer text is represented by so many of them
_MAX_TABLE = 1 << 21  # numbers in a table of scores
_LETTERS = (3, 5)  # characters in a run, within a word and its edges


def num_buckets_for(num_classes: int) -> int:
    """Return into how many buckets n-grams are hashed: as many as leave the table of scores small, of words and of letters alike."""
    return min(1 << 17, 1 << int(np.log2(_MAX_TABLE / (num_classes + 1))))


def hash_ngrams(texts: Sequence[str], *, num_buckets: int) -> list[np.ndarray]:
    """Return the hashed n-grams of each text: distinct ids in 1..num_buckets, int32, in ascending order.

    The lower half of the buckets is for words and pairs of neighbouring words, the upper for runs of three to five letters. Case
    is ignored. The hash is the same on every machine.

    Args:
        texts: Any texts.
        num_buckets: An even number.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    check_positive(num_buckets=num_buckets)
    half = num_buckets // 2
    options = {"n_features": half, "binary": True, "alternate_sign": False, "norm": None, "dtype": np.float32}
    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options).transform(texts)
    letters = HashingVectorizer(ngram_range=_LETTERS, analyzer="char_wb", **options).transform(texts)
    found = []
    for row in range(len(texts)):
        low = words.indices[words.indptr[row] : words.indptr[row + 1]]
        high = letters.indices[letters.indptr[row] : letters.indptr[row + 1]]
        ids = np.concatenate([np.sort(low) + 1, np.sort(high) + 1 + half]).astype("int32")
        # Ids are hashes: any regular choice among them is a fair sample of the text.
        found.append(ids if len(ids) <= MAX_NGRAMS else ids[np.linspace(0, len(ids) - 1, MAX_NGRAMS).round().astype("int64")])
    return found


def fit_ngram_table(
    ngrams: Sequence[np.ndarray], codes: np.ndarray, *, num_classes: int, num_buckets: int, balanced: bool = False, seed: int = 42
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear support vector machine to TF-IDF of hashed n-grams (each counted once a text, rows of unit length).

    Args:
        ngrams: From `hash_ngrams`, one array a text.
        codes: Class of each text, from 0; two classes at least.
        num_classes: Number of classes.
        num_buckets: As given to `hash_ngrams`.
        balanced: Every class counts alike, however many rows it has.
        seed: Of the solver.

    Returns:
        The table that `slm_helpers.layers.NgramScores` looks up, float32, shape (num_buckets + 1, num_classes + 1), and the bias
        to add to its scores, shape (num_classes,).

    Reference:
        Wang and Manning (2012), "Baselines and Bigrams", for how strong this is; Weinberger et al. (2009), arXiv:0902.2206, hashing.
    """
    from scipy.sparse import csr_matrix
    from sklearn.svm import LinearSVC

    places = np.concatenate([np.asarray(ids, dtype="int64") for ids in ngrams])
    lengths = np.array([len(ids) for ids in ngrams])
    frequency = np.bincount(places, minlength=num_buckets + 1)
    rarity = np.log((1 + len(ngrams)) / (1 + frequency)) + 1
    rarity[0] = 0.0
    rows = np.repeat(np.arange(len(ngrams)), lengths)
    norms = np.sqrt(np.maximum(np.bincount(rows, weights=rarity[places] ** 2, minlength=len(ngrams)), 1e-12))
    features = csr_matrix((rarity[places] / norms[rows], places, np.cumsum([0, *lengths])), shape=(len(ngrams), num_buckets + 1))
    machine = LinearSVC(C=1.0, class_weight="balanced" if balanced else None, random_state=seed).fit(features, codes)
    weights, bias = machine.coef_, machine.intercept_
    if len(weights) == 1:  # of two classes scikit-learn scores the second only
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    table = np.zeros((num_buckets + 1, num_classes + 1), dtype="float32")
    table[:, machine.classes_] = weights.T * rarity[:, None]
    table[:, -1] = rarity**2
    full_bias = np.full(num_classes, -1.0, dtype="float32")  # a class without a row stays behind all others
    full_bias[machine.classes_] = bias
    return table, full_bias


def fit_mixture(first: np.ndarray, second: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return how much of two models' scores to add so that softmax of the sum tells the targets best; neither is less than 0.

    Args:
        first: Scores of each row, shape (num_rows, num_classes), on rows that neither model was trained on.
        second: The same of the other model.
        targets: The right class of each row.
    """
    from scipy.optimize import minimize

    parts = [np.asarray(scores, dtype="float64") - scores.max(axis=1, keepdims=True) for scores in (first, second)]
    rows = np.arange(len(targets))

    def loss(shares: np.ndarray) -> tuple[float, np.ndarray]:
        scores = shares[0] * parts[0] + shares[1] * parts[1]
        scores -= scores.max(axis=1, keepdims=True)
        probs = np.exp(scores)
        probs /= probs.sum(axis=1, keepdims=True)
        slopes = [float(((probs * part).sum(axis=1) - part[rows, targets]).mean()) for part in parts]
        return float(-np.log(np.maximum(probs[rows, targets], 1e-300)).mean()), np.array(slopes)

    # Within bounds: on few rows that are all right the best shares would be without end.
    found = minimize(loss, [0.5, 1.0], jac=True, bounds=[(0.0, 10.0), (0.0, 30.0)], method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])
