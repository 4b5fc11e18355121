"""Knowledge tracing: how likely will a learner answer the next exercise rightly, given the answers so far?"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from slm_helpers._backend import cached_on, keras, quiet_retracing
from slm_helpers.data.attempts import NUM_FEATURES, Learner, order_attempts, skill_codes
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.knowledge_tracing import trace_table
from slm_helpers.models.saved import SavedModel
from slm_helpers.models.tracer import build_knowledge_tracer
from slm_helpers.tasks.base import Evaluation
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples, run_rows, softmax

import numpy as np
import pandas as pd

COLUMNS = ("student", "step", "skill", "correct")


PREDICT_COLUMNS = COLUMNS


PREDICT_OPTIONAL = {"step": -1, "correct": ""}  # a file without steps is in order; without answers, each row is asked of a newcomer


PREDICT_MAY_BE_EMPTY = ("correct",)  # an exercise that is not answered yet


STARTS_FROM_BASE = False  # it reads answers, not text


DEFAULT = TrainConfig(epochs=15, batch_size=16, learning_rate=4e-3, patience=3)


PIECE = 160  # attempts of a long history that are scored together


CONTEXT = 40  # attempts before them that are read as well; what is older is only counted


def train(
    frame: pd.DataFrame,
    *,
    base: SavedModel | None = None,
    config: TrainConfig = TrainConfig(),
    units: int = 64,
    dropout: float = 0.2,
) -> tuple[SavedModel, pd.DataFrame]:
    """Train a network on the columns student, step, skill, correct (0 or 1) and split.

    A GRU reads the answers so far; counts of them stand beside it, see `build_knowledge_tracer` and `Learner.describe`. Rows of one attempt
    become one, see `order_attempts`.

    Args:
        frame: From `load_dataset`; the split valid, if there, chooses the epoch and calibrates the probabilities.
        base: None: a language model is of no use here.
        config: Settings of the training; a row of a batch is one learner, or a piece of a long history.
        units: Length of the GRU's state.
        dropout: Share of activations dropped in training.

    Returns:
        The model with its labels (the skills) and settings, and the history of its training.

    Raises:
        ValueError: If `correct` holds anything but 0 and 1, another split has a skill that train lacks, or a base is given.

    Reference:
        Piech et al. (2015), "Deep Knowledge Tracing", arXiv:1506.05908.
    """
    config = config.with_defaults(DEFAULT)
    if base is not None:
        raise ValueError("The task trace reads no text and starts from random weights: leave the base out (--base none).")
    skills = check_rows(frame)
    keras.utils.set_random_seed(config.seed)
    model = build_knowledge_tracer(len(skills), num_features=NUM_FEATURES, units=units, head_units=units, dropout=dropout)
    saved = SavedModel(model=model, task="trace", labels=skills)
    parts = {split: _pieces_of(rows, skills) for split, rows in frame.groupby("split") if split in ("train", "valid")}
    examples = {split: Examples(_inputs(pieces), [piece.targets for piece in pieces], along="answers") for split, pieces in parts.items()}
    history = fit_examples(model, examples["train"], examples.get("valid"), config=config)
    if "valid" in parts:
        scores = np.concatenate(_scores(saved, parts["valid"]))
        targets = np.concatenate([piece.targets[piece.targets >= 0] for piece in parts["valid"]])
        saved = replace(saved, settings={"temperature": fit_temperature(scores, targets)})
    return saved, history


def check_rows(frame: pd.DataFrame) -> list[str]:
    """Return the skills of train; raise ValueError if another split has one that train lacks, or `correct` is not 0 or 1."""
    ordered = {split: order_attempts(rows) for split, rows in frame.groupby("split")}
    if "train" not in ordered or ordered["train"]["correct"].nunique() < 2:
        raise ValueError("train needs answers that are right and answers that are wrong, but has one kind at most.")
    skills = sorted(ordered["train"]["skill"].unique())
    for split, rows in ordered.items():
        skill_codes(rows["skill"].tolist(), skills, where=f"{split}, attempt")
    return skills


def evaluate(saved: SavedModel, frame: pd.DataFrame) -> Evaluation:
    """Score a model on the columns student, step, skill and correct.

    Returns:
        auc, accuracy and bits (mean, an answer) with 95 % intervals over students, and the table skills: attempts, the share of
        right answers and the mean prediction of each.

    Raises:
        ValueError: If a skill is not one of the model's, or all answers are alike.
    """
    ordered = order_attempts(frame)
    probs = trace(saved, ordered)
    skills = (
        ordered.assign(predicted=probs)
        .groupby("skill")
        .agg(rows=("correct", "size"), correct=("correct", "mean"), predicted=("predicted", "mean"))
    )
    metrics = trace_table(ordered["correct"].to_numpy(), probs, ordered["student"].to_numpy())
    return Evaluation(rows=len(ordered), metrics=metrics, tables={"skills": skills.reset_index()})


def trace(saved: SavedModel, frame: pd.DataFrame) -> np.ndarray:
    """Return for each attempt the probability that it is right, from the student's attempts above it; `frame` as of `order_attempts`."""
    codes = skill_codes(frame["skill"].tolist(), saved.labels)
    return _probabilities(saved, {}, zip(frame["student"], codes.tolist(), frame["correct"].tolist(), strict=True), len(frame))


def predict(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return prediction ("1" right, "0" wrong) and confidence (calibrated) for rows with student, step, skill and correct, in order.

    Predicted is each row from the rows of the same student above it. One with an empty `correct` is predicted and teaches nothing.
    """
    return Predictor(saved)(rows)


class Predictor:
    """`predict` for a file in parts: it remembers the learners from one part to the next."""

    def __init__(self, saved: SavedModel):
        self.saved = saved
        self._learners: dict[str, Learner] = {}
        self._steps: dict[str, int] = {}
        self._num_rows = 0

    def __call__(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction and confidence of the next rows."""
        for number, row in enumerate(rows, self._num_rows + 1):
            self._check(row, number)
        codes = skill_codes([row["skill"] for row in rows], self.saved.labels)
        attempts = [
            (row["student"], code, None if row["correct"] in ("", None) else row["correct"])
            for row, code in zip(rows, codes.tolist(), strict=True)
        ]
        self._num_rows += len(rows)
        probs = _probabilities(self.saved, self._learners, attempts, len(rows))
        return [{"prediction": str(int(p >= 0.5)), "confidence": round(float(max(p, 1 - p)), 4)} for p in probs]

    def _check(self, row: dict[str, Any], number: int) -> None:
        if row["correct"] not in (0, 1, "", None):
            raise ValueError(f"row {number}: correct is {row['correct']!r}, but must be 1 (right), 0 (wrong) or empty (not answered yet).")
        step = row.get("step", -1)
        if step == -1:
            return
        if step <= self._steps.get(row["student"], -1):
            raise ValueError(
                f"row {number}: step {step} of student {row['student']!r} comes after step {self._steps[row['student']]}. Sort the file by "
                "student and step; an exercise for several skills is one row, whose skill is written as in training, 'a + b'."
            )
        self._steps[row["student"]] = step


def knowledge(saved: SavedModel, histories: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """Return the probability that each learner answers each skill rightly next: shape (learners, skills).

    Args:
        saved: The model.
        histories: For each learner the attempts so far, in order: the skill's place among `saved.labels`, and 1 (right) or 0.
    """
    num_skills = len(saved.labels)
    learners = []
    for history in histories:
        learners.append(Learner())
        for skill, correct in history:
            learners[-1].note(skill, correct)
    # The state is computed once a learner, and every skill is asked for from it: skills stand where time stood.
    state_of, head = cached_on(saved.model, "knowledge", lambda: _split(saved.model))
    nothing = (0, 0, [0] * NUM_FEATURES, -1)  # asked for below; what counts here is the state before it
    pieces = [_piece(num_skills, learner.past, len(learner.past), [nothing]) for learner in learners]
    states = np.stack([row[-1] for row in run_rows(state_of, {"answers": [piece.answers for piece in pieces]}, along="answers")])
    described = np.array([[learner.describe(skill) for skill in range(num_skills)] for learner in learners], dtype="int32")
    asked = np.tile(np.arange(1, num_skills + 1, dtype="int32"), (len(learners), 1))
    with quiet_retracing():
        logits = head.predict_on_batch([np.repeat(states[:, None], num_skills, axis=1), asked, described])
    return softmax(np.asarray(logits, dtype="float64") / saved.settings.get("temperature", 1.0))[..., 1]


@dataclass
class _Piece:
    """Some attempts of one learner as the network reads them; `rows` says which ones are scored, at the end."""

    answers: np.ndarray
    skills: np.ndarray
    features: np.ndarray
    targets: np.ndarray
    rows: list[int] = field(default_factory=list)


def _split(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Return the two halves of a tracer: answers to states, and [states, skills, features] to logits."""
    states = model.get_layer("gru_0").output
    answers, skills, features = model.inputs
    return keras.Model(answers, states), keras.Model([states, skills, features], model.output)


def _pieces_of(frame: pd.DataFrame, skills: list[str]) -> list[_Piece]:
    ordered = order_attempts(frame)
    codes = skill_codes(ordered["skill"].tolist(), skills)
    return _cut({}, zip(ordered["student"], codes.tolist(), ordered["correct"].tolist(), strict=True), len(skills))


def _cut(learners: dict[str, Learner], attempts, num_skills: int) -> list[_Piece]:
    """Cut attempts (student, skill, correct or None), in order, into pieces; `learners` are told of them.

    A history is cut at fixed places, so that a file read in parts gives the same pieces.
    """
    pieces: list[_Piece] = []
    open_: dict[str, tuple[int, list]] = {}

    def close(student: str) -> None:
        first, asked = open_.pop(student)
        pieces.append(_piece(num_skills, learners[student].past, first, asked))

    for row, (student, skill, correct) in enumerate(attempts):
        learner = learners.setdefault(student, Learner())
        asked = (row, skill, learner.describe(skill), -1 if correct is None else correct)
        if correct is None:
            pieces.append(_piece(num_skills, learner.past, len(learner.past), [asked]))
            continue
        if student in open_ and len(learner.past) % PIECE == 0:
            close(student)
        open_.setdefault(student, (len(learner.past), []))[1].append(asked)
        learner.note(skill, correct)
    for student in list(open_):
        close(student)
    return pieces


def _piece(num_skills: int, past: list[tuple[int, int]], first: int, asked: list) -> _Piece:
    """Return what the network reads for attempts from number `first` on (row, skill, features, correct), after some earlier ones."""
    start = max(0, first // PIECE * PIECE - CONTEXT)
    before = first - start
    length = before + len(asked)
    answers = [1 + 2 * past[i - 1][0] + past[i - 1][1] if i else 1 + 2 * num_skills for i in range(start, start + length)]
    piece = _Piece(
        answers=np.array(answers, dtype="int32"),
        skills=np.zeros(length, dtype="int32"),
        features=np.zeros((length, NUM_FEATURES), dtype="int32"),
        targets=np.full(length, -1),
        rows=[row for row, *_ in asked],
    )
    for place, (_, skill, features, correct) in enumerate(asked, before):
        piece.skills[place], piece.features[place], piece.targets[place] = skill + 1, features, correct
    return piece


def _inputs(pieces: list[_Piece]) -> dict[str, list[np.ndarray]]:
    return {name: [getattr(piece, name) for piece in pieces] for name in ("answers", "skills", "features")}


def _scores(saved: SavedModel, pieces: list[_Piece]) -> list[np.ndarray]:
    """Return the logits of the attempts that each piece scores."""
    found = run_rows(saved.model, _inputs(pieces), along="answers")
    return [scores[len(scores) - len(piece.rows) :] for scores, piece in zip(found, pieces, strict=True)]


def _probabilities(saved: SavedModel, learners: dict[str, Learner], attempts, num_rows: int) -> np.ndarray:
    pieces = _cut(learners, attempts, len(saved.labels))
    probs = np.zeros(num_rows)
    for piece, scores in zip(pieces, _scores(saved, pieces), strict=True):
        probs[piece.rows] = softmax(scores.astype("float64") / saved.settings.get("temperature", 1.0))[:, 1]
    return probs
