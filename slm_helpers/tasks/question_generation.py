"""Questions on a passage: from rows of passage, answer and question to a network that asks for an answer which stands in a passage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from slm_helpers.metrics.translation import translation_table
from slm_helpers.tasks.base import Evaluation, Task, starting_tokenizer
from slm_helpers.tasks.reading import find_answer, warn_of
from slm_helpers.text.sentences import source_sentence
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers.models.saved import SavedModel
    from slm_helpers.text.tokenizers import Tokenizer
    from slm_helpers.training.batches import Examples

CONTINUED_LEARNING_RATE = 1e-3  # where an earlier question generator goes on, unless a rate is given
SCRATCH = {"embedding_dim": 128, "units": 256}  # size of a network without a base
MAX_QUESTION_TOKENS = 64  # of a question to learn from
BEAM = {"beam_size": 4, "length_penalty": 1.5}
_NO_REPEAT = 3  # tokens in a row that are not written twice
_MAX_RATIO = 0.5  # tokens of a question for each of what is read, beyond ten


class QuestionGenerator(Task):
    """Ask a question for an answer that stands in a passage, or of a passage as a whole.

    The network reads the sentence in which the answer stands, then the answer, and writes the question; it may copy tokens of both.
    Rows have context, question, answer and answer_start (-1 if unknown). Rows without an answer are left out with a warning, but if
    no row has one, questions are asked of the whole context.

    Args:
        base: A language model to start from, an earlier question generator to go on with, e.g. "slm-asker-en" (its learning rate
            is CONTINUED_LEARNING_RATE unless one is given), or None for random weights.
        dropout: Share of activations dropped in training.
        epochs, batch_size, learning_rate, max_seconds, config, seed: As in `Task`.

    Example:
        >>> rows = [{"context": f"{name} has a cat.", "answer": name, "question": "Who has a cat?"} for name in ("Ann", "Tom") * 8]
        >>> model = QuestionGenerator(base=None, epochs=1).fit(rows)
        >>> questions = model.predict(rows[:2])

    Reference:
        Du, Shao and Cardie (2017), "Learning to Ask: Neural Question Generation for Reading Comprehension", arXiv:1705.00106.
    """

    task: ClassVar[str] = "ask"
    columns: ClassVar[tuple[str, ...]] = ("context", "question", "answer", "answer_start")
    target: ClassVar[str] = "question"
    predict_columns: ClassVar[tuple[str, ...]] = ("context", "answer", "answer_start")
    optional: ClassVar[dict[str, Any]] = {"answer": "", "answer_start": -1}
    predict_optional: ClassVar[dict[str, Any]] = {"answer": "", "answer_start": -1}
    may_be_empty: ClassVar[tuple[str, ...]] = ("answer",)
    base_tasks: ClassVar[tuple[str, ...]] = ("lm", "ask")
    default_config: ClassVar[TrainConfig] = TrainConfig(epochs=8, batch_size=16, learning_rate=4e-3, patience=3)

    def __init__(
        self,
        base: Any = "slm-base-en",
        *,
        dropout: float = 0.3,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base, self.dropout = base, dropout
        self.epochs, self.batch_size, self.learning_rate, self.max_seconds = epochs, batch_size, learning_rate, max_seconds
        self.config, self.seed = config, seed

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if no training row can be used."""
        rows = frame[frame["split"] == "train"].to_dict("records")
        answers = bool((frame["answer"] != "").any())
        if not any(row["context"].strip() and (not answers or (row["answer"] and _position(row) >= 0)) for row in rows):
            raise ValueError("train has no question with a context in which its answer stands, so there is nothing to learn from.")

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks):
        from dataclasses import replace

        from slm_helpers.training.finetune import fit_examples

        answers = bool((frame["answer"] != "").any())
        continued = base is not None and base.task == self.task
        if continued and base.settings["answers"] != answers:
            raise ValueError(
                f"The base asks {_of_what(base.settings['answers'])}, but the data {'has' if answers else 'has no'} answers. "
                "Start from a language model."
            )
        if continued and self._given_config().learning_rate is None:
            config = replace(config, learning_rate=CONTINUED_LEARNING_RATE)
        rows = {split: _usable(part, answers, split) for split, part in frame.groupby("split") if split in ("train", "valid")}
        tokenizer = starting_tokenizer(base, (f"{_prompt(row)} {row['question']}" for row in rows["train"]))
        saved = new_generator(base, tokenizer, answers=answers, dropout=self.dropout)
        parts = {split: question_examples(saved, part, name=split) for split, part in rows.items() if part}
        options = {"config": config, "checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
        return saved, fit_examples(saved.model, parts["train"], parts.get("valid"), **options)

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score questions against those that people asked of the same context and answer.

        Returns:
            bleu and chrf, 0-100, with 95 % intervals over questions, and the table questions: answer, question and prediction of
            each. Rows without an answer do not count where the model asks for one.
        """
        rows = _usable(frame, self._fitted().settings["answers"], "the data")
        if not rows:
            raise ValueError("No row has a context in which its answer stands, so there is no question to compare with.")
        references, predictions = [row["question"] for row in rows], [row["prediction"] for row in self.predict_rows(rows)]
        table = pd.DataFrame({"answer": [row["answer"] for row in rows], "question": references, "prediction": predictions})
        return Evaluation(rows=len(rows), metrics=translation_table(references, predictions), tables={"questions": table})

    def predict_rows(
        self, rows: Sequence[dict[str, Any]], *, beam_size: int | None = None, length_penalty: float | None = None
    ) -> list[dict[str, Any]]:
        """Return prediction (a question) and confidence for rows with context and, where the model asks for one, answer, answer_start.

        Of the questions that the search finds, the best one counts that does not hold its own answer, if there is one.
        The confidence is the geometric mean of the probabilities of the tokens written; it is not calibrated.

        Args:
            rows: Without answer_start, or where it is wrong, the nearest position at which the answer stands counts, or the first.
            beam_size: 1 takes the most probable token each time; that of the model's settings unless given.
            length_penalty: Of the search; that of the settings unless given.

        Raises:
            ValueError: If an answer is missing or does not stand in its context, or the model asks of whole contexts and one is given.
        """
        from slm_helpers.generation.sequences import decode_sequences

        saved = self._fitted()
        tokenizer, answers = saved.tokenizer, saved.settings["answers"]
        prompts = [_prompt(_checked(row, answers, row.get("where") or f"Row {number}")) for number, row in enumerate(rows, 1)]
        sources = [_encode(saved, prompt) for prompt in prompts]
        if not sources:
            return []
        hypotheses = decode_sequences(
            saved.model,
            [source[:-1] for source in sources],
            start_id=int(sources[0][-1]),
            end_id=tokenizer.end_id,
            suppress_token_ids=(tokenizer.pad_id, tokenizer.unk_id),
            beam_size=saved.settings["beam_size"] if beam_size is None else beam_size,
            length_penalty=saved.settings["length_penalty"] if length_penalty is None else length_penalty,
            no_repeat_ngram=_NO_REPEAT,
            max_ratio=_MAX_RATIO,
        )
        return [_best_row(saved, row, found) for row, found in zip(rows, hypotheses, strict=True)]


def new_generator(base: SavedModel | None, tokenizer: Tokenizer, *, answers: bool = True, dropout: float = 0.3) -> SavedModel:
    """Return a question generator with the weights of a base, a language model or an earlier one, or with random ones.

    Args:
        base: Stays as it is.
        tokenizer: That of the base, if there is one.
        answers: Whether it asks for a given answer, or of a whole context.
        dropout: Share of activations dropped in training.
    """
    from slm_helpers.models.encoder_decoder import build_pointer_generator
    from slm_helpers.models.registry import backbone_config, load_backbone_weights
    from slm_helpers.models.saved import SavedModel

    if base is not None and base.task == "ask":
        shape = json.loads(base.model.builder_config)["arguments"]
    else:
        shape = backbone_config(base.model) if base is not None else SCRATCH | {"vocab_size": tokenizer.vocab_size}
    model = build_pointer_generator(**shape | {"dropout": dropout})
    if base is not None:
        load_backbone_weights(model, base.model)
    return SavedModel(model=model, tokenizer=tokenizer, task="ask", settings={"answers": answers} | BEAM)


def question_examples(saved: SavedModel, rows: Sequence[dict[str, Any]], *, name: str) -> Examples:
    """Return what is read, and behind its last token the question: what the network reads of it and what it is to write.

    Args:
        saved: From `new_generator`.
        rows: With context, question, answer and answer_start, the place at which it stands; "" for a question of the whole context.
        name: Of the part, for the warning that questions of more than MAX_QUESTION_TOKENS are left out.
    """
    from slm_helpers.training.batches import Examples

    end, sources, read, written = [saved.tokenizer.end_id], [], [], []
    for row in rows:
        prompt = _encode(saved, _prompt(row))
        question = np.concatenate([saved.tokenizer.encode(f" {row['question']}"), end]).astype("int32")
        if len(question) <= MAX_QUESTION_TOKENS:
            sources.append(prompt[:-1])
            read.append(np.concatenate([prompt[-1:], question[:-1]]))
            written.append(question)
    warn_of(len(rows) - len(read), name, f"with a question of more than {MAX_QUESTION_TOKENS} tokens")
    if not read:
        raise ValueError(f"No question of {name} has {MAX_QUESTION_TOKENS} tokens at most.")
    lengths = np.array([len(source) + len(target) for source, target in zip(sources, read, strict=True)])
    return Examples({"source_ids": sources, "target_ids": read}, written, along="target_ids", lengths=lengths)


def gives_away(question: str, answer: str) -> bool:
    """Return whether a question holds its answer, letter case aside."""
    return bool(answer) and answer.lower() in question.lower()


def _best_row(saved: SavedModel, row: dict[str, Any], hypotheses: Sequence[Any]) -> dict[str, Any]:
    texts = [" ".join(saved.tokenizer.decode(each.token_ids).split()) for each in hypotheses]
    best = hypotheses[position := _best_question(texts, row.get("answer", ""))]
    confidence = np.exp(best.log_prob / (len(best.token_ids) + best.ended))
    return {"prediction": texts[position], "confidence": round(float(confidence), 4)}


def _best_question(texts: Sequence[str], answer: str) -> int:
    """Return the index of the first question that says something and does not give the answer away, else of the first that says it."""
    ranks = [(not text) + gives_away(text, answer) / 2 for text in texts]
    return ranks.index(min(ranks))


def _usable(frame: pd.DataFrame, answers: bool, name: str) -> list[dict[str, Any]]:
    """Return the rows whose answer stands in the context, at its position; all of them where there are no answers."""
    rows = [row for row in frame.to_dict("records") if row["context"].strip()]
    warn_of(len(frame) - len(rows), name, "without a context")
    if not answers:
        return rows
    placed = [row | {"answer_start": _position(row)} for row in rows if row["answer"]]
    kept = [row for row in placed if row["answer_start"] >= 0]
    warn_of(len(rows) - len(placed), name, "without an answer")
    warn_of(len(placed) - len(kept), name, "whose answer does not stand in the context")
    return kept


def _checked(row: dict[str, Any], answers: bool, where: str) -> dict[str, Any]:
    """Return a row to ask a question of, with the position of its answer; `where` names it in messages."""
    answer = row.get("answer", "")
    if not row["context"].strip():
        raise ValueError(f"{where}: the context is empty, so there is nothing to ask of. Leave such rows out.")
    if bool(answer) != answers:
        raise ValueError(
            f"{where}: {row['context'][:40]!r}... {'has an' if answer else 'has no'} answer, but this model asks {_of_what(answers)}. "
            + ("Name the answer that is to be asked for." if answers else "Leave the column answer out.")
        )
    position = _position(row) if answers else -1
    if answers and position < 0:
        raise ValueError(
            f"{where}: the answer {answer[:40]!r} does not stand in its context {row['context'][:40]!r}... Copy it from there."
        )
    return {"context": row["context"], "answer": answer, "answer_start": position}


def _position(row: dict[str, Any]) -> int:
    start = row.get("answer_start", -1)
    return find_answer(row["context"], row["answer"], -1 if start in ("", None) else int(start))


def _of_what(answers: bool) -> str:
    return "for an answer in a context" if answers else "of a context as a whole"


def _prompt(row: dict[str, Any]) -> str:
    answer = f"Answer: {row['answer']}\n" if row["answer"] else ""
    return f"{' '.join(source_sentence(row).split())}\n{answer}Question:"


def _encode(saved: SavedModel, prompt: str) -> np.ndarray:
    return np.concatenate([[saved.tokenizer.end_id], saved.tokenizer.encode(prompt)]).astype("int32")
