"""Baselines for knowledge tracing: the rate of each skill, a regression on counts, and Bayesian knowledge tracing.

Each has `fit(frame)` and `predict(frame)`; the overall rate is scikit-learn's `DummyRegressor`, fitted to the column correct. Frames
hold attempts as `slm_helpers.data.attempts.order_attempts` leaves them; predicted is the probability that each attempt is correct,
from the attempts of the same student above it.
"""

from dataclasses import dataclass
from itertools import pairwise

from slm_helpers._checks import check_positive
from slm_helpers.data.attempts import Learner, skill_codes

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression


class SkillRates(BaseEstimator):
    """Predict the share of correct answers on the skill in train, shrunk to the overall share where the skill is rare.

    Args:
        strength: How many answers the overall share counts as.

    Attributes:
        rates_: The predicted share of each skill.
    """

    def __init__(self, *, strength: float = 5.0):
        self.strength = strength

    def fit(self, frame: pd.DataFrame, y: object = None) -> "SkillRates":
        """Count the answers of train; `y` is ignored, the frame holds the column correct."""
        overall = float(frame["correct"].mean())
        counts = frame.groupby("skill")["correct"].agg(["sum", "size"])
        self.rates_ = ((counts["sum"] + self.strength * overall) / (counts["size"] + self.strength)).to_dict()
        return self

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return one probability a row."""
        skill_codes(frame["skill"].tolist(), list(self.rates_))
        return frame["skill"].map(self.rates_).to_numpy()


class CountRegression(BaseEstimator):
    """Logistic regression on counts of earlier right and wrong answers.

    Each skill has an ease of its own, and weights of its own for the logarithms of right and of wrong answers on it so far; the
    logarithms of right and wrong answers on all skills get one weight each.

    Args:
        C: Inverse strength of the regularisation.

    Attributes:
        skills_: The skills of train, sorted.
        classifier_: The fitted logistic regression.

    Reference:
        Pavlik, Cen and Koedinger (2009), "Performance Factors Analysis: A New Alternative to Knowledge Tracing".
    """

    def __init__(self, *, C: float = 1.0):
        self.C = C

    def fit(self, frame: pd.DataFrame, y: object = None) -> "CountRegression":
        """Fit the weights; `y` is ignored, the frame holds the column correct."""
        self.skills_ = sorted(frame["skill"].unique())
        self.classifier_ = LogisticRegression(C=self.C, max_iter=1000)
        self.classifier_.fit(self._features(frame), frame["correct"].to_numpy())
        return self

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return one probability a row."""
        return self.classifier_.predict_proba(self._features(frame))[:, 1] if len(frame) else np.zeros(0)

    def _features(self, frame: pd.DataFrame):
        """Return a sparse matrix, shape (rows, 3 * skills + 4)."""
        codes = skill_codes(frame["skill"].tolist(), self.skills_)
        learners: dict[str, Learner] = {}
        counts = np.zeros((len(frame), 4))
        for row, (student, skill, correct) in enumerate(zip(frame["student"], codes.tolist(), frame["correct"].tolist(), strict=True)):
            learner = learners.setdefault(student, Learner())
            counts[row] = learner.counts(skill)
            learner.update(skill, correct)
        logs = np.log1p(counts)
        cells, shape = (np.arange(len(frame)), codes), (len(frame), len(self.skills_))
        own = [csr_matrix((values, cells), shape=shape) for values in (np.ones(len(frame)), logs[:, 0], logs[:, 1])]
        return hstack([*own, csr_matrix(logs)]).tocsr()


@dataclass(frozen=True)
class _Runs:
    """Attempts grouped by student and skill, laid out step by step: the first attempts of all runs, then the second ones ..."""

    rows: np.ndarray  # places in the frame, step after step; within a step longer runs first
    stops: np.ndarray  # where each step ends in `rows`
    skills: np.ndarray  # of each run, longest first

    def steps(self) -> list[slice]:
        return [slice(start, stop) for start, stop in pairwise([0, *self.stops])]


class BayesianTracing(BaseEstimator):
    """Bayesian knowledge tracing: a hidden state for each student and skill, either known or not, fitted by expectation maximisation.

    A skill is known at the start with some probability, and learned after an attempt with another; it is never forgotten. A right
    answer comes with 1 - slip if it is known, else with guess. Every probability is drawn to a usual value as if by `strength`
    attempts, so that rare skills stay sensible, and neither guess nor slip may pass one half.

    Args:
        num_rounds: Rounds of expectation maximisation.
        strength: Attempts that the usual value counts as.

    Attributes:
        skills_: The skills of train, sorted.
        parameters_: One row a skill: skill, known_at_start, learn, guess, slip.
        log_losses_: Mean log loss on train before each round.

    Reference:
        Corbett and Anderson (1995), "Knowledge Tracing: Modeling the Acquisition of Procedural Knowledge".
    """

    USUAL = (0.4, 0.15, 0.2, 0.1)  # known at start, learn, guess, slip: where the search starts

    def __init__(self, *, num_rounds: int = 30, strength: float = 5.0):
        self.num_rounds, self.strength = num_rounds, strength

    def fit(self, frame: pd.DataFrame, y: object = None) -> "BayesianTracing":
        """Fit the four probabilities of each skill to attempts of train; `y` is ignored, the frame holds the column correct."""
        check_positive(num_rounds=self.num_rounds)
        self.skills_ = sorted(frame["skill"].unique())
        self._values = np.tile(self.USUAL, (len(self.skills_), 1))
        runs = self._runs(frame)
        correct = frame["correct"].to_numpy(dtype="float64")[runs.rows]
        steps = runs.steps()
        of_row = np.concatenate([runs.skills[: step.stop - step.start] for step in steps])
        self.log_losses_ = []  # mean, before each round

        def add_up(values: np.ndarray, skills: np.ndarray) -> np.ndarray:
            return np.bincount(skills, values, minlength=len(self.skills_))

        for _ in range(self.num_rounds):
            before, after, chance = self._filter(runs, correct)
            self.log_losses_.append(float(-np.log(np.where(correct == 1, chance, 1 - chance)).mean()))
            known = after.copy()  # given the attempts that follow, too
            for step, following in zip(reversed(steps[:-1]), reversed(steps[1:]), strict=True):
                num = following.stop - following.start
                known[step.start : step.start + num] *= known[following] / before[following]
            learned, unknown = np.zeros(len(self.skills_)), np.zeros(len(self.skills_))
            for step, following in pairwise(steps):
                skills = runs.skills[: following.stop - following.start]
                earlier = known[step.start : step.start + len(skills)]
                learned += add_up(known[following] - earlier, skills)
                unknown += add_up(1 - earlier, skills)
            hits = [
                add_up(known[steps[0]], runs.skills),
                learned,
                add_up((1 - known) * correct, of_row),
                add_up(known * (1 - correct), of_row),
            ]
            tries = [np.bincount(runs.skills, minlength=len(self.skills_)), unknown, add_up(1 - known, of_row), add_up(known, of_row)]
            found = [(h + self.strength * usual) / (n + self.strength) for h, n, usual in zip(hits, tries, self.USUAL, strict=True)]
            self._values = np.stack(found, axis=1)
            self._values[:, 2:] = np.minimum(self._values[:, 2:], 0.5)
        return self

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return one probability a row."""
        return self._by_row(frame)[0]

    def mastery(self, frame: pd.DataFrame) -> np.ndarray:
        """Return for each row the probability that the skill was known before the attempt."""
        return self._by_row(frame)[1]

    def knowledge(self, histories: list[list[tuple[int, int]]]) -> np.ndarray:
        """Return the probability that each skill is known after attempts (skill's place, correct): shape (histories, skills)."""
        start, learn, guess, slip = self._values.T
        known = np.tile(start, (len(histories), 1))
        for row, history in enumerate(histories):
            for skill, correct in history:
                p = known[row, skill]
                right, wrong = (
                    (p * (1 - slip[skill]), (1 - p) * guess[skill]) if correct else (p * slip[skill], (1 - p) * (1 - guess[skill]))
                )
                p = right / (right + wrong)
                known[row, skill] = p + (1 - p) * learn[skill]
        return known

    @property
    def parameters_(self) -> pd.DataFrame:
        """One row a skill: skill, known_at_start, learn, guess, slip."""
        return pd.DataFrame(self._values, columns=["known_at_start", "learn", "guess", "slip"]).assign(skill=self.skills_)[
            ["skill", "known_at_start", "learn", "guess", "slip"]
        ]

    def _by_row(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        runs = self._runs(frame)
        before, _, chance = self._filter(runs, frame["correct"].to_numpy(dtype="float64")[runs.rows])
        back = np.argsort(runs.rows)
        return chance[back], before[back]

    def _runs(self, frame: pd.DataFrame) -> _Runs:
        codes = skill_codes(frame["skill"].tolist(), self.skills_)
        keys = pd.DataFrame({"student": frame["student"].to_numpy(), "skill": codes})
        grouped = keys.groupby(["student", "skill"], sort=False)
        run, place = grouped.ngroup().to_numpy(), grouped.cumcount().to_numpy()
        longest = np.argsort(-np.bincount(run), kind="stable")
        rank = np.argsort(longest)[run]
        rows = np.lexsort([rank, place])
        return _Runs(rows=rows, stops=np.cumsum(np.bincount(place)), skills=codes[rows[: len(longest)]])

    def _filter(self, runs: _Runs, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return before each attempt P(known) and P(right), and P(known) given its answer; in the order of `runs.rows`."""
        start, learn, guess, slip = (values[runs.skills] for values in self._values.T)
        before, after, chance = (np.zeros(len(correct)) for _ in range(3))
        known = start
        for step in runs.steps():
            num = step.stop - step.start
            p, g, s, right = known[:num], guess[:num], slip[:num], correct[step] == 1
            # Each way adds up by itself: with 1 - chance in place of `wrong`, a p of nearly 1 would be rounded to above it and run away.
            wrong = p * s + (1 - p) * (1 - g)
            before[step], chance[step] = p, p * (1 - s) + (1 - p) * g
            after[step] = np.where(right, p * (1 - s) / chance[step], p * s / wrong)
            known = after[step] + (1 - after[step]) * learn[:num]
        return before, after, chance
