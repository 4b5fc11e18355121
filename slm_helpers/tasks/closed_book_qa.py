"""Answers from memory, without a passage: a classifier of questions whose classes are the training answers (closed-book QA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from slm_helpers._numerics import softmax
from slm_helpers.metrics.classification import fit_confidence, logit
from slm_helpers.metrics.question_answering import answer_table, exact_matches, token_f1_scores
from slm_helpers.tasks.base import Evaluation, Task, starting_tokenizer
from slm_helpers.tasks.reading import warn_of
from slm_helpers.tasks.text_classification import add_ngrams, new_classifier, text_scores
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers.models.saved import SavedModel


class ClosedBookQA(Task):
    """Answer questions from memory: learn the training answers and choose among them.

    Rows have question and answer. A linear model on n-grams of the question is combined with the network, with the weights that
    make the answers of valid most probable.

    Args:
        base: A language model to start from, or None for random weights.
        dropout: Share of activations dropped in training.
        ngrams: Combine the network with the linear model; else it has to do alone.
        epochs, batch_size, learning_rate, max_seconds, config, seed: As in `Task`.

    Example:
        >>> model = ClosedBookQA(base=None, epochs=1)
        >>> model = model.fit(["Capital of Peru?", "Capital of Chile?"] * 8, ["Lima", "Santiago"] * 8)
        >>> answers = model.predict(["Which city is the capital of Peru?"])
    """

    task: ClassVar[str] = "answer"
    columns: ClassVar[tuple[str, ...]] = ("question", "answer")
    target: ClassVar[str] = "answer"
    predict_columns: ClassVar[tuple[str, ...]] = ("question", "context")
    predict_optional: ClassVar[dict[str, Any]] = {"context": ""}
    may_be_empty: ClassVar[tuple[str, ...]] = ("context",)
    limits: ClassVar[str] = "It knows the answers of its training rows only, and answers all questions with one of them."
    default_config: ClassVar[TrainConfig] = TrainConfig(epochs=20, batch_size=16, learning_rate=2e-3, layer_decay=0.85, patience=5)

    def __init__(
        self,
        base: Any = "slm-base-en",
        *,
        dropout: float = 0.4,
        ngrams: bool = True,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base, self.dropout, self.ngrams = base, dropout, ngrams
        self.epochs, self.batch_size, self.learning_rate, self.max_seconds = epochs, batch_size, learning_rate, max_seconds
        self.config, self.seed = config, seed

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if a row has a context, or train has fewer than two different answers."""
        _check_no_context(frame.to_dict("records"))
        answers = frame.loc[(frame["split"] == "train") & (frame["answer"] != ""), "answer"].nunique()
        if answers < 2:
            raise ValueError(f"train has {answers} different answer(s), but without passages two at least are needed to choose from.")

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks):
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.training.batches import encode_texts
        from slm_helpers.training.classification import fit_classifier

        parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
        rows = {split: part[part["answer"] != ""] for split, part in parts.items()}
        warn_of(len(parts["train"]) - len(rows["train"]), "train", "without an answer")
        labels = sorted(rows["train"]["answer"].unique())
        tokenizer = starting_tokenizer(base, rows["train"]["question"])
        model = new_classifier(base, tokenizer.vocab_size, num_classes=len(labels), dropout=self.dropout)
        if "valid" in rows:  # what nobody can know says nothing about when to stop
            rows["valid"] = rows["valid"][rows["valid"]["answer"].isin(labels)]
        ids = {split: encode_texts(tokenizer, part["question"].tolist()) for split, part in rows.items() if len(part)}
        codes = {split: part["answer"].map({label: i for i, label in enumerate(labels)}).to_numpy() for split, part in rows.items()}
        valid = (ids["valid"], codes["valid"]) if "valid" in ids else (None, None)
        resume = {"checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
        history = fit_classifier(model, ids["train"], codes["train"], *valid, config=config, **resume)
        saved = SavedModel(model=model, tokenizer=tokenizer, task=self.task, labels=labels, settings={"form": "facts"})
        return _calibrate(saved, parts.get("valid")), history

    def _with_linear_model(self, frame: pd.DataFrame, *, keep_valid: bool) -> SavedModel:
        """Return `saved_` combined with a linear model; the rows of valid are needed to calibrate the sum, so it never learns from them."""
        valid = frame[frame["split"] == "valid"]
        return _calibrate(_add_ngrams(self.saved_, frame, seed=self.seed), valid if len(valid) else None)

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with question and answer: exact_match and token_f1 with 95 % intervals, by the column kind too, if there is one."""
        return qa_evaluation(frame, _answers(self._fitted(), frame.to_dict("records"))[0])

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction and confidence (calibrated probability that it is correct) for rows with question."""
        saved = self._fitted()
        return calibrated_answers(saved, *_answers(saved, rows))


def qa_evaluation(frame: pd.DataFrame, predictions: Sequence[str]) -> Evaluation:
    """Return the scores of predicted answers against the column answer, and by the column kind, if there is one."""
    answers = frame["answer"].tolist()
    tables = {}
    if "kind" in frame:
        scores = pd.DataFrame({"exact_match": exact_matches(answers, predictions), "token_f1": token_f1_scores(answers, predictions)})
        kinds = scores.groupby(frame["kind"].to_numpy())
        tables["kinds"] = kinds.mean().assign(rows=kinds.size()).rename_axis("kind").reset_index()
    return Evaluation(rows=len(frame), metrics=answer_table(answers, predictions), tables=tables)


def calibrated_answers(saved: SavedModel, answers: Sequence[str], probs: np.ndarray) -> list[dict[str, Any]]:
    """Return answers as rows with prediction and confidence, by the slope and shift that `fit_confidence` found on valid."""
    slope, shift = saved.settings.get("confidence", (1.0, 0.0))
    confidence = 1 / (1 + np.exp(-(slope * logit(probs) + shift)))
    return [{"prediction": text, "confidence": round(float(p), 4)} for text, p in zip(answers, confidence, strict=True)]


def _check_no_context(rows: Sequence[dict[str, Any]]) -> None:
    for number, row in enumerate(rows, 1):
        if row.get("context"):
            raise ValueError(
                f"row {number}: the question {row['question'][:60]!r} comes with a context, but this model answers from memory. "
                "Leave its context empty, or use ExtractiveQA, a model trained on such rows."
            )


def _add_ngrams(saved: SavedModel, frame: pd.DataFrame, *, seed: int) -> SavedModel:
    known = frame[frame["answer"].isin(saved.labels)]
    rows = pd.DataFrame({"text": known["question"], "label": known["answer"], "split": known["split"]})
    return add_ngrams(saved, rows, keep_valid=True, seed=seed)


def _calibrate(saved: SavedModel, valid: pd.DataFrame | None) -> SavedModel:
    """Fit to valid how sure the model may be of its answers."""
    if valid is None:
        return saved
    answers, probs = _answers(saved, valid.to_dict("records"))
    confidence = fit_confidence(probs, exact_matches(valid["answer"].tolist(), answers))
    return replace(saved, settings=saved.settings | {"confidence": confidence})


def _answers(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the most probable answer to each question and its probability, not yet calibrated."""
    _check_no_context(rows)
    if not len(rows):
        return [], np.zeros(0)
    probs = softmax(text_scores(saved, [row["question"] for row in rows]).astype("float64"))
    return [saved.labels[best] for best in probs.argmax(axis=1)], probs.max(axis=1)
