"""Topics of a collection, a map of it, and what the neighbours of a text say of its label: all from TF-IDF.

Reference:
    Lee and Seung (1999), "Learning the Parts of Objects by Non-negative Matrix Factorization".
    Deerwester et al. (1990), "Indexing by Latent Semantic Analysis": TF-IDF and a truncated SVD.
    van der Maaten and Hinton (2008), "Visualizing Data using t-SNE".
    Röder, Both and Hinneburg (2015), "Exploring the Space of Topic Coherence Measures": NPMI of the top words.
"""

from dataclasses import dataclass

from slm_helpers.analysis.word_table import WordTable, is_shown
from slm_helpers.text.languages import FUNCTION_WORDS

import numpy as np
import pandas as pd

MOST_WORDS = 20_000  # features
DIMENSIONS = 100  # of the truncated SVD
NEIGHBOURS = 10
TRUSTED = 0.2  # least kappa of labels and neighbours
MAP_TEXTS = 2000  # on the map
_TOP = 8  # words that name a topic
_WARM = 10.0  # fewer texts than this a topic are no topic


def tfidf_matrix(table: WordTable, *, min_texts: int = 2, content_only: bool = False):
    """Return TF-IDF vectors of unit length, sparse, shape (num_texts, num_words), and the words of its columns.

    Args:
        table: Words.
        min_texts: A word of fewer texts is no feature; of more than MOST_WORDS the most frequent are kept.
        content_only: Leave out function words, single letters and numbers, as for topics.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfTransformer

    parts = (np.ones(len(table.ids), "float32"), table.ids.copy(), table.offsets.copy())  # the next line sorts them in place
    counts = csr_matrix(parts, shape=(table.num_texts, len(table.vocabulary)))
    counts.sum_duplicates()
    num_texts = np.bincount(counts.indices, minlength=len(table.vocabulary))
    allowed = num_texts >= min_texts
    if content_only:
        allowed &= num_texts <= 0.5 * table.num_texts
        plain = FUNCTION_WORDS | ENGLISH_STOP_WORDS
        allowed &= np.array([_is_content(word, plain) for word in table.vocabulary], dtype=bool) if table.vocabulary else False
    columns = np.flatnonzero(allowed)
    columns = np.sort(columns[np.argsort(-num_texts[columns], kind="stable")[:MOST_WORDS]])
    words = np.array([table.vocabulary[column] for column in columns], dtype=object)
    if not len(columns):
        return csr_matrix((table.num_texts, 0), dtype="float32"), words
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, columns]).astype("float32"), words


def _is_content(word: str, plain: frozenset[str]) -> bool:
    return word not in plain and not word.isdigit() and (len(word) > 2 or not word.isascii()) and is_shown(word)


@dataclass(frozen=True)
class Topics:
    """What the texts are about.

    Attributes:
        table: Columns topic (from 1), words, texts, coherence (NPMI of the words, -1 to 1; above 0: they stand together more than by
            chance), the most texts first.
        topic: Of each text, from 1; 0 for a text without any of the words.
        typical: {topic: positions of the texts that are most of it}.
    """

    table: pd.DataFrame
    topic: np.ndarray
    typical: dict[int, np.ndarray]


def find_topics(matrix, words: np.ndarray, *, num_topics: int | None = None, seed: int = 42) -> Topics:
    """Factorise TF-IDF into topics (NMF); every text counts to its strongest one.

    Args:
        matrix: From `tfidf_matrix`, with content words only.
        words: Of its columns.
        num_topics: 2 to 12 by the number of texts unless given.
        seed: Of the start.
    """
    import warnings

    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    num = matrix.shape[0]
    if num_topics is None:
        num_topics = int(np.clip(num / 100, 2, 12))
    num_topics = min(num_topics, matrix.shape[1] - 1, int(num / _WARM))
    columns = ["topic", "words", "texts", "coherence"]
    if num_topics < 2:
        return Topics(pd.DataFrame(columns=columns), np.zeros(num, "int64"), {})
    model = NMF(num_topics, init="nndsvda", max_iter=150, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # more passes move no word among the first
        weights = model.fit_transform(matrix) * np.linalg.norm(model.components_, axis=1)
    strongest = np.where(weights.max(axis=1) > 0, weights.argmax(axis=1), -1)
    present = np.asarray(matrix.astype(bool).astype("float32").sum(axis=0)).ravel() / num
    rows, typical = [], {}
    counts = np.bincount(strongest[strongest >= 0], minlength=num_topics)
    order = [topic for topic in np.argsort(-counts, kind="stable") if counts[topic]]
    rank = np.zeros(num_topics + 1, dtype="int64")  # the last is for texts without a topic
    for place, topic in enumerate(order, 1):
        rank[topic] = place
        top = np.argsort(-model.components_[topic], kind="stable")[:_TOP]
        top = top[model.components_[topic, top] > 0.05 * model.components_[topic, top[0]]]
        coherence = _coherence(matrix[:, top].astype(bool).toarray(), present[top])
        rows.append({"topic": place, "words": ", ".join(words[top]), "texts": int(counts[topic]), "coherence": coherence})
        own = np.flatnonzero(strongest == topic)
        typical[place] = own[np.argsort(-weights[own, topic], kind="stable")[:5]]
    return Topics(pd.DataFrame(rows, columns=columns), rank[strongest], typical)


def _coherence(present: np.ndarray, share: np.ndarray) -> float:
    """Return the mean normalised pointwise mutual information of the pairs of some words: present, shape (num_texts, num_words)."""
    joint = present.T.astype("float64") @ present.astype("float64") / len(present)
    values = []
    for a in range(len(share)):
        for b in range(a):
            both = joint[a, b]
            values.append(np.log(both / (share[a] * share[b])) / -np.log(both) if 0 < both < 1 else -1.0 if both == 0 else 1.0)
    return float(np.mean(values)) if values else 0.0


def reduce_dimensions(matrix, *, seed: int = 42) -> np.ndarray:
    """Return TF-IDF vectors in at most DIMENSIONS dimensions (truncated SVD), of unit length: float32."""
    from sklearn.decomposition import TruncatedSVD

    size = min(DIMENSIONS, matrix.shape[1] - 1, matrix.shape[0] - 1)
    if size < 2 or matrix.nnz == 0:
        return np.zeros((matrix.shape[0], 2), dtype="float32")
    with np.errstate(invalid="ignore"):  # the explained share of texts that are all alike is 0 / 0
        vectors = TruncatedSVD(size, n_iter=4, random_state=seed).fit_transform(matrix)
    return unit_length(vectors)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Return vectors divided by their lengths; zero stays zero."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype("float32")


def draw_map(vectors: np.ndarray, *, seed: int = 42) -> tuple[np.ndarray, str, float]:
    """Return places on a plane where neighbours stay neighbours, shape (num_texts, 2); by which method; and its trustworthiness.

    Trustworthiness is 1 if the neighbours on the map are neighbours in all dimensions, about 0.5 for random places (Venna and Kaski 2001).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness
    from threadpoolctl import threadpool_limits

    num = len(vectors)
    if num < 5 or not vectors.any():
        return np.zeros((num, 2)), "none", float("nan")
    if num < 50:
        method, places = "PCA", PCA(2, random_state=seed).fit_transform(vectors)
    else:
        # In one thread: sums of several threads differ in their last digits from run to run, and t-SNE makes them grow.
        with threadpool_limits(1):
            tsne = TSNE(2, perplexity=min(30.0, num / 5), init="pca", max_iter=500, random_state=seed)
            method, places = "t-SNE", tsne.fit_transform(vectors)
    return places, method, float(trustworthiness(vectors, places, n_neighbors=min(NEIGHBOURS, num // 2 - 1)))


def nearest(vectors: np.ndarray, *, num: int = NEIGHBOURS, chunk: int = 1024) -> np.ndarray:
    """Return the most similar other vectors (cosine) of each: int64, shape (num_texts, num), in no order."""
    num = min(num, len(vectors) - 1)
    found = np.empty((len(vectors), num), dtype="int64")
    for start in range(0, len(vectors), chunk):
        likeness = vectors[start : start + chunk] @ vectors.T
        likeness[np.arange(len(likeness)), np.arange(start, start + len(likeness))] = -np.inf
        found[start : start + chunk] = np.argpartition(-likeness, num - 1, axis=1)[:, :num]
    return found


@dataclass(frozen=True)
class Contradictions:
    """Labels that the neighbours of a text do not have.

    Attributes:
        agreement: Mean share of neighbours with the same label.
        chance: What it would be if labels were dealt at random.
        kappa: How far agreement is above chance, 1 at most. Below TRUSTED the neighbours know too little of the labels, and a contradiction
            says nothing: the table is not worth a look.
        table: Columns position, label, suggested, own (share of neighbours with the label), others (with the suggested), the most
            contradicted first.
    """

    agreement: float
    chance: float
    table: pd.DataFrame

    @property
    def kappa(self) -> float:
        """Agreement above chance, as a share of what is possible (Cohen 1960)."""
        return (self.agreement - self.chance) / max(1 - self.chance, 1e-9)


def contradicted_labels(vectors: np.ndarray, labels: np.ndarray, *, most_own: float = 0.1, least_other: float = 0.6) -> Contradictions:
    """Find labels that at most a tenth of the nearest texts share, while six tenths agree on another one.

    Args:
        vectors: Of unit length.
        labels: Strings, one a text.
        most_own: Largest share of neighbours with the text's own label.
        least_other: Smallest share with the suggested one.
    """
    codes, names = pd.factorize(labels, sort=True)
    neighbours = codes[nearest(vectors)]
    own = (neighbours == codes[:, None]).mean(axis=1)
    share = np.bincount(codes) / len(codes)
    ordered = np.sort(neighbours, axis=1)
    best, most = ordered[:, 0].copy(), np.zeros(len(codes))
    for column in range(ordered.shape[1]):
        count = (ordered == ordered[:, [column]]).mean(axis=1)
        best, most = np.where(count > most, ordered[:, column], best), np.maximum(count, most)
    doubtful = np.flatnonzero((own <= most_own) & (most >= least_other) & (best != codes))
    table = pd.DataFrame(
        {
            "position": doubtful,
            "label": labels[doubtful],
            "suggested": names[best[doubtful]],
            "own": own[doubtful],
            "others": most[doubtful],
        }
    )
    table = table.sort_values(["others", "own", "position"], ascending=[False, True, True], kind="stable", ignore_index=True)
    return Contradictions(float(own.mean()), float((share**2).sum()), table)
