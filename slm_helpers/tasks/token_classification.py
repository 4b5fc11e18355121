"""A tag for each word: people, organisations and places in a sentence, slots of a command. From columns to a trained model,
its scores and its predictions.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.data.schema import check_tags
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.tagging import legal_tags, precision_recall_f1, span_counts, spans_of, tag_table
from slm_helpers.models.registry import shared_shape, start_from
from slm_helpers.models.saved import SavedModel
from slm_helpers.models.taggers import build_tagger
from slm_helpers.models.word_reading import MAX_CHARACTERS
from slm_helpers.tasks.base import Evaluation, put_beside, starting_tokenizer
from slm_helpers.text.hashing import hash_words, num_buckets_for
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import FinetuneConfig
from slm_helpers.training.finetune import fit_examples, run_rows, softmax

import numpy as np
import pandas as pd

COLUMNS = ("tokens", "tags")
PREDICT_COLUMNS = ("tokens",)
MAX_WORDS = 128  # read in one go; a longer sentence is read in pieces that overlap
_MARGIN = 16  # words at the edge of a piece that only serve as context
_COUNTS = ["right", "found", "wanted"]
_MAX_PIECES = 16  # tokens of one word; a longer word loses its middle
_CLOSING = re.compile(r"[.,;:!?)\]}%…]+|n't|['’](s|S|re|ve|ll|d|m|t)")  # words that stand right behind the one before them
_OPENING = frozenset("([{$£€#¿¡")  # and those that the next one stands right behind
_WORD_START, _WORD_END = 257, 258  # character ids; 0 is padding, 1 to 256 are the bytes
SCRATCH = {"embedding_dim": 128, "units": 192, "head_units": 128}  # of a network without a base: few rows do not fill a larger one
_MIN_STEPS = 600  # where rows are few, batches are smaller (8 rows at least), so that about so many steps are made
_MIN_ENTITIES = 200  # in valid, below which the best caution would be chance
_CAUTION = (0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0)  # what the score of O is raised by; the first of equals is taken
_SHARES = (0.6, 2.0)  # of network and linear model where there is no valid part to tell
_PENALTY = 0.2  # of the linear model's weights
DEFAULT = FinetuneConfig(epochs=10, batch_size=32, learning_rate=2e-3, layer_decay=0.7)


def train(
    frame: pd.DataFrame,
    *,
    base: SavedModel | None,
    config: FinetuneConfig = DEFAULT,
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
    config = replace(config, batch_size=min(config.batch_size, few))
    history = fit_examples(model, examples["train"], examples.get("valid"), config=config)
    saved = SavedModel(model=model, tokenizer=tokenizer, task="tag", labels=labels)
    if ngrams:
        return add_ngrams(saved, frame, balanced=config.balanced, keep_valid=keep_valid, seed=config.seed), history
    if "valid" in parts:
        scores = tag_scores(model, tokenizer, split_words(parts["valid"]["tokens"]))
        settle(saved, scores, tag_codes(parts["valid"]["tags"], labels))
    return saved, history


def check_rows(frame: pd.DataFrame) -> list[str]:
    """Return the labels that train has: O and, of each type, B and I.

    Raises:
        ValueError: If tags are not well-formed or not as many as tokens, train has no entity, or another split has a tag that train lacks.
    """
    check_tags(frame)
    labels = _labels(frame.loc[frame["split"] == "train", "tags"])
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
    words = {split: split_words(rows["tokens"]) for split, rows in parts.items()}
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
    counts = span_counts(tags, found).groupby("type")[_COUNTS].sum()
    precision, recall, f1 = precision_recall_f1(*counts.to_numpy().T)
    entities = pd.DataFrame({"type": counts.index, "precision": precision, "recall": recall, "f1": f1, "rows": counts["wanted"].to_numpy()})
    return Evaluation(rows=len(frame), metrics=tag_table(tags, found), tables={"entities": entities})


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
    model = build_tagger(**shared_shape(base), num_tags=num_tags, dropout=dropout)
    start_from(model, base)
    return model


def tag_scores(model: keras.Model, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Return the logits of each sentence's words, shape (words, num_tags); sentences may be of any length."""
    pieces = [(row, *piece) for row, words in enumerate(sentences) for piece in pieces_of(len(words))]
    num_buckets = model.get_layer("ngram_scores").num_buckets if len(model.inputs) > 3 else 0
    inputs = encode_sentences(tokenizer, [sentences[row][start:stop] for row, start, stop, _, _ in pieces], num_buckets=num_buckets)
    found: list[list[np.ndarray]] = [[] for _ in sentences]
    for (row, start, _, first, last), scores in zip(pieces, run_rows(model, inputs, along="word_ends", batch_size=64), strict=True):
        found[row].append(scores[first - start : last - start])
    return [np.concatenate(parts) for parts in found]


def encode_sentences(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], *, num_buckets: int = 0) -> dict[str, list[np.ndarray]]:
    """Return what a tagger reads of each sentence, see `build_tagger`: token_ids, with <end> first, word_ends and characters; with
    `num_buckets` hashed features too.
    """
    spaced = [_with_spaces(words) for words in sentences]
    known = list(dict.fromkeys(chain.from_iterable(spaced)))
    tokens = {word: _without_middle(ids, _MAX_PIECES) for word, ids in zip(known, tokenizer.encode_batch(known), strict=True)}
    spellings = {word: _spelling(word) for word in dict.fromkeys(chain.from_iterable(sentences))}
    inputs: dict[str, list[np.ndarray]] = {"token_ids": [], "word_ends": [], "characters": []}
    for words, spaced_words in zip(sentences, spaced, strict=True):
        ids = [tokens[word] for word in spaced_words]
        inputs["token_ids"].append(np.concatenate([np.array([tokenizer.end_id], dtype="int32"), *ids]))
        inputs["word_ends"].append(np.cumsum([len(part) for part in ids], dtype="int32"))
        inputs["characters"].append(np.stack([spellings[word] for word in words]))
    if num_buckets:
        inputs["features"] = hash_words(sentences, num_buckets=num_buckets)
    return inputs


def settle(saved: SavedModel, scores: list[np.ndarray], codes: list[np.ndarray]) -> None:
    """Note the temperature and the caution that suit the scores of valid best."""
    saved.settings["temperature"] = fit_temperature(np.concatenate(scores), np.concatenate(codes))
    saved.settings["caution"] = _best_caution(scores, codes, saved.labels)


def _best(saved: SavedModel, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    return best_tags(saved, tag_scores(saved.model, saved.tokenizer, split_words(texts)))


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
        right, found, wanted = span_counts(tags, [names[row] for row in _decoded(scores, labels, caution)])[_COUNTS].sum()
        return 2 * right / max(1, found + wanted)

    return max(_CAUTION, key=f1)


def _examples(tokenizer: Tokenizer, frame: pd.DataFrame, labels: list[str]) -> Examples:
    """Return labelled sentences; of long ones pieces, in which the words at the edges are read but do not count."""
    sentences, targets = [], []
    for words, codes in zip(split_words(frame["tokens"]), tag_codes(frame["tags"], labels), strict=True):
        for start, stop, first, last in pieces_of(len(words)):
            place = np.arange(start, stop)
            sentences.append(words[start:stop])
            targets.append(np.where((place >= first) & (place < last), codes[start:stop], -1))
    return Examples(encode_sentences(tokenizer, sentences), targets, along="word_ends")


def pieces_of(num_words: int) -> list[tuple[int, int, int, int]]:
    """Return the pieces that a sentence is read in, as (start, stop, first word that counts, word behind the last that counts)."""
    pieces, start, first = [], 0, 0
    while True:
        stop = min(start + MAX_WORDS, num_words)
        last = num_words if stop == num_words else stop - _MARGIN
        pieces.append((start, stop, first, last))
        if last == num_words:
            return pieces
        start, first = last - _MARGIN, last


def _labels(tags: Sequence[str]) -> list[str]:
    """Return O and, of each type in the tags, B and I, whether both occur or not: a new text may need either."""
    kinds = sorted({tag[2:] for row in tags for tag in row.split(" ") if tag != "O"})
    if not kinds:
        raise ValueError("All tags in train are O, but a tagger needs one kind of entity at least. Add sentences with entities.")
    return ["O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]


def check_known_tags(tags: Sequence[str], labels: list[str], where: str, problem: str) -> None:
    """Raise ValueError for the first row with a tag that is no label."""
    known = set(labels)
    for row, sentence in enumerate(tags, 1):
        unknown = [tag for tag in sentence.split(" ") if tag not in known]
        if unknown:
            raise ValueError(
                f"{where} {row}: the tag {unknown[0]!r} {problem} {', '.join(labels[:10])}{' ...' if len(labels) > 10 else ''}. "
                "Correct its spelling or leave such rows out."
            )


def tag_codes(tags: Sequence[str], labels: list[str]) -> list[np.ndarray]:
    """Return the tags of each sentence, joined by spaces, as places among the labels."""
    places = {label: place for place, label in enumerate(labels)}
    return [np.array([places[tag] for tag in row.split(" ")], dtype="int64") for row in tags]


def split_words(texts: Sequence[str]) -> list[list[str]]:
    """Return the words of each text, in which they are joined by single spaces."""
    return [text.split(" ") for text in texts]


def _with_spaces(words: Sequence[str]) -> list[str]:
    """Return the words as they stand in running text, which the base was trained on: with a space before them, but for
    punctuation. A sentence all in capitals is read as a title, Like This; its spelling still says so.
    """
    if len(words) > 1 and " ".join(words).isupper():
        words = [word.capitalize() for word in words]
    spaced = [words[0] or " "]
    for before, word in pairwise(words):
        spaced.append(word if _CLOSING.fullmatch(word) or (word and before in _OPENING) else f" {word}")
    return spaced


def _without_middle(values: Any, size: int) -> Any:
    return values if len(values) <= size else np.concatenate([values[: size - size // 2], values[len(values) - size // 2 :]])


def _spelling(word: str) -> np.ndarray:
    """Return the character ids of a word, its bytes between two signs: int32, shape (MAX_CHARACTERS,)."""
    signs = _without_middle(np.frombuffer(word.encode(), dtype="uint8"), MAX_CHARACTERS - 2).astype("int32") + 1
    ids = np.zeros(MAX_CHARACTERS, dtype="int32")
    ids[: len(signs) + 2] = [_WORD_START, *signs, _WORD_END]
    return ids
