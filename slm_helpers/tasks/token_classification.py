"""A tag for each word: people, organisations and places in a sentence, slots of a command. From columns to a trained model,
its scores and its predictions.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.data.schema import check_tags
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.tagging import COUNTS, entity_table, legal_tags, precision_recall_f1, span_counts, spans_of, tag_table
from slm_helpers.models.registry import backbone_config, load_backbone_weights
from slm_helpers.models.saved import SavedModel
from slm_helpers.models.taggers import build_tagger
from slm_helpers.tasks.base import Evaluation, put_beside, starting_tokenizer
from slm_helpers.text.hashing import hash_words, num_buckets_for
from slm_helpers.text.tagging import check_known_tags, encode_sentences, iob_labels, tag_codes, token_lists, window_targets, windows_of
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples, run_rows, softmax

import numpy as np
import pandas as pd

COLUMNS = ("tokens", "tags")
PREDICT_COLUMNS = ("tokens",)
SCRATCH = {"embedding_dim": 128, "units": 192, "head_units": 128}  # of a network without a base: few rows do not fill a larger one
_MIN_STEPS = 600  # where rows are few, batches are smaller (8 rows at least), so that about so many steps are made
_MIN_ENTITIES = 200  # in valid, below which the best caution would be chance
_CAUTION = (0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0)  # what the score of O is raised by; the first of equals is taken
_SHARES = (0.6, 2.0)  # of network and linear model where there is no valid part to tell
_PENALTY = 0.2  # of the linear model's weights
DEFAULT = TrainConfig(epochs=10, batch_size=32, learning_rate=2e-3, layer_decay=0.7)


def train(
    frame: pd.DataFrame,
    *,
    base: SavedModel | None,
    config: TrainConfig = TrainConfig(),
    dropout: float = 0.4,
    ngrams: bool = True,
    keep_valid: bool = False,
) -> tuple[SavedModel, pd.DataFrame]:
    """Fine-tune a tagger on the columns tokens, tags (IOB2) and split.

    A recurrent network is trained, and a linear model is fitted to features of the words and their neighbours; the model returned
    adds their scores, in the shares that tell the tags of valid best.

    Args:
        frame: From `load_dataset`; the split valid, if there, chooses the epoch, calibrates the confidence and balances
            precision and recall.
        base: A language model to start from; None starts from random weights with a vocabulary of the training texts.
        config: Settings of the training; its batches are made smaller where rows are few.
        dropout: Share of activations dropped in training.
        ngrams: Put the linear model beside the network; else the network has to do alone.
        keep_valid: Keep the rows of valid from the linear model, which else learns from them in the end; see `add_ngrams`.

    Returns:
        The model with its tokeniser, labels (the tags) and settings, and the history of its training.

    Raises:
        ValueError: If tags are not well-formed or not as many as tokens, train has no entity, or valid has a tag that train lacks.
    """
    given, config = config, config.with_defaults(DEFAULT)
    labels = check_rows(frame)
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    keras.utils.set_random_seed(config.seed)
    tokenizer = starting_tokenizer(base, parts["train"]["tokens"])
    if base is None:
        model = build_tagger(tokenizer.vocab_size, num_tags=len(labels), dropout=dropout, **SCRATCH)
    else:
        model = tagger_from_base(base.model, num_tags=len(labels), dropout=dropout)
    examples = {split: _examples(tokenizer, rows, labels) for split, rows in parts.items()}
    few = max(8, len(examples["train"]) * config.epochs // _MIN_STEPS)
    if given.batch_size is None:
        config = replace(config, batch_size=min(config.batch_size, few))
    history = fit_examples(model, examples["train"], examples.get("valid"), config=config)
    saved = SavedModel(model=model, tokenizer=tokenizer, task="tag", labels=labels)
    if ngrams:
        return add_ngrams(saved, frame, balanced=config.class_weight == "balanced", keep_valid=keep_valid, seed=config.seed), history
    if "valid" in parts:
        scores = tag_scores(model, tokenizer, token_lists(parts["valid"]["tokens"]))
        settle(saved, scores, tag_codes(parts["valid"]["tags"], labels))
    return saved, history


def check_rows(frame: pd.DataFrame) -> list[str]:
    """Return the labels that train has: O and, of each type, B and I.

    Raises:
        ValueError: If tags are not well-formed or not as many as tokens, train has no entity, or another split has a tag that train lacks.
    """
    check_tags(frame)
    labels = iob_labels(frame.loc[frame["split"] == "train", "tags"])
    for split, rows in frame.groupby("split"):
        check_known_tags(rows["tags"], labels, f"{split}, row", f"stands in {split} but never in train, which has")
    return labels


def add_ngrams(saved: SavedModel, frame: pd.DataFrame, *, balanced: bool = False, keep_valid: bool = False, seed: int = 42) -> SavedModel:
    """Put a linear model on features of each word and its neighbours beside the network of a tagger; `train` does it unless told not to.

    Args:
        saved: From `train` with ngrams=False; it stays as it is.
        frame: The rows it was trained on, with the split valid, which tells how much of either to add; without one both get a
            usual share.
        balanced: Every tag counts alike in the linear model, however many words have it.
        keep_valid: Do without the rows of valid in the end. Else the linear model learns from them too once the shares are found, and
            a score on valid says nothing any more.
        seed: Of its solver.

    Returns:
        A tagger whose score of a tag is the sum of both.
    """
    num_buckets = num_buckets_for(len(saved.labels))
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    words = {split: token_lists(rows["tokens"]) for split, rows in parts.items()}
    codes = {split: tag_codes(rows["tags"], saved.labels) for split, rows in parts.items()}
    both, mixed = put_beside(
        saved,
        build_tagger,
        {split: np.concatenate(hash_words(rows, num_buckets=num_buckets)) for split, rows in words.items()},
        {split: np.concatenate(rows) for split, rows in codes.items()},
        network_scores=np.concatenate(tag_scores(saved.model, saved.tokenizer, words["valid"])) if "valid" in words else None,
        usual_shares=_SHARES,
        keep_valid=keep_valid,
        num_buckets=num_buckets,
        balanced=balanced,
        by_rarity=False,
        penalty=_PENALTY,
        seed=seed,
    )
    if mixed is not None:
        settle(both, np.split(mixed, np.cumsum([len(row) for row in words["valid"]])[:-1]), codes["valid"])
    return both


def evaluate(saved: SavedModel, frame: pd.DataFrame) -> Evaluation:
    """Score a tagger on the columns tokens and tags.

    Returns:
        entity_f1, entity_precision, entity_recall (exact entities, over all sentences together) and accuracy (of words) with
        95 % intervals, and the table entities (precision, recall, F1 and rows, the entities in the data, of each type).

    Raises:
        ValueError: If a tag is not one of the model's.
    """
    check_tags(frame)
    check_known_tags(frame["tags"], saved.labels, "row", "is unknown to this model, which knows")
    tags = [row.split(" ") for row in frame["tags"]]
    found = [[saved.labels[code] for code in codes] for codes, _ in _best(saved, frame["tokens"])]
    return Evaluation(rows=len(frame), metrics=tag_table(tags, found), tables={"entities": entity_table(tags, found)})


def predict(saved: SavedModel, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return prediction (one tag a token, joined by spaces) and confidence for rows with tokens, joined by single spaces.

    The confidence is the calibrated probability of the least certain tag.
    """
    return [
        {"prediction": " ".join(saved.labels[code] for code in codes), "confidence": round(float(probs.min()), 4)}
        for codes, probs in _best(saved, [row["tokens"] for row in rows])
    ]


def tagger_from_base(base: keras.Model, *, num_tags: int, dropout: float = 0.4) -> keras.Model:
    """Build a tagger in the shape of a language model and copy the shared layers; the others start from random weights.

    Args:
        base: From `build_language_model`, e.g. `load_pretrained("slm-base-en").model`.
        num_tags: Number of tags.
        dropout: Share of activations dropped in training.
    """
    model = build_tagger(**backbone_config(base), num_tags=num_tags, dropout=dropout)
    load_backbone_weights(model, base)
    return model


def tag_scores(model: keras.Model, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Return the logits of each sentence's words, shape (words, num_tags); sentences may be of any length."""
    pieces = [(row, *piece) for row, words in enumerate(sentences) for piece in windows_of(len(words))]
    num_buckets = model.get_layer("ngram_scores").num_buckets if len(model.inputs) > 3 else 0
    inputs = encode_sentences(tokenizer, [sentences[row][start:stop] for row, start, stop, _, _ in pieces], num_buckets=num_buckets)
    found: list[list[np.ndarray]] = [[] for _ in sentences]
    for (row, start, _, first, last), scores in zip(pieces, run_rows(model, inputs, along="word_ends", batch_size=64), strict=True):
        found[row].append(scores[first - start : last - start])
    return [np.concatenate(parts) for parts in found]


def settle(saved: SavedModel, scores: list[np.ndarray], codes: list[np.ndarray]) -> None:
    """Note the temperature and the caution that suit the scores of valid best."""
    saved.settings["temperature"] = fit_temperature(np.concatenate(scores), np.concatenate(codes))
    saved.settings["caution"] = _best_caution(scores, codes, saved.labels)


def _best(saved: SavedModel, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    return best_tags(saved, tag_scores(saved.model, saved.tokenizer, token_lists(texts)))


def best_tags(saved: SavedModel, scores: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each sentence its best legal tags as places among the labels, and their calibrated probabilities.

    Args:
        saved: Its settings hold what `settle` found.
        scores: Logits of the tags of each word, shape (words, num_tags).
    """
    found = []
    for rows, codes in zip(scores, _decoded(scores, saved.labels, saved.settings.get("caution", 0.0)), strict=True):
        probs = softmax(rows.astype("float64") / saved.settings.get("temperature", 1.0))
        found.append((codes, probs[np.arange(len(codes)), codes]))
    return found


def _decoded(scores: Sequence[np.ndarray], labels: Sequence[str], caution: float) -> list[np.ndarray]:
    """Return the best legal tags after the score of O was raised by `caution`."""
    raised = caution * np.array([label == "O" for label in labels])
    return legal_tags([rows + raised for rows in scores], labels)


def _best_caution(scores: Sequence[np.ndarray], codes: Sequence[np.ndarray], labels: Sequence[str]) -> float:
    """Return the caution with the highest entity F1: a network trained on single words finds too few rare entities, or too many."""
    names = np.array(labels, dtype=object)
    tags = [names[row] for row in codes]
    if sum(len(spans_of(row)) for row in tags) < _MIN_ENTITIES:
        return 0.0

    def f1(caution: float) -> float:
        counts = span_counts(tags, [names[row] for row in _decoded(scores, labels, caution)])[list(COUNTS)].sum()
        return float(precision_recall_f1(*counts)[2])

    return max(_CAUTION, key=f1)


def _examples(tokenizer: Tokenizer, frame: pd.DataFrame, labels: list[str]) -> Examples:
    """Return labelled sentences; of long ones pieces, in which the words at the edges are read but do not count."""
    sentences, targets = [], []
    for words, codes in zip(token_lists(frame["tokens"]), tag_codes(frame["tags"], labels), strict=True):
        for window, window_codes in window_targets(codes):
            sentences.append(words[window])
            targets.append(window_codes)
    return Examples(encode_sentences(tokenizer, sentences), targets, along="word_ends")
