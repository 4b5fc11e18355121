"""Knowledge tracing: how likely is a learner to answer the next exercise correctly, given the answers so far?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from slm_helpers._numerics import softmax
from slm_helpers.data.attempts import NUM_FEATURES, Learner, order_attempts, skill_codes
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.knowledge_tracing import trace_table
from slm_helpers.tasks.base import Evaluation, Task, train_and_valid
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers._backend import keras
    from slm_helpers.models.saved import SavedModel

MAX_ATTEMPTS = 160  # of a long history that are scored together
CONTEXT = 40  # attempts before them that are read as well; older ones are only counted


class KnowledgeTracer(Task):
    """The probability that each attempt of a learner is correct, from the attempts before it.

    A GRU reads the answers so far; features counted from them (`slm_helpers.data.attempts.Learner`) join its state. Rows have student,
    step (the order of a student's attempts; without it rows are in order), skill and correct, 1 or 0. Rows of one student and step are
    one attempt at an exercise for several skills. A row whose `correct` is empty (None, NaN or "") is predicted and teaches nothing.

    Args:
        epochs: Passes over train at most; None: 15, less if valid stops improving for 3.
        batch_size: Learners, or pieces of a long history, in an update; None: 16.
        learning_rate: The highest; None: 0.004.
        max_seconds: End the training after this time; None: no limit.
        units: Length of the GRU's state.
        dropout: Share of activations dropped in training.
        config: Other settings of the training.
        seed: Of order, dropout and weights.

    Example:
        >>> rows = [{"student": f"s{i // 2}", "skill": "ab"[i % 2], "correct": 1 - i % 2} for i in range(40)]
        >>> tracer = KnowledgeTracer(units=8, epochs=8, batch_size=8, learning_rate=0.02).fit(rows)
        >>> tracer.predict([{"student": "new", "skill": "a"}, {"student": "other", "skill": "b"}]).tolist()
        [1, 0]

    Reference:
        Piech et al. (2015), "Deep Knowledge Tracing", arXiv:1506.05908.
    """

    task = "trace"
    columns = ("student", "step", "skill", "correct")
    target = "correct"
    predict_columns = columns
    predict_optional: ClassVar[dict[str, Any]] = {"step": -1, "correct": ""}  # in order; not answered
    may_be_empty = ("correct",)  # an exercise that is not answered yet
    default_base = None  # it reads answers, not text
    default_config = TrainConfig(epochs=15, batch_size=16, learning_rate=4e-3, patience=3)

    def __init__(
        self,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        units: int = 64,
        dropout: float = 0.2,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.max_seconds, self.units, self.dropout = max_seconds, units, dropout
        self.config, self.seed = config, seed

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if another split has a skill that train lacks, or `correct` is not 0 or 1, or always the same in train."""
        skills = _skills_of(frame)
        for split, rows in frame.groupby("split"):
            skill_codes(order_attempts(rows)["skill"].tolist(), skills, where=f"{split}, attempt")

    def predict(self, X: Any) -> np.ndarray:
        """Return 1 where a correct answer is more likely than a wrong one, else 0: shape (num_rows,)."""
        return (self.predict_proba(X)[:, 1] >= 0.5).astype("int64")

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return for each row the calibrated probabilities of a wrong and of a correct answer, from the student's earlier rows.

        Args:
            X: Rows with student and skill, and step and correct where they are known, in any order.

        Returns:
            Shape (num_rows, 2), in the order of the rows.
        """
        frame = self._table(X)
        if not len(frame):
            self._fitted()
            return np.zeros((0, 2))
        rows, probs = self._rows(frame), np.zeros((len(frame), 2))
        order = np.lexsort([frame["step"], frame.groupby("student", sort=False).ngroup()])
        probs[order, 1] = self._probabilities(_Attempts(self._fitted().labels), [rows[row] for row in order], order + 1)
        probs[:, 0] = 1 - probs[:, 1]
        return probs

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction ("1" correct, "0" wrong) and calibrated confidence for rows with student, step, skill, correct, in order."""
        return self.row_predictor()(rows)

    def row_predictor(self) -> Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]:
        """Return `predict_rows` for a file in parts: it remembers the learners, a few hundred attempts of each, from part to part."""
        attempts = _Attempts(self._fitted().labels)

        def predict_next(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            probs = self._probabilities(attempts, rows, range(attempts.num_rows + 1, attempts.num_rows + len(rows) + 1))
            return [{"prediction": str(int(p >= 0.5)), "confidence": round(float(max(p, 1 - p)), 4)} for p in probs]

        return predict_next

    def predict_skills(self, histories: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
        """Return the probability that each learner answers each skill correctly next: shape (num_learners, num_skills).

        Args:
            histories: For each learner the attempts so far, in order: the skill's index in `skills_`, and 1 (correct) or 0.
        """
        from slm_helpers._backend import cached_on
        from slm_helpers.models.rows import quiet_retracing, run_rows

        saved = self._fitted()
        num_skills = len(saved.labels)
        if not len(histories):
            return np.zeros((0, num_skills))
        learners = []
        for history in histories:
            learners.append(Learner())
            for skill, correct in history:
                learners[-1].update(skill, correct)
        # The state is computed once a learner, and each skill is asked for from it: skills take the place of time.
        state_of, head = cached_on(saved.model, "skills", lambda: _split(saved.model))
        nothing = (0, 0, [0] * NUM_FEATURES, -1)  # asked for below; what counts here is the state before it
        pieces = [_piece(num_skills, learner, [nothing]) for learner in learners]
        states = np.stack([row[-1] for row in run_rows(state_of, {"answers": [piece.answers for piece in pieces]}, along="answers")])
        features = np.array([[learner.features(skill) for skill in range(num_skills)] for learner in learners], dtype="int32")
        skills = np.tile(np.arange(1, num_skills + 1, dtype="int32"), (len(learners), 1))
        with quiet_retracing():
            logits = head.predict_on_batch([np.repeat(states[:, None], num_skills, axis=1), skills, features])
        return softmax(np.asarray(logits, dtype="float64") / saved.settings.get("temperature", 1.0))[..., 1]

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with student, step, skill and correct.

        Returns:
            auc, accuracy and bits (mean log loss of an answer in bits) with 95 % intervals over students, and the table skills:
            attempts, the share of correct answers and the mean prediction of each.

        Raises:
            ValueError: If a skill is not one of the model's, or all answers are the same.
        """
        ordered = order_attempts(frame)
        probs = self.predict_proba(ordered)[:, 1]
        skills = (
            ordered.assign(predicted=probs)
            .groupby("skill")
            .agg(rows=("correct", "size"), correct=("correct", "mean"), predicted=("predicted", "mean"))
        )
        metrics = trace_table(ordered["correct"].to_numpy(), probs, ordered["student"].to_numpy())
        return Evaluation(rows=len(ordered), metrics=metrics, tables={"skills": skills.reset_index()})

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks) -> tuple[SavedModel, pd.DataFrame]:
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.models.tracer import build_knowledge_tracer
        from slm_helpers.training.batches import Examples
        from slm_helpers.training.finetune import fit_examples

        skills = _skills_of(frame)
        sizes = {"num_features": NUM_FEATURES, "units": self.units, "head_units": self.units}
        model = build_knowledge_tracer(len(skills), **sizes, dropout=self.dropout)
        saved = SavedModel(model=model, task=self.task, labels=skills)
        parts = {split: _pieces_of(rows, skills) for split, rows in train_and_valid(frame).items()}
        examples = {
            split: Examples(_inputs(pieces), [piece.targets for piece in pieces], along="answers") for split, pieces in parts.items()
        }
        options = {"checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
        history = fit_examples(model, examples["train"], examples.get("valid"), config=config, **options)
        if "valid" in parts:
            targets = np.concatenate([piece.targets[piece.targets >= 0] for piece in parts["valid"]])
            saved.settings["temperature"] = fit_temperature(np.concatenate(_logits(saved, parts["valid"])), targets)
        return saved, history

    def _learned(self) -> None:
        self.classes_, self.skills_ = np.array([0, 1]), list(self.saved_.labels)

    def _table(self, X: Any) -> pd.DataFrame:
        """Return X as a table, skills as strings; without steps the rows of each student are in order."""
        frame = super()._table(X)
        if "skill" in frame:
            frame = frame.assign(skill=frame["skill"].astype(str))
        return frame if "step" in frame or "student" not in frame else frame.assign(step=frame.groupby("student").cumcount())

    def _probabilities(self, attempts: _Attempts, rows: Sequence[dict[str, Any]], numbers: Iterable[int]) -> np.ndarray:
        """Return the probability of a correct answer for the next rows, from those above them, which `attempts` remembers."""
        saved = self._fitted()
        checked = [attempts.check(row, number) for row, number in zip(rows, numbers, strict=True)]
        pieces = _cut(attempts.learners, checked, len(saved.labels))
        probs = np.zeros(len(rows))
        for piece, logits in zip(pieces, _logits(saved, pieces), strict=True):
            probs[piece.rows] = softmax(logits.astype("float64") / saved.settings.get("temperature", 1.0))[:, 1]
        for student in {student for student, *_ in checked}:
            attempts.learners[student].forget(MAX_ATTEMPTS + CONTEXT + 1)
        return probs


class _Attempts:
    """What is remembered of the rows of a table that were read: the learners, and the last step of each."""

    def __init__(self, skills: Sequence[str]):
        self.skills = {skill: code for code, skill in enumerate(skills)}
        self.learners: dict[str, Learner] = {}
        self.steps: dict[str, int] = {}
        self.num_rows = 0

    def check(self, row: dict[str, Any], number: int) -> tuple[str, int, int | None]:
        """Return student, index of the skill, and correct (None: not answered yet) of the next row."""
        where, student, correct, step = row.get("where") or f"row {number}", row["student"], row.get("correct"), row.get("step", -1)
        self.num_rows += 1
        if row["skill"] not in self.skills:
            skill_codes([row["skill"]], list(self.skills), where=[where])  # raises
        answered = not (correct is None or correct == "" or correct != correct)  # NaN alone differs from itself
        if answered and correct not in (0, 1):
            raise ValueError(f"{where}: correct is {correct!r}, but must be 1 (right), 0 (wrong) or empty (not answered yet).")
        if step != -1 and step <= self.steps.get(student, -1):
            raise ValueError(
                f"{where}: step {step} of student {student!r} comes after step {self.steps[student]}. Sort the file by student and step; "
                "an exercise for several skills is one row, whose skill is written as in training, 'a + b' (`order_attempts` does both)."
            )
        self.steps[student] = step
        return student, self.skills[row["skill"]], int(correct) if answered else None


@dataclass
class _Piece:
    """Some attempts of one learner as the network reads them; `rows` says which ones are scored, at the end."""

    answers: np.ndarray
    skills: np.ndarray
    features: np.ndarray
    targets: np.ndarray
    rows: list[int] = field(default_factory=list)


def _skills_of(frame: pd.DataFrame) -> list[str]:
    """Return the skills of train, after its answers are checked."""
    train = order_attempts(frame[frame["split"] == "train"])
    if train["correct"].nunique() < 2:
        raise ValueError("train needs answers that are right and answers that are wrong, but has one kind at most.")
    return sorted(train["skill"].unique())


def _split(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Return the two halves of a network: answers to states, and [states, skills, features] to logits."""
    from slm_helpers._backend import keras

    states = model.get_layer("gru_0").output
    answers, skills, features = model.inputs
    return keras.Model(answers, states), keras.Model([states, skills, features], model.output)


def _pieces_of(frame: pd.DataFrame, skills: list[str]) -> list[_Piece]:
    ordered = order_attempts(frame)
    codes = skill_codes(ordered["skill"].tolist(), skills)
    return _cut({}, zip(ordered["student"], codes.tolist(), ordered["correct"].astype(int).tolist(), strict=True), len(skills))


def _cut(learners: dict[str, Learner], attempts: Iterable[tuple[str, int, int | None]], num_skills: int) -> list[_Piece]:
    """Cut attempts (student, skill, correct or None), in order, into pieces; `learners` are updated.

    A history is cut at fixed positions, so that a file read in parts gives the same pieces.
    """
    pieces: list[_Piece] = []
    open_: dict[str, list] = {}  # attempts of each learner since the last cut, which the network scores together
    for row, (student, skill, correct) in enumerate(attempts):
        if student not in learners:
            learners[student] = Learner()
        learner = learners[student]
        query = (row, skill, learner.features(skill), -1 if correct is None else correct)
        if correct is None:
            pieces.append(_piece(num_skills, learner, [query]))
            continue
        if student in open_ and learner.num_attempts % MAX_ATTEMPTS == 0:
            pieces.append(_piece(num_skills, learner, open_.pop(student)))
        open_.setdefault(student, []).append(query)
        learner.update(skill, correct)
    return pieces + [_piece(num_skills, learners[student], queries) for student, queries in open_.items()]


def _piece(num_skills: int, learner: Learner, queries: list[tuple[int, int, list[int], int]]) -> _Piece:
    """Return what the network reads for the latest attempts (row, skill, features, correct), after some earlier ones.

    An attempt without an answer (correct -1) comes after all that the learner has; others are the last ones that it has.
    """
    first = learner.num_attempts - (len(queries) if queries[0][-1] >= 0 else 0)
    start = max(0, first // MAX_ATTEMPTS * MAX_ATTEMPTS - CONTEXT)
    before = first - start
    length = before + len(queries)
    offset = learner.num_attempts - len(learner.past)  # attempts that are forgotten
    answers = [1 + 2 * num_skills] if start == 0 else []
    first_past = max(0, start - 1) - offset
    answers += [1 + 2 * skill + correct for skill, correct in learner.past[first_past : first_past + length - len(answers)]]
    piece = _Piece(
        answers=np.array(answers, dtype="int32"),
        skills=np.zeros(length, dtype="int32"),
        features=np.zeros((length, NUM_FEATURES), dtype="int32"),
        targets=np.full(length, -1),
        rows=[row for row, *_ in queries],
    )
    for i, (_, skill, features, correct) in enumerate(queries, before):
        piece.skills[i], piece.features[i], piece.targets[i] = skill + 1, features, correct
    return piece


def _inputs(pieces: list[_Piece]) -> dict[str, list[np.ndarray]]:
    return {name: [getattr(piece, name) for piece in pieces] for name in ("answers", "skills", "features")}


def _logits(saved: SavedModel, pieces: list[_Piece]) -> list[np.ndarray]:
    """Return the logits of the attempts that each piece scores."""
    from slm_helpers.models.rows import run_rows

    outputs = run_rows(saved.model, _inputs(pieces), along="answers")
    return [logits[len(logits) - len(piece.rows) :] for logits, piece in zip(outputs, pieces, strict=True)]
