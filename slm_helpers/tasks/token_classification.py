"""A tag for each word: people, organisations and places in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_helpers._numerics import softmax
from slm_helpers.data.schema import check_tags
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.tagging import COUNTS, entity_table, legal_tags, precision_recall_f1, span_counts, spans_of, tag_table
from slm_helpers.tasks.base import Evaluation, Task, add_linear_head, starting_tokenizer, train_and_valid
from slm_helpers.text.hashing import hash_words, num_buckets_for
from slm_helpers.text.tagging import check_known_tags, encode_sentences, iob_labels, tag_codes, token_lists, window_targets, windows_of
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers.models.saved import SavedModel
    from slm_helpers.training.batches import Examples

SCRATCH = {"embedding_dim": 128, "units": 192, "head_units": 128}  # of a network without a base: few rows do not fill a larger one
LINEAR = {"use_idf": False, "l2": 0.2}  # settings of the linear model on features of words
_MIN_STEPS = 600  # where rows are few, batches are smaller (8 rows at least), so that about so many steps are made
_ENSEMBLE_WEIGHTS = (0.6, 2.0)  # of network and linear model where there is no valid part to fit them
_MIN_ENTITIES = 200  # in valid; with fewer the best outside_bias would be chance
_OUTSIDE_BIASES = (0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0)  # tried in this order; the first of equals is taken


class TokenTagger(Task):
    """A tag (IOB2) for each word of a sentence.

    A recurrent network is trained, and a linear model is fitted to features of each word and its neighbours; the logits of the tags
    are the weighted sum of both, with the weights that predict the tags of valid best. The most probable sequence of legal tags is
    found by the Viterbi algorithm. Sentences are lists of tokens, or strings in which tokens are joined by single spaces; tags likewise.

    Args:
        base: A language model to start from (folder, name, SavedModel, fitted estimator); None starts from random weights with a
            vocabulary of the training sentences.
        epochs: Passes over train at most; None: 10.
        batch_size: Sentences in an update; None: 32, and fewer where there are few sentences.
        learning_rate: The highest, of the head; None: 0.002.
        max_seconds: End the training of the network after this time; None: no limit.
        class_weight: "balanced" gives every tag the same weight in the linear model, however many words have it.
        ngrams: Add the linear model; else the network alone.
        dropout: Share of activations dropped in training.
        config: Other settings of the training.
        seed: Of order, dropout and weights.

    Example:
        >>> tagger = TokenTagger(base=None, epochs=1).fit(["Ada met Bo", "Bo left"] * 20, ["B-PER O B-PER", "B-PER O"] * 20)
        >>> tagger.predict([["Bo", "met", "Ada"]])
        [['B-PER', 'O', 'B-PER']]

    Reference:
        Peters et al. (2017), "Semi-supervised sequence tagging with bidirectional language models", arXiv:1705.00108.
    """

    task = "tag"
    columns = ("tokens", "tags")
    target = "tags"
    predict_columns = ("tokens",)
    default_config = TrainConfig(epochs=10, learning_rate=2e-3, layer_decay=0.7)

    def __init__(
        self,
        base: str | Path | SavedModel | Task | None = "slm-base-en",
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        class_weight: str | None = None,
        ngrams: bool = True,
        dropout: float = 0.4,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base, self.ngrams, self.dropout, self.config, self.seed = base, ngrams, dropout, config, seed
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.max_seconds, self.class_weight = max_seconds, class_weight

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if tags are not IOB2 or not as many as tokens, train has no entity, or another split has a tag it lacks."""
        check_tagged(frame)

    def predict(self, X: Any) -> list[list[str]]:
        """Return a tag for each token of each sentence."""
        return [[self.saved_.labels[code] for code in codes] for codes, _ in self._decode([row["tokens"] for row in self._rows(X)])]

    def predict_proba(self, X: Any) -> list[np.ndarray]:
        """Return for each sentence the calibrated probability of each of `classes_` at each token, shape (num_tokens, num_tags).

        Each token is judged by itself: its most probable tag need not be legal after the one before.
        """
        logits = tag_logits(self._fitted(), token_lists([row["tokens"] for row in self._rows(X)]))
        return [softmax(rows.astype("float64") / self.saved_.settings.get("temperature", 1.0)) for rows in logits]

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction (one tag a token, joined by spaces) and confidence, the calibrated probability of the least certain tag."""
        labels = self._fitted().labels
        return [
            {"prediction": " ".join(labels[code] for code in codes), "confidence": round(float(probs.min(initial=1.0)), 4)}
            for codes, probs in self._decode([row["tokens"] for row in rows])
        ]

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with tokens and tags.

        Returns:
            entity_f1, entity_precision, entity_recall (exact entities, over all sentences together) and accuracy (of words) with
            95 % intervals, and the table entities (precision, recall, F1 and rows, the entities in the data, of each type).

        Raises:
            ValueError: If a tag is not one of the model's.
        """
        check_tags(frame)
        check_known_tags(frame["tags"], self._fitted().labels, "row", "is unknown to this model, which knows")
        tags, predictions = token_lists(frame["tags"]), self.predict(frame)
        return Evaluation(rows=len(frame), metrics=tag_table(tags, predictions), tables={"entities": entity_table(tags, predictions)})

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks) -> tuple[SavedModel, pd.DataFrame]:
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.models.taggers import build_tagger
        from slm_helpers.training.finetune import fit_examples

        parts = train_and_valid(frame)
        labels, tokenizer = iob_labels(parts["train"]["tags"]), starting_tokenizer(base, parts["train"]["tokens"])
        model = build_on_base(build_tagger, base, tokenizer.vocab_size, num_tags=len(labels), dropout=self.dropout)
        saved = SavedModel(model=model, tokenizer=tokenizer, task=self.task, labels=labels)
        examples = {split: _examples(saved, rows) for split, rows in parts.items()}
        if config.batch_size is None:
            config = replace(config, batch_size=min(32, max(8, len(examples["train"]) * config.epochs // _MIN_STEPS)))
        options = {"checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
        history = fit_examples(model, examples["train"], examples.get("valid"), config=config, **options)
        if "valid" in parts and not self.ngrams:
            logits = tag_logits(saved, token_lists(parts["valid"]["tokens"]))
            calibrate_tags(saved, logits, tag_codes(parts["valid"]["tags"], labels))
        return saved, history

    def _with_linear_model(self, frame: pd.DataFrame, *, keep_valid: bool) -> SavedModel:
        from slm_helpers.models.taggers import build_tagger

        parts = train_and_valid(frame)
        logits = tag_logits(self.saved_, token_lists(parts["valid"]["tokens"])) if "valid" in parts else None
        options = {"keep_valid": keep_valid, "class_weight": self.training_config().class_weight, "seed": self.seed}
        both, logits = add_linear_tag_head(self.saved_, build_tagger, parts, logits, **options)
        if logits is not None:
            calibrate_tags(both, logits, tag_codes(parts["valid"]["tags"], both.labels))
        return both

    def _learned(self) -> None:
        self.classes_ = np.array(self.saved_.labels, dtype=object)

    def _decode(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        saved = self._fitted()
        return decode_tags(saved, tag_logits(saved, token_lists(texts)))

    def _table(self, X: Any) -> pd.DataFrame:
        """Return X as a table, tokens joined by spaces; sentences may be lists of tokens."""
        return joined_tokens(super()._table(as_sentences(X)), "tokens", "tags")

    def _frame(self, X: Any, y: Any = None) -> pd.DataFrame:
        return joined_tokens(super()._frame(X, y), "tags")


def as_sentences(X: Any) -> Any:
    """Return sentences given as strings or as lists of tokens as a table with the column tokens; tables, dicts and mistakes as they are."""
    if isinstance(X, str | dict | pd.DataFrame):
        return X
    rows = list(X)
    return rows if any(isinstance(row, dict) for row in rows) else pd.DataFrame({"tokens": pd.Series(rows, dtype=object)})


def joined_tokens(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return a table whose columns of token lists (those of `columns` that are there) hold strings, joined by single spaces."""
    return frame.assign(**{name: [" ".join(row) for row in token_lists(frame[name], name=name)] for name in columns if name in frame})


def check_tagged(frame: pd.DataFrame) -> None:
    """Raise ValueError if tags are not IOB2 or not as many as tokens, train has no entity, or another split has a tag that train lacks."""
    check_tags(frame)
    labels = iob_labels(frame.loc[frame["split"] == "train", "tags"])
    for split, rows in frame.groupby("split"):
        check_known_tags(rows["tags"], labels, f"{split}, row", f"stands in {split} but never in train, which has")


def build_on_base(build: Callable[..., Any], base: SavedModel | None, vocab_size: int, **options: Any) -> Any:
    """Return a network of a builder with the shape and the weights of a language model; without one, a small one with random weights."""
    from slm_helpers.models.registry import backbone_config, load_backbone_weights

    if base is None:
        return build(vocab_size, **SCRATCH, **options)
    model = build(**backbone_config(base.model), **options)
    load_backbone_weights(model, base.model)
    return model


def tag_logits(saved: SavedModel, sentences: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Return the logits of each sentence's words, shape (num_words, num_tags); sentences may be of any length."""
    num_buckets = saved.arguments.get("num_buckets", 0)
    logits: list[list[np.ndarray]] = [[np.zeros((0, len(saved.labels)), dtype="float32")] for _ in sentences]
    for row, (start, _, first, last), scores in run_windows(
        saved, sentences, lambda windows: encode_sentences(saved.tokenizer, windows, num_buckets=num_buckets)
    ):
        logits[row].append(scores[first - start : last - start])
    return [np.concatenate(parts) for parts in logits]


def run_windows(
    saved: SavedModel, sentences: Sequence[Sequence[str]], encode: Callable[[list[Sequence[str]]], dict[str, list[np.ndarray]]]
) -> list[tuple[int, tuple[int, int, int, int], np.ndarray]]:
    """Run a network over sentences of any length: for each window the index of its sentence, its bounds (`windows_of`), its output."""
    from slm_helpers.models.rows import run_rows

    windows = [(row, window) for row, words in enumerate(sentences) for window in windows_of(len(words))]
    if not windows:
        return []
    inputs = encode([sentences[row][start:stop] for row, (start, stop, *_) in windows])
    outputs = run_rows(saved.model, inputs, along="word_ends", batch_size=64)
    return [(row, window, output) for (row, window), output in zip(windows, outputs, strict=True)]


def decode_tags(saved: SavedModel, logits: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each sentence its best legal tags as indices of labels, and their calibrated probabilities.

    Args:
        saved: Its settings hold what `calibrate_tags` chose; folders of earlier versions call the bias caution.
        logits: Of the tags of each word, shape (num_words, num_tags).
    """
    bias = saved.settings.get("outside_bias", saved.settings.get("caution", 0.0))
    temperature = saved.settings.get("temperature", 1.0)
    decoded = []
    for rows, codes in zip(logits, _best_legal(logits, saved.labels, bias), strict=True):
        probs = softmax(rows.astype("float64") / temperature)
        decoded.append((codes, probs[np.arange(len(codes)), codes]))
    return decoded


def calibrate_tags(saved: SavedModel, logits: Sequence[np.ndarray], codes: Sequence[np.ndarray]) -> None:
    """Note in the settings the temperature and the outside_bias that suit the logits of valid best."""
    saved.settings["temperature"] = fit_temperature(np.concatenate(logits), np.concatenate(codes))
    saved.settings["outside_bias"] = fit_outside_bias(logits, codes, saved.labels)


def fit_outside_bias(logits: Sequence[np.ndarray], codes: Sequence[np.ndarray], labels: Sequence[str]) -> float:
    """Return what to add to the logit of O for the highest entity F1; 0 where there are too few entities to tell.

    A network trained on single words predicts too few rare entities, or too many.
    """
    names = np.array(labels, dtype=object)
    tags = [names[row] for row in codes]
    if sum(len(spans_of(row)) for row in tags) < _MIN_ENTITIES:
        return 0.0

    def f1(bias: float) -> float:
        counts = span_counts(tags, [names[row] for row in _best_legal(logits, labels, bias)])[list(COUNTS)].sum()
        return float(precision_recall_f1(*counts)[2])

    return max(_OUTSIDE_BIASES, key=f1)


def add_linear_tag_head(
    saved: SavedModel, build: Callable[..., Any], parts: dict[str, pd.DataFrame], network_logits: list[np.ndarray] | None, **options: Any
) -> tuple[SavedModel, list[np.ndarray] | None]:
    """Combine the logits of tags with a linear model on features of each word and its neighbours.

    Args:
        saved: A network without it; it stays as it is.
        build: Its builder.
        parts: Rows of train and, if there is one, valid, with tokens and tags.
        network_logits: The network's logits for each sentence of valid.
        options: Of `add_linear_head`.

    Returns:
        The combined model and its logits for each sentence of valid, see `add_linear_head`.
    """
    num_buckets = num_buckets_for(len(saved.labels))
    words = {split: token_lists(rows["tokens"]) for split, rows in parts.items()}
    both, logits = add_linear_head(
        saved,
        build,
        {split: np.concatenate(hash_words(rows, num_buckets=num_buckets)) for split, rows in words.items()},
        {split: np.concatenate(tag_codes(rows["tags"], saved.labels)) for split, rows in parts.items()},
        network_logits=None if network_logits is None else np.concatenate(network_logits),
        default_weights=_ENSEMBLE_WEIGHTS,
        num_buckets=num_buckets,
        **LINEAR,
        **options,
    )
    return both, None if logits is None else np.split(logits, np.cumsum([len(row) for row in words["valid"]])[:-1])


def _best_legal(logits: Sequence[np.ndarray], labels: Sequence[str], outside_bias: float) -> list[np.ndarray]:
    bias = outside_bias * np.array([label == "O" for label in labels])
    return legal_tags([rows + bias for rows in logits], labels)


def _examples(saved: SavedModel, frame: pd.DataFrame) -> Examples:
    """Return labelled sentences; of long ones windows, in which the words at the edges are read but do not count."""
    from slm_helpers.training.batches import Examples

    sentences, targets = [], []
    for words, codes in zip(token_lists(frame["tokens"]), tag_codes(frame["tags"], saved.labels), strict=True):
        for window, window_codes in window_targets(codes):
            sentences.append(words[window])
            targets.append(window_codes)
    return Examples(encode_sentences(saved.tokenizer, sentences), targets, along="word_ends")
