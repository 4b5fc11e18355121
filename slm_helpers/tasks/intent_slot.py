"""What a command wants and with which details: its intent, and a slot tag for each word, by one network. From columns to a trained model,
its scores and its predictions.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.data.schema import check_tags
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.intent_slot import frame_table
from slm_helpers.metrics.tagging import entity_table, spans_of
from slm_helpers.models.registry import backbone_config, load_backbone_weights
from slm_helpers.models.saved import SavedModel
from slm_helpers.models.taggers import build_intent_slot_model
from slm_helpers.tasks import token_classification as tag
from slm_helpers.tasks.base import Evaluation, put_beside, starting_tokenizer
from slm_helpers.text.hashing import hash_ngrams, hash_words, num_buckets_for
from slm_helpers.text.tagging import check_known_tags, encode_sentences, tag_codes, token_lists, window_targets, windows_of
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples, run_rows, softmax

import numpy as np
import pandas as pd

COLUMNS = ("tokens", "tags", "intent")


PREDICT_COLUMNS = ("tokens",)


_TAG_SHARES, _INTENT_SHARES = (0.6, 2.0), (0.7, 2.0)  # of network and linear model where there is no valid part to tell


_INTENT_WEIGHT = 5.0  # of the intent in the loss, against 1 of each word's tag: it is one of many places, and what an action hangs on


_FEW_ROWS = 2000  # commands of train below which copies with swapped slots are added


_PENALTY = 0.2  # of the weights of the linear model of tags


DEFAULT = TrainConfig(epochs=10, batch_size=32, learning_rate=4e-3, layer_decay=0.75)


def train(
    frame: pd.DataFrame,
    *,
    base: SavedModel | None,
    config: TrainConfig = TrainConfig(),
    dropout: float = 0.4,
    ngrams: bool = True,
    keep_valid: bool = False,
    copies: int | None = None,
) -> tuple[SavedModel, pd.DataFrame]:
    """Fine-tune one network for intents and slots on the columns tokens, tags (IOB2), intent and split.

    The loss of a command is that of its intent, weighed like five words, and those of all its words' tags together. Linear models
    are put beside both heads; the network returned adds their scores, in the shares that tell the intents and tags of valid best.

    Args:
        frame: From `load_dataset`; the split valid, if there, chooses the epoch, calibrates the confidence and balances
            precision and recall of slots.
        base: A language model to start from; None starts from random weights with a vocabulary of the training texts.
        config: Settings of the training.
        dropout: Share of activations dropped in training.
        ngrams: Put the linear models beside the network; else the network has to do alone.
        keep_valid: Keep the rows of valid from the linear models, which else learn from them in the end; see `add_ngrams`.
        copies: Copies of the commands of train with other slots to learn from too, see `swap_slots`; unless given, two where there are
            fewer than 2,000 commands, else none.

    Returns:
        The model with its tokeniser, labels (the tags) and settings (the intents among them), and the history of its training.

    Raises:
        ValueError: If tags are not well-formed or not as many as tokens, train has no slot or one intent only, a row has no
            intent, or another split has a tag that train lacks.
    """
    config = config.with_defaults(DEFAULT)
    labels, intents = check_rows(frame)
    known = frame[frame["split"] == "train"]
    copies = (2 if len(known) < _FEW_ROWS else 0) if copies is None else copies
    frame = pd.concat([frame, swap_slots(known, copies=copies, seed=config.seed)], ignore_index=True)
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    keras.utils.set_random_seed(config.seed)
    tokenizer = starting_tokenizer(base, parts["train"]["tokens"])
    shape = {"vocab_size": tokenizer.vocab_size, **tag.SCRATCH} if base is None else backbone_config(base.model)
    model = build_intent_slot_model(**shape, num_tags=len(labels), num_intents=len(intents), dropout=dropout)
    if base is not None:
        load_backbone_weights(model, base.model)
    saved = SavedModel(model=model, tokenizer=tokenizer, task="command", labels=labels, settings={"intents": intents})
    examples = {split: _examples(saved, rows) for split, rows in parts.items()}
    history = fit_examples(model, examples["train"], examples.get("valid"), config=config)
    if ngrams:
        return add_ngrams(saved, frame, balanced=config.class_weight == "balanced", keep_valid=keep_valid, seed=config.seed), history
    if "valid" in parts:
        tag_scores, intent_scores = command_scores(saved, parts["valid"]["tokens"])
        _settle(saved, tag_scores, intent_scores, parts["valid"])
    return saved, history


def swap_slots(rows: pd.DataFrame, *, copies: int, seed: int = 42) -> pd.DataFrame:
    """Return altered copies of commands, each slot in the words of a slot of the same type drawn from all of them.

    "Play jazz in the kitchen" teaches what "play folk in the cellar" would: where few commands are there, the words around a slot
    are learned apart from those in it. Only copies that differ from their command are returned.

    Args:
        rows: Commands with the columns tokens and tags (IOB2) and any others, which the copies keep.
        copies: Of each command.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    split = [(tokens.split(" "), tags.split(" ")) for tokens, tags in zip(rows["tokens"], rows["tags"], strict=True)]
    texts: dict[str, list[list[str]]] = {}
    for tokens, tags in split:
        for start, stop, kind in spans_of(tags):
            texts.setdefault(kind, []).append(tokens[start:stop])
    altered = []
    for _ in range(copies):
        for row, (tokens, tags) in enumerate(split):
            new_tokens, new_tags, done = [], [], 0
            for start, stop, kind in sorted(spans_of(tags)):
                drawn = texts[kind][rng.integers(len(texts[kind]))]
                new_tokens += tokens[done:start] + drawn
                new_tags += tags[done:start] + [f"B-{kind}"] + [f"I-{kind}"] * (len(drawn) - 1)
                done = stop
            new_tokens, new_tags = new_tokens + tokens[done:], new_tags + tags[done:]
            if new_tokens != tokens:
                altered.append((row, " ".join(new_tokens), " ".join(new_tags)))
    places = [row for row, *_ in altered]
    return rows.iloc[places].assign(tokens=[tokens for _, tokens, _ in altered], tags=[tags for *_, tags in altered])


def check_rows(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the tags and the intents that train has; warn of intents of other splits that it lacks, which cannot be found.

    Raises:
        ValueError: As `train` does.
    """
    labels = tag.check_rows(frame)
    empty = np.flatnonzero(frame["intent"].str.strip() == "")
    if len(empty):
        row = frame.iloc[empty[0]]
        raise ValueError(
            f"{row['split']}: the command {row['tokens'][:40]!r} has no intent. Fill in the column intent, or leave such rows out."
        )
    intents = sorted(frame.loc[frame["split"] == "train", "intent"].unique())
    if len(intents) < 2:
        raise ValueError(
            f"All commands in train have the intent {intents[0]!r}, but two intents are needed at least. Add commands of another."
        )
    _warn_of_unknown(frame.loc[frame["split"] != "train", "intent"], intents)
    return labels, intents


def add_ngrams(saved: SavedModel, frame: pd.DataFrame, *, balanced: bool = False, keep_valid: bool = False, seed: int = 42) -> SavedModel:
    """Put linear models beside both heads: on n-grams of the command for its intent, on features of each word for its tag.

    Args:
        saved: From `train` with ngrams=False; it stays as it is.
        frame: The rows it was trained on, with the split valid, which tells how much of either to add; without one both get a
            usual share.
        balanced: Every intent and every tag counts alike in the linear models, however many rows have it.
        keep_valid: Do without the rows of valid in the end. Else the linear models learn from them too once the shares are found, and
            a score on valid says nothing any more.
        seed: Of their solver.

    Returns:
        A model whose scores are the sums of both.
    """
    intents = saved.settings["intents"]
    # An intent that train lacks cannot be learned from; its command still has tags.
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    known = {split: rows["intent"].isin(intents).to_numpy() for split, rows in parts.items()}
    words = {split: token_lists(rows["tokens"]) for split, rows in parts.items()}
    codes = {split: tag_codes(rows["tags"], saved.labels) for split, rows in parts.items()}
    texts = {split: rows.loc[known[split], "tokens"].tolist() for split, rows in parts.items()}
    intent_codes = {split: rows.loc[known[split], "intent"].map(intents.index).to_numpy() for split, rows in parts.items()}
    network = command_scores(saved, parts["valid"]["tokens"]) if "valid" in parts else None
    shared = {"keep_valid": keep_valid, "balanced": balanced, "seed": seed}
    num_buckets = num_buckets_for(len(saved.labels))
    both, mixed_tags = put_beside(
        saved,
        build_intent_slot_model,
        {split: np.concatenate(hash_words(rows, num_buckets=num_buckets)) for split, rows in words.items()},
        {split: np.concatenate(rows) for split, rows in codes.items()},
        network_scores=np.concatenate(network[0]) if network else None,
        usual_shares=_TAG_SHARES,
        num_buckets=num_buckets,
        head="logits_tags",
        by_rarity=False,
        penalty=_PENALTY,
        **shared,
    )
    shares = both.settings["shares"]
    num_buckets = num_buckets_for(len(intents))
    both, mixed_intents = put_beside(
        both,
        build_intent_slot_model,
        {split: hash_ngrams(rows, num_buckets=num_buckets) for split, rows in texts.items()},
        intent_codes,
        network_scores=network[1][known["valid"]] if network else None,
        usual_shares=_INTENT_SHARES,
        num_buckets=num_buckets,
        head="logits_intent",
        table_layer="intent_ngram_scores",
        buckets="num_intent_buckets",
        num_classes=len(intents),
        **shared,
    )
    both.settings |= {"shares": shares, "intent_shares": both.settings["shares"]}
    both.settings.pop("intent_temperature", None)
    if network:
        ends = np.cumsum([len(row) for row in words["valid"]])[:-1]
        _settle(both, np.split(mixed_tags, ends), mixed_intents, parts["valid"][known["valid"]], codes["valid"])
    return both


def evaluate(saved: SavedModel, frame: pd.DataFrame) -> Evaluation:
    """Score a model on the columns tokens, tags and intent.

    Returns:
        intent_accuracy, slot_f1 (exact slots, over all commands together), frame_accuracy (intent and all tags right),
        slot_precision and slot_recall with 95 % intervals, and the tables intents (accuracy and rows of each) and slots
        (precision, recall, F1 and rows of each type). An intent that the model does not know counts as wrong.

    Raises:
        ValueError: If a tag is not one of the model's.
    """
    check_tags(frame)
    check_known_tags(frame["tags"], saved.labels, "row", "is unknown to this model, which knows")
    _warn_of_unknown(frame["intent"], saved.settings["intents"])
    wanted = list(zip(frame["intent"], frame["tags"], strict=True))
    found = [(intent, " ".join(tags)) for intent, tags, _ in read_commands(saved, frame["tokens"])]
    right = pd.DataFrame({"intent": frame["intent"].to_numpy(), "right": [a == b for (a, _), (b, _) in zip(wanted, found, strict=True)]})
    intents = right.groupby("intent")["right"].agg(["mean", "size"]).reset_index()
    intents.columns = ["intent", "accuracy", "rows"]
    slots = entity_table(*([tags.split(" ") for _, tags in frames] for frames in (wanted, found)))
    return Evaluation(rows=len(frame), metrics=frame_table(wanted, found), tables={"intents": intents, "slots": slots})


def predict(saved: SavedModel, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return prediction and confidence for rows with tokens, joined by single spaces.

    The prediction is a JSON object: {"intent": name, "slots": [{"slot": name, "text": words, "start": first word, "stop": word after
    the last}]}, words counted from 0. The confidence is the calibrated probability of the intent times that of the least certain tag.
    """
    texts = [row["tokens"] for row in rows]
    found = []
    for text, (intent, tags, confidence) in zip(texts, read_commands(saved, texts), strict=True):
        meant = {"intent": intent, "slots": slots_of(text.split(" "), tags)}
        found.append({"prediction": json.dumps(meant, ensure_ascii=False), "confidence": round(confidence, 4)})
    return found


def read_commands(saved: SavedModel, texts: Sequence[str]) -> list[tuple[str, list[str], float]]:
    """Return intent, tags (the best legal ones) and confidence of each command."""
    tag_scores, intent_scores = command_scores(saved, texts)
    probs = softmax(intent_scores.astype("float64") / saved.settings.get("intent_temperature", 1.0))
    found = []
    for row, (codes, tag_probs) in zip(probs, tag.best_tags(saved, tag_scores), strict=True):
        tags = [saved.labels[code] for code in codes]
        found.append((saved.settings["intents"][row.argmax()], tags, float(row.max() * tag_probs.min())))
    return found


def slots_of(words: Sequence[str], tags: Sequence[str]) -> list[dict[str, Any]]:
    """Return the slots of a command: dictionaries of slot, text, start and stop (places of words, from 0).

    Example:
        >>> slots_of(["ten", "minutes", "please"], ["B-duration", "I-duration", "O"])
        [{'slot': 'duration', 'text': 'ten minutes', 'start': 0, 'stop': 2}]
    """
    return [{"slot": kind, "text": " ".join(words[start:stop]), "start": start, "stop": stop} for start, stop, kind in spans_of(tags)]


def command_scores(saved: SavedModel, texts: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the logits of each command's words, shape (words, num_tags), and of its intent, (num_texts, num_intents).

    A command of more than `slm_helpers.text.tagging.MAX_WORDS` words is read in pieces; the first one tells the intent.
    """
    sentences, num_tags = token_lists(texts), len(saved.labels)
    pieces = [(row, *piece) for row, words in enumerate(sentences) for piece in windows_of(len(words))]
    inputs = encode_commands(saved, [sentences[row][start:stop] for row, start, stop, _, _ in pieces])
    tags: list[list[np.ndarray]] = [[] for _ in sentences]
    intents = np.zeros((len(sentences), len(saved.settings["intents"])), dtype="float32")
    for (row, start, stop, first, last), scores in zip(
        pieces, run_rows(saved.model, inputs, along="word_ends", batch_size=64), strict=True
    ):
        tags[row].append(scores[first - start : last - start, :num_tags])
        if start == 0:
            intents[row] = scores[stop, num_tags:]
    return [np.concatenate(parts) for parts in tags], intents


def encode_commands(saved: SavedModel, sentences: Sequence[Sequence[str]]) -> dict[str, list[np.ndarray]]:
    """Return what `build_intent_slot_model` reads of each command: what a tagger reads, with one more place, and its n-grams."""
    layers = {layer.name: layer for layer in saved.model.layers}
    beside = [layers[name].num_buckets if name in layers else 0 for name in ("ngram_scores", "intent_ngram_scores")]
    inputs = encode_sentences(saved.tokenizer, sentences, num_buckets=beside[0])
    inputs["word_ends"] = [np.append(ends, ends[-1]) for ends in inputs["word_ends"]]
    for name in ("characters", "features"):
        if name in inputs:
            inputs[name] = [np.pad(rows, ((0, 1), (0, 0))) for rows in inputs[name]]
    if beside[1]:
        inputs["ngrams"] = hash_ngrams([" ".join(words) for words in sentences], num_buckets=beside[1])
    return inputs


def _settle(
    saved: SavedModel,
    tag_scores: list[np.ndarray],
    intent_scores: np.ndarray,
    rows: pd.DataFrame,
    codes: list[np.ndarray] | None = None,
) -> None:
    """Note the temperatures and the caution that suit the scores of valid best."""
    tag.settle(saved, tag_scores, codes if codes is not None else tag_codes(rows["tags"], saved.labels))
    known = rows["intent"].isin(saved.settings["intents"]).to_numpy()
    if known.any():
        targets = rows.loc[known, "intent"].map(saved.settings["intents"].index).to_numpy()
        saved.settings["intent_temperature"] = fit_temperature(intent_scores[known], targets)


def _examples(saved: SavedModel, rows: pd.DataFrame) -> Examples:
    """Return labelled commands, long ones in pieces; the last target is the intent, which does not count if it is unknown."""
    sentences, targets = [], []
    codes = tag_codes(rows["tags"], saved.labels)
    places = {intent: len(saved.labels) + place for place, intent in enumerate(saved.settings["intents"])}
    for words, row, intent in zip(token_lists(rows["tokens"]), codes, rows["intent"], strict=True):
        for window, window_codes in window_targets(row):
            sentences.append(words[window])
            targets.append(np.append(window_codes, places.get(intent, -1)))
    weights = [np.append(np.ones(len(target) - 1), _INTENT_WEIGHT) for target in targets]
    return Examples(encode_commands(saved, sentences), targets, along="word_ends", target_weights=weights)


def _warn_of_unknown(found: pd.Series, intents: Sequence[str]) -> None:
    unknown = found[~found.isin(intents)]
    if len(unknown):
        warnings.warn(
            f"{len(unknown)} command(s) have an intent that train lacks ({', '.join(sorted(set(unknown))[:5])}); they count as wrong.",
            stacklevel=3,
        )
