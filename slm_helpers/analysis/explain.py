"""Which words of a text count for the class that a classifier gives it.

A classifier of this package adds two scores: those of a recurrent network and those of a linear model on n-grams. What a word does
in the linear part is known exactly; in the network it has to be asked for:

    occlusion              read the text without the word: the class loses so much probability. The default here, in
                           `slm predict --explain` and on the page that `slm export --to html` writes
    integrated_gradients   sum the gradient on the way from a text of blank vectors to the text; adds up to the change of the logits
    gradient_x_input       the gradient at the text times its vectors: one pass, no guarantee

Gradients are those of the *margin*: the logit of the class minus the mean logit of the others (with two classes the log-odds).

Reference:
    Sundararajan et al. (2017), "Axiomatic Attribution for Deep Networks", arXiv:1703.01365; Li et al. (2016), "Understanding Neural
    Networks through Representation Erasure", arXiv:1612.08220.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_helpers._checks import check_choice, check_positive
from slm_helpers._numerics import softmax
from slm_helpers.analysis.network import ClassifierNetwork
from slm_helpers.models.folders import model_folder, read_config
from slm_helpers.models.stored import SavedModel, read_weights
from slm_helpers.tasks.text_classification import MAX_TOKENS, TextClassifier, text_scores
from slm_helpers.text.hashing import hash_ngrams, locate_ngrams, ngram_scores

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import matplotlib.pyplot as plt

METHODS = ("occlusion", "integrated_gradients", "gradient_x_input")
BASELINES = ("zero", "mean", "pad")
_WORD = re.compile(r"\S+")
_VARIANTS = 1024  # texts with a word left out that are scored together
_SHOWN = 25  # words of a figure


@dataclass(frozen=True)
class Explanation:
    """What each word of a text adds to a class.

    Attributes:
        text: The text.
        label: The class that is explained.
        probability: What the model gives it, calibrated.
        method: One of METHODS.
        unit: Of the scores: "probability" (occlusion), else "logit".
        table: One row a word: word, position (from 0), score; network and ngrams, the two parts in logits of the margin. For gradients
            score is their sum.
        completeness: One row for each part, network and ngrams: attributed (the sum of its column), change (of its margin between the
            baseline and the text; of n-grams: between none and all) and residual (their difference). Empty for occlusion, which does
            not add up.
    """

    text: str
    label: Any
    probability: float
    method: str
    unit: str
    table: pd.DataFrame
    completeness: pd.DataFrame

    def top(self, num_words: int = 5) -> pd.DataFrame:
        """Return the words that count most either way, strongest first."""
        return self.table.loc[self.table["score"].abs().sort_values(ascending=False, kind="stable").index].head(num_words)

    def plot(self, *, ax: plt.Axes | None = None) -> plt.Axes:
        """Draw the scores as bars in the order of the text (of a long one, the words that count most); returns the axes."""
        import matplotlib.pyplot as plt
        import seaborn as sns

        shown = self.top(_SHOWN).sort_values("position")
        if ax is None:
            _, ax = plt.subplots(figsize=(6.5, 0.9 + 0.26 * len(shown)), layout="constrained")
        palette = sns.color_palette("colorblind")
        ax.barh(range(len(shown)), shown["score"], color=[palette[0] if score >= 0 else palette[3] for score in shown["score"]])
        ax.set_yticks(range(len(shown)), shown["word"])
        ax.invert_yaxis()
        ax.axvline(0, color="black", linewidth=0.8)
        unit = "points of probability, 0 to 1" if self.unit == "probability" else "logits"
        ax.set(xlabel=f'Adds to "{self.label}" ({unit})', ylabel="")
        return ax


def explain(
    model: TextClassifier | SavedModel | str | Path,
    text: str,
    *,
    label: Any = None,
    method: str = "occlusion",
    baseline: str = "zero",
    num_steps: int = 64,
) -> Explanation:
    """Say what each word of a text adds to the class that a classifier gives it.

    Words are what stands between spaces, as on the page of `slm export --to html`.

    Args:
        model: A fitted TextClassifier, an opened one, or a model folder (or the name of a pretrained model).
        text: Any text.
        label: The class to explain; the predicted one unless given.
        method: One of METHODS.
        baseline: Where integrated gradients start: "zero" (vectors of zeros), "mean" (the mean vector of the vocabulary) or "pad" (that of
            the padding token). The <end> with which every text begins stays.
        num_steps: Points on the way from the baseline at which integrated gradients look.

    Raises:
        TypeError: If it is no classifier of texts, or the text is no string.
        ValueError: If the label, the method or the baseline is not known.

    Example:
        >>> classifier = TextClassifier(base=None, epochs=1).fit(["good day", "bad day"] * 8, ["praise", "blame"] * 8)
        >>> explain(classifier, "a good day").top(1)["word"].tolist()
        ['good']
    """
    check_choice(METHODS, method=method)
    check_choice(BASELINES, baseline=baseline)
    check_positive(num_steps=num_steps)
    if not isinstance(text, str):
        raise TypeError(f"explain needs one text, but got {type(text).__name__} {text!r:.40}. For a file: slm predict --explain.")
    estimator = open_classifier(model)
    saved = estimator.saved_
    scores = text_scores(saved, [text])[0]
    chosen = int(scores.argmax()) if label is None else _class_number(estimator, label)
    if method == "occlusion":
        table, completeness = _occlusion_tables(saved, [text], [chosen])[0], pd.DataFrame()
    else:
        table, completeness = _gradient_table(saved, text, chosen, method=method, baseline=baseline, num_steps=num_steps)
    return Explanation(
        text=text,
        label=estimator.classes_[chosen],
        probability=float(softmax(scores / saved.settings.get("temperature", 1.0))[chosen]),
        method=method,
        unit="probability" if method == "occlusion" else "logit",
        table=table,
        completeness=completeness,
    )


def words_that_count(model: TextClassifier, texts: Sequence[str], *, num_words: int = 5) -> list[list[dict[str, Any]]]:
    """Return for each text the words without which the predicted class loses or gains most, strongest first.

    Args:
        model: A fitted TextClassifier.
        texts: Any texts; each is read once for each of its words.
        num_words: At most, of a text; words that change nothing to three decimals are left out.

    Returns:
        For each text a list of {"word", "position", "score"}, scores in probability (0 to 1), as `explain` gives them.
    """
    saved = open_classifier(model).saved_
    labels = text_scores(saved, texts).argmax(axis=1)
    found = []
    for table in _occlusion_tables(saved, texts, labels):
        order = table["score"].abs().sort_values(ascending=False, kind="stable").index[:num_words]
        rows = table.loc[order, ["word", "position", "score"]].round({"score": 3})
        found.append(rows[rows["score"] != 0].to_dict("records"))
    return found


def explain_rows(model: TextClassifier, rows: Sequence[dict[str, Any]], ending: str) -> list[Any]:
    """Return the cells that `slm predict --explain` writes: `words_that_count` as a list (.jsonl) or as "awful:+0.310 but:-0.045"."""
    found = words_that_count(model, [row["text"] for row in rows])
    return found if ending == ".jsonl" else [" ".join(f"{row['word']}:{row['score']:+.3f}" for row in words) for words in found]


def open_classifier(model: TextClassifier | SavedModel | str | Path) -> TextClassifier:
    """Return the classifier of a model folder, of what was opened, or the classifier itself; raise TypeError for another kind of model."""
    if isinstance(model, str | Path):
        check_classifier(model)
        return TextClassifier.load(model, engine="onnx")
    if isinstance(model, SavedModel) and model.task == TextClassifier.task:
        return TextClassifier.from_saved(model)
    if not isinstance(model, TextClassifier) or model.task != TextClassifier.task:
        kind = f"a model for the task {model.task!r}" if isinstance(model, SavedModel) else f"a {type(model).__name__}"
        raise TypeError(f"Only classifiers of texts can be explained, but this is {kind}. Pass a TextClassifier or its folder.")
    model.predict_proba([])  # raises if it has learned nothing yet
    return model


def check_classifier(folder: str | Path) -> None:
    """Raise TypeError if a model folder (or the pretrained model of that name) holds no classifier of texts."""
    folder = model_folder(folder)
    if (task := read_config(folder)["task"]) != TextClassifier.task:
        raise TypeError(f"Only classifiers of texts can be explained, but {folder} holds a model for the task {task!r}.")


def ngram_contributions(saved: SavedModel, text: str, direction: np.ndarray, *, weights: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """Return what each word of a text adds to the linear part of a classifier: shape (num_words,); exact.

    An n-gram over two words is shared by them alike, a run of letters goes to the word that it stands in.

    Args:
        saved: A classifier.
        text: Its words are what stands between spaces.
        direction: How much each class counts, shape (num_classes,).
        weights: Of `network_weights`, if they are at hand.
    """
    num_words, table, num_buckets = len(text.split()), *_ngram_table(saved, weights)
    if table is None or not num_words:
        return np.zeros(num_words)
    ids, words = locate_ngrams(text, num_buckets=num_buckets)
    (used,) = hash_ngrams([text], num_buckets=num_buckets)
    ids, words = ids[kept := np.isin(ids, used)], words[kept]
    norm = np.sqrt(max(table[used, -1].sum(), 1e-6))
    shares = 1 / np.bincount(ids)[ids]  # an id of several words is divided among them
    return np.bincount(words, weights=shares * (table[ids, :-1] @ direction) / norm, minlength=num_words)


def network_weights(saved: SavedModel) -> dict[str, np.ndarray]:
    """Return the weights of a classifier by path, whether Keras or another engine runs it."""
    if hasattr(saved.model, "weights"):
        return {weight.path: np.asarray(weight) for weight in saved.model.weights}
    return read_weights(saved.folder, read_config(saved.folder))


def margin_direction(num_classes: int, label: int) -> np.ndarray:
    """Return by what logits are multiplied to give a margin: 1 for the class, and -1 in all, divided among the others."""
    direction = np.full(num_classes, -1 / (num_classes - 1))
    direction[label] = 1.0
    return direction


def integrated_gradients(
    gradient: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray, baseline: np.ndarray, *, num_steps: int = 64
) -> np.ndarray:
    """Integrate a gradient along the straight line from a baseline to token vectors, by the midpoint rule.

    Args:
        gradient: From inputs, shape (num_steps, time, size), to gradients of the same shape.
        vectors: Shape (time, size).
        baseline: The same.
        num_steps: Points on the line.

    Returns:
        What each position adds, shape (time,); with many steps their sum is the change of the function.
    """
    points = (np.arange(num_steps) + 0.5) / num_steps
    path = baseline + points[:, None, None] * (vectors - baseline)
    return ((vectors - baseline) * gradient(path.astype("float32")).mean(axis=0)).sum(axis=1)


def token_words(text: str, places: np.ndarray) -> np.ndarray:
    """Return the word that each token belongs to, by its last character: int64, shape (num_tokens,); spaces go to the next word."""
    ends = np.array([match.end() for match in _WORD.finditer(text)])
    return np.minimum(np.searchsorted(ends, places[:, 1], side="left"), max(len(ends) - 1, 0))


def _class_number(estimator: TextClassifier, label: Any) -> int:
    names = estimator.classes_.tolist()
    if label not in names:
        raise ValueError(f"label is {label!r}, but this model knows {', '.join(map(str, names[:10]))}{' ...' if len(names) > 10 else ''}.")
    return names.index(label)


def _occlusion_tables(saved: SavedModel, texts: Sequence[str], labels: Sequence[int]) -> list[pd.DataFrame]:
    """Return the table of each text: what its class loses where a word is left out."""
    variants = [[text, *(_without(text, *match.span()) for match in _WORD.finditer(text))] for text in texts]
    temperature, ngrams, tables = saved.settings.get("temperature", 1.0), _ngram_table(saved), []
    for group in _groups([len(each) for each in variants]):
        flat = [variant for number in group for variant in variants[number]]
        logits, linear = text_scores(saved, flat), _linear_logits(flat, *ngrams, num_classes=len(saved.labels))
        ends = np.cumsum([len(variants[number]) for number in group])[:-1]
        for number, own, own_linear in zip(group, np.split(logits, ends), np.split(linear, ends), strict=True):
            tables.append(_occlusion_table(texts[number], own, own_linear, int(labels[number]), temperature))
    return tables


def _groups(sizes: Sequence[int]) -> list[range]:
    """Return neighbours that have about _VARIANTS texts together."""
    starts = np.flatnonzero(np.diff(np.cumsum([0, *sizes])[:-1] // _VARIANTS, prepend=-1))
    return [range(start, end) for start, end in pairwise([*starts, len(sizes)])]


def _occlusion_table(text: str, logits: np.ndarray, linear: np.ndarray, label: int, temperature: float) -> pd.DataFrame:
    probs = softmax(logits.astype("float64") / temperature)[:, label]
    direction = margin_direction(logits.shape[1], label)
    total, ngrams = (float(each[0] @ direction) - each[1:] @ direction for each in (logits, linear))
    return _word_table(text, probs[0] - probs[1:], total - ngrams, ngrams)


def _without(text: str, start: int, end: int) -> str:
    """Leave out a word and one space beside it, as the page does; a text without a word left is a space."""
    after = re.sub(r"^\s", "", text[end:])
    return (text[:start] + after if after else text[:start].rstrip()) or " "


def _gradient_table(
    saved: SavedModel, text: str, label: int, *, method: str, baseline: str, num_steps: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    weights = network_weights(saved)
    network, direction = ClassifierNetwork(saved.arguments, weights), margin_direction(len(saved.labels), label)
    ids, words = _tokens(saved, text)
    vectors = network.embeddings[ids]
    start = np.zeros_like(vectors) if method == "gradient_x_input" else _baseline(network.embeddings, ids, baseline)
    if method == "gradient_x_input":
        by_token = (vectors * network.gradient(vectors[None], direction)[1][0]).sum(axis=1)
    else:
        by_token = integrated_gradients(lambda path: network.gradient(path, direction)[1], vectors, start, num_steps=num_steps)
    # The <end> at the beginning stands before all words: it is no part of the table, and the baseline leaves it as it is.
    by_word = np.bincount(words, weights=by_token[1:], minlength=len(text.split()))[: len(text.split())]
    ngrams = ngram_contributions(saved, text, direction, weights=weights)
    values = network.logits(np.stack([start, vectors])) @ direction
    linear = _linear_logits([text], *_ngram_table(saved, weights), num_classes=len(saved.labels))[0] @ direction
    parts = [("network", by_word.sum(), values[1] - values[0]), ("ngrams", ngrams.sum(), linear)]
    completeness = pd.DataFrame(parts, columns=["part", "attributed", "change"])
    completeness["residual"] = completeness["attributed"] - completeness["change"]
    return _word_table(text, by_word + ngrams, by_word, ngrams), completeness.set_index("part")


def _word_table(text: str, scores: np.ndarray, network: np.ndarray, ngrams: np.ndarray) -> pd.DataFrame:
    words = text.split()
    return pd.DataFrame({"word": words, "position": np.arange(len(words)), "score": scores, "network": network, "ngrams": ngrams})


def _tokens(saved: SavedModel, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids as the network reads them, <end> first, and the word of each but the first."""
    ((ids, places),) = saved.tokenizer.encode_with_places([text])
    kept = saved.settings.get("max_tokens", MAX_TOKENS) - 1
    read = np.arange(len(ids)) if len(ids) <= kept else np.r_[: kept - kept // 2, len(ids) - kept // 2 : len(ids)]
    return np.concatenate([[saved.tokenizer.end_id], ids[read]]), token_words(text, places[read])


def _baseline(embeddings: np.ndarray, ids: np.ndarray, name: str) -> np.ndarray:
    blank = {"zero": np.zeros(embeddings.shape[1], "float32"), "mean": embeddings.mean(axis=0), "pad": embeddings[0]}[name]
    start = np.tile(blank, (len(ids), 1))
    start[0] = embeddings[ids[0]]
    return start


def _ngram_table(saved: SavedModel, weights: dict[str, np.ndarray] | None = None) -> tuple[np.ndarray | None, int]:
    num_buckets = saved.arguments.get("num_buckets", 0)
    if not num_buckets:
        return None, 0
    return np.asarray((weights or network_weights(saved))["ngram_scores/table"], dtype="float64"), num_buckets


def _linear_logits(texts: Sequence[str], table: np.ndarray | None, num_buckets: int, *, num_classes: int) -> np.ndarray:
    """Return the logits of the linear part, without its bias: shape (num_texts, num_classes)."""
    if table is None:
        return np.zeros((len(texts), num_classes))
    return ngram_scores(table, hash_ngrams(texts, num_buckets=num_buckets))
