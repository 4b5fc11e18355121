"""What a command wants and with which details: its intent, and a slot tag for each word, by one network."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_helpers._numerics import softmax
from slm_helpers.data.schema import check_tags
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.intent_slot import frame_table
from slm_helpers.metrics.tagging import entity_table, spans_of
from slm_helpers.tasks.base import Evaluation, Task, add_linear_head, starting_tokenizer, train_and_valid
from slm_helpers.tasks.token_classification import (
    add_linear_tag_head,
    as_sentences,
    build_on_base,
    calibrate_tags,
    check_tagged,
    decode_tags,
    joined_tokens,
    run_windows,
)
from slm_helpers.text.hashing import hash_ngrams, num_buckets_for
from slm_helpers.text.tagging import check_known_tags, encode_sentences, iob_labels, tag_codes, token_lists, window_targets
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers.models.saved import SavedModel
    from slm_helpers.training.batches import Examples

_INTENT_WEIGHTS = (0.7, 2.0)  # of network and linear model where there is no valid part to fit them
_INTENT_LOSS_WEIGHT = 5.0  # against 1 of each word's tag: it is one of many positions, and what an action depends on
_FEW_ROWS = 2000  # commands of train below which copies with swapped slots are added


class IntentSlotParser(Task):
    """The intent of a command, and its slots: a tag (IOB2) for each word.

    One recurrent network scores both; the loss of a command is that of its intent, with the weight of five words, and that of all its
    words' tags together. The logits of both heads are combined with those of linear models, with the weights that predict the intents
    and tags of valid best. Commands are strings in which words are joined by single spaces, or lists of tokens.

    Args:
        base: A language model to start from (folder, name, SavedModel, fitted estimator); None starts from random weights with a
            vocabulary of the training commands.
        epochs: Passes over train at most; None: 10.
        batch_size: Commands in an update; None: 32.
        learning_rate: The highest, of the heads; None: 0.004.
        max_seconds: End the training of the network after this time; None: no limit.
        class_weight: "balanced" gives every intent and every tag the same weight in the linear models.
        ngrams: Add the linear models; else the network alone.
        dropout: Share of activations dropped in training.
        num_copies: Copies of each command of train with other slots to learn from too, see `swap_slots`; None: two where there are
            fewer than 2,000 commands, else none.
        config: Other settings of the training.
        seed: Of order, dropout, weights and copies.

    Example:
        >>> parser = IntentSlotParser(base=None, epochs=1)
        >>> parser = parser.fit(["ring Bo", "stop now"] * 20, [("call", "O B-who"), ("stop", "O O")] * 20)
        >>> parser.predict(["ring Bo"])[0]["slots"]
        [{'slot': 'who', 'text': 'Bo', 'start': 1, 'stop': 2}]

    Reference:
        Liu and Lane (2016), "Attention-Based Recurrent Neural Network Models for Joint Intent Detection and Slot Filling",
        arXiv:1609.01454.
    """

    task = "command"
    columns = ("tokens", "tags", "intent")
    predict_columns = ("tokens",)
    default_config = TrainConfig(epochs=10, batch_size=32, learning_rate=4e-3, layer_decay=0.75)

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
        num_copies: int | None = None,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base, self.ngrams, self.dropout, self.num_copies = base, ngrams, dropout, num_copies
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.max_seconds, self.class_weight, self.config, self.seed = max_seconds, class_weight, config, seed

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError for wrong tags, no slot or one intent only in train, or a row without intent."""
        check_tagged(frame)
        empty = np.flatnonzero(frame["intent"].str.strip() == "")
        if len(empty):
            row = frame.iloc[empty[0]]
            raise ValueError(
                f"{row['split']}: the command {row['tokens'][:40]!r} has no intent. Fill in the column intent, or leave such rows out."
            )
        intents = intents_of(frame)
        if len(intents) < 2:
            raise ValueError(
                f"All commands in train have the intent {intents[0]!r}, but two intents are needed at least. Add commands of another."
            )
        _warn_of_unknown(frame.loc[frame["split"] != "train", "intent"], intents)

    def predict(self, X: Any) -> list[dict[str, Any]]:
        """Return for each command a dict of intent, slots, tags (one a word) and confidence.

        Slots are those of `slots_of`. The confidence is the calibrated probability of the intent times that of the least certain tag.
        """
        saved, words = self._fitted(), token_lists([row["tokens"] for row in self._rows(X)])
        logits, intent_logits = command_logits(saved, words)
        parsed = []
        for tokens, probs, (codes, tag_probs) in zip(words, self._intent_probs(intent_logits), decode_tags(saved, logits), strict=True):
            tags = [saved.labels[code] for code in codes]
            confidence = float(probs.max() * tag_probs.min(initial=1.0))
            parsed.append({"intent": saved.settings["intents"][probs.argmax()], "slots": slots_of(tokens, tags), "tags": tags})
            parsed[-1]["confidence"] = confidence
        return parsed

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the calibrated probability of each intent (`classes_`) for each command: shape (num_commands, num_intents)."""
        return self._intent_probs(command_logits(self._fitted(), token_lists([row["tokens"] for row in self._rows(X)]))[1])

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction, a JSON object {"intent": ..., "slots": [...]}, and confidence for rows with tokens; see `predict`."""
        found = []
        for row in self.predict([row["tokens"] for row in rows]):
            meaning = json.dumps({name: row[name] for name in ("intent", "slots")}, ensure_ascii=False)
            found.append({"prediction": meaning, "confidence": round(row["confidence"], 4)})
        return found

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with tokens, tags and intent.

        Returns:
            intent_accuracy, slot_f1 (exact slots, over all commands together), frame_accuracy (intent and all tags right),
            slot_precision and slot_recall with 95 % intervals, and the tables intents (accuracy and rows of each) and slots
            (precision, recall, F1 and rows of each type). An intent that the model does not know counts as wrong.

        Raises:
            ValueError: If a tag is not one of the model's.
        """
        saved = self._fitted()
        check_tags(frame)
        check_known_tags(frame["tags"], saved.labels, "row", "is unknown to this model, which knows")
        _warn_of_unknown(frame["intent"], saved.settings["intents"])
        references = list(zip(frame["intent"], frame["tags"], strict=True))
        predictions = [(row["intent"], " ".join(row["tags"])) for row in self.predict(frame)]
        hits = pd.DataFrame(
            {"intent": frame["intent"].to_numpy(), "hit": [a[0] == b[0] for a, b in zip(references, predictions, strict=True)]}
        )
        intents = hits.groupby("intent")["hit"].agg(accuracy="mean", rows="size").reset_index()
        slots = entity_table(*([tags.split(" ") for _, tags in frames] for frames in (references, predictions)))
        return Evaluation(rows=len(frame), metrics=frame_table(references, predictions), tables={"intents": intents, "slots": slots})

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks) -> tuple[SavedModel, pd.DataFrame]:
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.models.taggers import build_intent_slot_model
        from slm_helpers.training.finetune import fit_examples

        frame = self._with_copies(frame)
        parts = train_and_valid(frame)
        labels, intents = iob_labels(parts["train"]["tags"]), intents_of(frame)
        tokenizer = starting_tokenizer(base, parts["train"]["tokens"])
        sizes = {"num_tags": len(labels), "num_intents": len(intents), "dropout": self.dropout}
        model = build_on_base(build_intent_slot_model, base, tokenizer.vocab_size, **sizes)
        saved = SavedModel(model=model, tokenizer=tokenizer, task=self.task, labels=labels, settings={"intents": intents})
        examples = {split: _examples(saved, rows) for split, rows in parts.items()}
        options = {"checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
        history = fit_examples(model, examples["train"], examples.get("valid"), config=config, **options)
        if "valid" in parts and not self.ngrams:
            logits, intent_logits = command_logits(saved, token_lists(parts["valid"]["tokens"]))
            calibrate_tags(saved, logits, tag_codes(parts["valid"]["tags"], labels))
            known = parts["valid"]["intent"].isin(intents).to_numpy()
            _calibrate_intent(saved, intent_logits[known], parts["valid"].loc[known, "intent"])
        return saved, history

    def _with_copies(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows with altered copies of the commands of train."""
        train = frame[frame["split"] == "train"]
        num_copies = (2 if len(train) < _FEW_ROWS else 0) if self.num_copies is None else self.num_copies
        return pd.concat([frame, swap_slots(train, num_copies=num_copies, seed=self.seed)], ignore_index=True)

    def _with_linear_model(self, frame: pd.DataFrame, *, keep_valid: bool) -> SavedModel:
        from slm_helpers.models.taggers import build_intent_slot_model

        parts = train_and_valid(self._with_copies(frame))
        logits = command_logits(self.saved_, token_lists(parts["valid"]["tokens"])) if "valid" in parts else (None, None)
        options = {"keep_valid": keep_valid, "class_weight": self.training_config().class_weight, "seed": self.seed}
        both, tag_logits = add_linear_tag_head(self.saved_, build_intent_slot_model, parts, logits[0], head="logits_tags", **options)
        tag_weights = both.settings["ensemble_weights"]
        both, intent_logits = _add_linear_intent_head(both, parts, logits[1], **options)
        both.settings |= {"ensemble_weights": tag_weights, "intent_ensemble_weights": both.settings["ensemble_weights"]}
        both.settings.pop("intent_temperature", None)
        if "valid" in parts:
            calibrate_tags(both, tag_logits, tag_codes(parts["valid"]["tags"], both.labels))
            _calibrate_intent(both, intent_logits, _with_known_intent(both, parts["valid"])["intent"])
        return both

    def _intent_probs(self, logits: np.ndarray) -> np.ndarray:
        return softmax(logits.astype("float64") / self.saved_.settings.get("intent_temperature", 1.0))

    def _learned(self) -> None:
        self.classes_ = np.array(self.saved_.settings["intents"], dtype=object)

    def _table(self, X: Any) -> pd.DataFrame:
        """Return X as a table, tokens joined by spaces; commands may be lists of tokens."""
        return joined_tokens(super()._table(as_sentences(X)), "tokens", "tags")

    def _frame(self, X: Any, y: Any = None) -> pd.DataFrame:
        """Return X and y as one table; y holds pairs of an intent and tags, or a table of intent and tags."""
        frame = self._table(X)
        if y is None:
            return frame
        y = y if isinstance(y, pd.DataFrame) else pd.DataFrame(list(y), columns=None if _are_dicts(y) else ["intent", "tags"])
        if len(y) != len(frame):
            raise ValueError(f"X has {len(frame)} rows and y {len(y)}. Give one pair of an intent and tags for each command.")
        self._check_columns(y, [name for name in ("intent", "tags") if name not in y])
        return joined_tokens(frame.assign(intent=y["intent"].to_numpy(), tags=y["tags"].to_numpy()), "tags")


def intents_of(frame: pd.DataFrame) -> list[str]:
    """Return the intents that train has, sorted."""
    return sorted(frame.loc[frame["split"] == "train", "intent"].unique())


def swap_slots(rows: pd.DataFrame, *, num_copies: int, seed: int = 42) -> pd.DataFrame:
    """Return altered copies of commands, each slot in the words of a slot of the same type drawn from all of them.

    "Play jazz in the kitchen" teaches what "play folk in the cellar" would: where there are few commands, the words around a slot
    are learned apart from those in it. Only copies that differ from their command are returned.

    Args:
        rows: Commands with the columns tokens and tags (IOB2) and any others, which the copies keep.
        num_copies: Of each command.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    commands = list(zip(token_lists(rows["tokens"]), token_lists(rows["tags"]), strict=True))
    texts: dict[str, list[list[str]]] = {}
    for tokens, tags in commands:
        for start, stop, kind in spans_of(tags):
            texts.setdefault(kind, []).append(tokens[start:stop])
    altered = []
    for _ in range(num_copies):
        for row, (tokens, tags) in enumerate(commands):
            new_tokens, new_tags, done = [], [], 0
            for start, stop, kind in sorted(spans_of(tags)):
                drawn = texts[kind][rng.integers(len(texts[kind]))]
                new_tokens += tokens[done:start] + drawn
                new_tags += tags[done:start] + [f"B-{kind}"] + [f"I-{kind}"] * (len(drawn) - 1)
                done = stop
            new_tokens, new_tags = new_tokens + tokens[done:], new_tags + tags[done:]
            if new_tokens != tokens:
                altered.append((row, " ".join(new_tokens), " ".join(new_tags)))
    originals = rows.iloc[[row for row, *_ in altered]]
    return originals.assign(tokens=[tokens for _, tokens, _ in altered], tags=[tags for *_, tags in altered])


def slots_of(words: Sequence[str], tags: Sequence[str]) -> list[dict[str, Any]]:
    """Return the slots of a command: dicts of slot (its type), text, start (its first word, from 0) and stop (the word after its last).

    Example:
        >>> slots_of(["ten", "minutes", "please"], ["B-duration", "I-duration", "O"])
        [{'slot': 'duration', 'text': 'ten minutes', 'start': 0, 'stop': 2}]
    """
    return [{"slot": kind, "text": " ".join(words[start:stop]), "start": start, "stop": stop} for start, stop, kind in spans_of(tags)]


def command_logits(saved: SavedModel, sentences: Sequence[Sequence[str]]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the logits of each command's words, shape (num_words, num_tags), and of its intent, (num_commands, num_intents).

    A command that is longer than a window (`slm_helpers.text.tagging.MAX_WORDS`) is read in several; the first one gives the intent.
    """
    num_tags = len(saved.labels)
    tags: list[list[np.ndarray]] = [[np.zeros((0, num_tags), dtype="float32")] for _ in sentences]
    intents = np.zeros((len(sentences), len(saved.settings["intents"])), dtype="float32")
    for row, (start, stop, first, last), scores in run_windows(saved, sentences, lambda windows: encode_commands(saved, windows)):
        tags[row].append(scores[first - start : last - start, :num_tags])
        if start == 0:
            intents[row] = scores[stop, num_tags:]
    return [np.concatenate(parts) for parts in tags], intents


def encode_commands(saved: SavedModel, sentences: Sequence[Sequence[str]]) -> dict[str, list[np.ndarray]]:
    """Return what the network reads of each command: what a tagger reads, with one more position for the intent, and n-grams."""
    num_buckets = [saved.arguments.get(name, 0) for name in ("num_buckets", "num_intent_buckets")]
    inputs = encode_sentences(saved.tokenizer, sentences, num_buckets=num_buckets[0])
    inputs["word_ends"] = [np.append(ends, ends[-1]) for ends in inputs["word_ends"]]
    for name in ("characters", "features"):
        if name in inputs:
            inputs[name] = [np.pad(rows, ((0, 1), (0, 0))) for rows in inputs[name]]
    if num_buckets[1]:
        inputs["ngrams"] = hash_ngrams([" ".join(words) for words in sentences], num_buckets=num_buckets[1])
    return inputs


def _with_known_intent(saved: SavedModel, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose intent the model knows: from others its intent head cannot learn."""
    return rows[rows["intent"].isin(saved.settings["intents"])]


def _add_linear_intent_head(
    saved: SavedModel, parts: dict[str, pd.DataFrame], network_logits: np.ndarray | None, **options: Any
) -> tuple[SavedModel, np.ndarray | None]:
    """Combine the logits of intents with a linear model on the n-grams of a command, see `add_linear_head`."""
    from slm_helpers.models.taggers import build_intent_slot_model

    intents = saved.settings["intents"]
    num_buckets, known = num_buckets_for(len(intents)), {split: _with_known_intent(saved, rows) for split, rows in parts.items()}
    if network_logits is not None:
        network_logits = network_logits[parts["valid"]["intent"].isin(intents).to_numpy()]
    return add_linear_head(
        saved,
        build_intent_slot_model,
        {split: hash_ngrams(rows["tokens"].tolist(), num_buckets=num_buckets) for split, rows in known.items()},
        {split: rows["intent"].map(intents.index).to_numpy() for split, rows in known.items()},
        network_logits=network_logits,
        default_weights=_INTENT_WEIGHTS,
        num_buckets=num_buckets,
        head="logits_intent",
        table_layer="intent_ngram_scores",
        buckets_argument="num_intent_buckets",
        num_classes=len(intents),
        **options,
    )


def _calibrate_intent(saved: SavedModel, logits: np.ndarray, intents: pd.Series) -> None:
    """Note in the settings the temperature that suits the logits of the intents of valid best."""
    if len(intents):
        saved.settings["intent_temperature"] = fit_temperature(logits, intents.map(saved.settings["intents"].index).to_numpy())


def _examples(saved: SavedModel, rows: pd.DataFrame) -> Examples:
    """Return labelled commands, long ones in windows; the last target is the intent, which does not count if it is unknown."""
    from slm_helpers.training.batches import Examples

    sentences, targets = [], []
    codes = tag_codes(rows["tags"], saved.labels)
    index = {intent: len(saved.labels) + code for code, intent in enumerate(saved.settings["intents"])}
    for words, row, intent in zip(token_lists(rows["tokens"]), codes, rows["intent"], strict=True):
        for window, window_codes in window_targets(row):
            sentences.append(words[window])
            targets.append(np.append(window_codes, index.get(intent, -1)))
    weights = [np.append(np.ones(len(target) - 1), _INTENT_LOSS_WEIGHT) for target in targets]
    return Examples(encode_commands(saved, sentences), targets, along="word_ends", target_weights=weights)


def _are_dicts(rows: Any) -> bool:
    return bool(len(rows)) and all(isinstance(row, dict) for row in rows)


def _warn_of_unknown(intents: pd.Series, known: Sequence[str]) -> None:
    unknown = intents[~intents.isin(known)]
    if len(unknown):
        warnings.warn(
            f"{len(unknown)} command(s) have an intent that train lacks ({', '.join(sorted(set(unknown))[:5])}); they count as wrong.",
            stacklevel=3,
        )
