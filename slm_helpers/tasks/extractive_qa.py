"""Answers that stand in a passage: a span of it, or "no answer" (extractive question answering)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slm_helpers.metrics.classification import fit_confidence
from slm_helpers.metrics.question_answering import exact_matches
from slm_helpers.tasks.base import Evaluation, Task, starting_tokenizer
from slm_helpers.tasks.closed_book_qa import ClosedBookQA, calibrated_answers, qa_evaluation
from slm_helpers.tasks.cloze import make_cloze
from slm_helpers.tasks.reading import NUM_FEATURES, Reading, answer_examples, describe_examples
from slm_helpers.tasks.spans import SHARES, SHARES_ALONE, best_answers, fit_shares, fit_span_model, longest_answer, score_spans
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers._backend import keras
    from slm_helpers.models.saved import SavedModel
    from slm_helpers.text.tokenizers import Tokenizer
    from slm_helpers.training.batches import Examples

SCRATCH = {"embedding_dim": 128, "units": 192}  # size of a network without a base
_MAX_CACHED = 800_000  # tokens of passages whose states are cached in training, some 1.5 kB each


class ExtractiveQA(Task):
    """Find the answer to a question in a passage, or say that it holds none.

    A network scores each span as first and last word; it first learns on questions made of the training passages themselves, where
    a sentence with a gap is the question and what stood there the answer (Dhingra et al. 2018). A log-linear model of features of
    spans is fitted beside it; the score of an answer is the weighted sum of both, with the weights that make the answers of valid
    most probable.

    Rows have context, question, answer ("" for no answer) and answer_start (-1 if unknown).

    Args:
        base: A language model to start from, an earlier reader to go on with, e.g. "slm-reader-en", or None for random weights.
        dropout: Share of activations dropped in training.
        num_cloze: Questions made of the training passages; 0 for none.
        features: Combine the network with the linear model of features; else it has to do alone.
        train_base: Let the layers of the base learn too. Else they stay as they are, and what they make of each text is computed
            once for all passes, which is many times faster.
        epochs, batch_size, learning_rate, max_seconds, config, seed: As in `Task`.

    Example:
        >>> model = ExtractiveQA(base=None, epochs=1, num_cloze=0)
        >>> rows = [{"context": f"{name} has a cat.", "question": "Who has a cat?", "answer": name} for name in ("Ann", "Tom") * 8]
        >>> answers = model.fit(rows).predict(rows[:2])

    Reference:
        Dhingra et al. (2018), "Simple and Effective Semi-Supervised Question Answering", arXiv:1804.00720.
    """

    task: ClassVar[str] = "answer"
    columns: ClassVar[tuple[str, ...]] = ("context", "question", "answer", "answer_start")
    target: ClassVar[str] = "answer"
    predict_columns: ClassVar[tuple[str, ...]] = ("context", "question")
    optional: ClassVar[dict[str, Any]] = {"answer_start": -1}
    may_be_empty: ClassVar[tuple[str, ...]] = ("context",)
    base_tasks: ClassVar[tuple[str, ...]] = ("lm", "answer")
    default_config: ClassVar[TrainConfig] = TrainConfig(epochs=20, batch_size=16, learning_rate=2e-3, layer_decay=0.85, patience=5)

    def __init__(
        self,
        base: Any = "slm-base-en",
        *,
        dropout: float = 0.4,
        num_cloze: int = 1500,
        features: bool = True,
        train_base: bool = False,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base, self.dropout, self.num_cloze, self.features, self.train_base = base, dropout, num_cloze, features, train_base
        self.epochs, self.batch_size, self.learning_rate, self.max_seconds = epochs, batch_size, learning_rate, max_seconds
        self.config, self.seed = config, seed

    def for_frame(self, frame: pd.DataFrame) -> Task:
        """Return this estimator, or one that answers from memory if no row has a context."""
        if (frame["context"] != "").any():
            return self
        names = ("base", "dropout", "epochs", "batch_size", "learning_rate", "max_seconds", "config", "seed")
        return ClosedBookQA(**{name: getattr(self, name) for name in names}, ngrams=self.features)

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Task:
        """Return a fitted estimator around an opened model: a ClosedBookQA if that is what the model is."""
        return ClosedBookQA.from_saved(saved) if saved.settings["form"] == "facts" else super().from_saved(saved)

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if a row has no context."""
        empty = (frame["context"] == "").to_numpy()
        if empty.all():
            raise ValueError("No row has a context. To answer from memory, without passages, use ClosedBookQA.")
        if empty.any():
            raise ValueError(
                f"{empty.sum()} of {len(frame)} rows have no context, e.g. row {int(np.flatnonzero(empty)[0]) + 1} "
                f"({frame['question'].iloc[int(np.flatnonzero(empty)[0])]!r:.60}). One model either reads passages or answers from "
                "memory: put the rows with an empty context into a file of their own and train a model on each file."
            )

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks):
        started = time.perf_counter()
        parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
        contexts = list(dict.fromkeys(parts["train"]["context"]))
        tokenizer = starting_tokenizer(base, [*contexts, *parts["train"]["question"]])
        model = new_reader(base, tokenizer, dropout=self.dropout)
        reading = Reading(tokenizer)
        train = answer_examples(reading, parts["train"], name="train")
        valid = answer_examples(reading, parts["valid"], name="valid", same_length=True) if "valid" in parts else None
        cached = None if self.train_base or base is None else {}
        rounds = [None if checkpoint_dir is None else Path(checkpoint_dir) / name for name in ("cloze", "questions")]
        if self.num_cloze and (base is None or base.task != self.task):
            first = replace(config, epochs=2, patience=0, frozen=(), max_seconds=config.max_seconds / 3)
            none_share = float((parts["train"]["answer"] == "").mean())
            cloze = make_cloze(contexts, num_rows=self.num_cloze, none_share=none_share, seed=config.seed)
            fit_reader(model, answer_examples(reading, cloze, name="cloze"), None, config=first, cached=cached, checkpoint_dir=rounds[0])
        if config.max_seconds:  # the linear model needs some of the time too
            left = (0.85 if self.features else 1.0) * config.max_seconds - (time.perf_counter() - started)
            config = replace(config, max_seconds=max(0.01, left))
        history = fit_reader(model, train, valid, config=config, cached=cached, checkpoint_dir=rounds[1], callbacks=callbacks)
        saved = _as_reader(model, tokenizer, parts["train"])
        if self.features:
            return add_features(saved, frame, seed=config.seed), history
        return _calibrate(saved, parts.get("valid")), history

    def add_features(self, frame: pd.DataFrame) -> ExtractiveQA:
        """Return an estimator that combines the network of this one with the linear model of features; `fit` does it unless told not to.

        Args:
            frame: The rows it was trained on; the split valid, if there, chooses the weights of the two.
        """
        other = type(self)(**self.get_params(deep=False) | {"features": True})
        other.saved_ = add_features(self._fitted(), frame, seed=self.seed)
        return other

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with context, question and answer.

        Returns:
            exact_match and token_f1 in the manner of SQuAD with 95 % intervals over questions; no_answer_recall, where there are
            questions without an answer: the share of them that it leaves unanswered. With a column kind, the table kinds:
            exact_match and token_f1 for each.

        Raises:
            ValueError: If a row has no context.
        """
        return qa_evaluation(frame, _answers(self._fitted(), frame.to_dict("records"))[0])

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction ("" for no answer) and confidence (calibrated probability of a match) for rows with context and question."""
        saved = self._fitted()
        return calibrated_answers(saved, *_answers(saved, rows))


def add_features(saved: SavedModel, frame: pd.DataFrame, *, seed: int = 42) -> SavedModel:
    """Return a reader with the log-linear model of features of spans beside its network, see `ExtractiveQA.add_features`."""
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    settings = saved.settings | fit_span_model(saved.tokenizer, parts["train"], seed=seed) | {"shares": SHARES}
    return _calibrate(replace(saved, settings=settings), parts.get("valid"))


def new_reader(base: SavedModel | None, tokenizer: Tokenizer, *, dropout: float = 0.4) -> keras.Model:
    """Build a reader with the weights of a base, a language model or an earlier reader, or with random ones.

    Args:
        base: Stays as it is.
        tokenizer: That of the base, if there is one.
        dropout: Share of activations dropped in training.
    """
    from slm_helpers.models.reader import build_span_extractor
    from slm_helpers.models.registry import backbone_config, load_backbone_weights

    if base is None:
        return build_span_extractor(tokenizer.vocab_size, num_features=NUM_FEATURES, dropout=dropout, **SCRATCH)
    if base.task == ExtractiveQA.task:
        model = build_span_extractor(**json.loads(base.model.builder_config)["arguments"] | {"dropout": dropout})
        model.set_weights(base.model.get_weights())
        return model
    model = build_span_extractor(**backbone_config(base.model), num_features=NUM_FEATURES, dropout=dropout)
    load_backbone_weights(model, base.model)
    return model


def fit_reader(
    model: keras.Model,
    train: Examples,
    valid: Examples | None,
    *,
    config: TrainConfig,
    cached: dict[bytes, tuple[np.ndarray, np.ndarray]] | None,
    checkpoint_dir: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> pd.DataFrame:
    """Train a reader, its weights are changed in place; returns the history of `fit_examples`.

    Args:
        model: From `new_reader`.
        train: From `answer_examples`, as is valid.
        valid: Chooses the epoch; None for none.
        config: Settings of the training.
        cached: The layers of the language model stay as they are, and what they make of texts is kept here, empty to begin with;
            None trains all layers. So it is with very many passages, which would fill the memory; these layers are frozen then.
        checkpoint_dir: Folder from which a run that was cut off goes on.
        callbacks: Keras callbacks.
    """
    from slm_helpers._backend import cached_on
    from slm_helpers.models.reader import make_span_head
    from slm_helpers.training.finetune import fit_examples

    resume = {"checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
    if cached is None:
        return fit_examples(model, train, valid, config=config, **resume)
    num_tokens = sum({ids.tobytes(): len(ids) for part in (train, valid) if part is not None for ids in part.inputs["passage"]}.values())
    config = replace(config, layer_decay=1.0, frozen=())
    if num_tokens > _MAX_CACHED:
        return fit_examples(model, train, valid, config=replace(config, frozen=_layers_of_language_model(model)), **resume)
    described = [examples and describe_examples(model, examples, cached) for examples in (train, valid)]
    return fit_examples(cached_on(model, "reader_head", lambda: make_span_head(model)), *described, config=config, **resume)


def finish_reader(model: keras.Model, tokenizer: Tokenizer, frame: pd.DataFrame) -> SavedModel:
    """Return a trained network as a reader, without features, its weights and confidence fitted to the split valid of `frame`."""
    return _calibrate(_as_reader(model, tokenizer, frame[frame["split"] == "train"]), frame[frame["split"] == "valid"])


def _layers_of_language_model(reader: keras.Model) -> tuple[str, ...]:
    arguments = json.loads(reader.builder_config)["arguments"]
    return ("embedding", *(f"{arguments['cell']}_{i}" for i in range(arguments["num_layers"])))


def _as_reader(model: keras.Model, tokenizer: Tokenizer, train: pd.DataFrame) -> SavedModel:
    from slm_helpers.models.saved import SavedModel

    settings = {"form": "span", "no_answer": bool((train["answer"] == "").any()), "shares": SHARES_ALONE}
    return SavedModel(model=model, tokenizer=tokenizer, task="answer", settings=settings | {"max_words": longest_answer(train)})


def _calibrate(saved: SavedModel, valid: pd.DataFrame | None) -> SavedModel:
    """Fit to valid the weights of network and features, what to add for no answer, and the confidence of answers."""
    if valid is None:
        return saved
    rows = valid.to_dict("records")
    shares = fit_shares(score_spans(saved, rows), rows, start=saved.settings["shares"])
    saved = replace(saved, settings=saved.settings | {"shares": shares})
    answers, probs = _answers(saved, rows)
    confidence = fit_confidence(probs, exact_matches(valid["answer"].tolist(), answers))
    return replace(saved, settings=saved.settings | {"confidence": confidence})


def _answers(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the best answer to each question and its probability, not yet calibrated."""
    for number, row in enumerate(rows, 1):
        if not row["context"]:
            raise ValueError(
                f"row {number}: the question {row['question'][:60]!r} comes without a context, but this model reads the answer in a "
                "passage. Give its context, or use a model trained on such rows."
            )
    return best_answers(saved, rows) if len(rows) else ([], np.zeros(0))
