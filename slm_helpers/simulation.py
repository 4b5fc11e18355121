"""Simulated learners with known true parameters, so that advice on what to practise next can be checked against the truth.

This is a simulation and no real student's data. Each learner either has or lacks each skill (Bayesian knowledge tracing,
Corbett and Anderson 1994): an answer is right with 1 - slip if mastered, else with guess; after each attempt the skill may
be learned, sooner for quick learners and where its prerequisite is mastered.
"""

from dataclasses import dataclass

from slm_helpers.checks import check_positive

import numpy as np
import pandas as pd

SKILLS = (
    "counting", "addition", "subtraction", "place value", "multiplication", "division", "order of operations", "fractions",
    "equal fractions", "adding fractions", "decimals", "percentages", "ratios", "negative numbers", "powers", "expressions",
    "linear equations", "graphs of lines", "areas", "averages",
)  # fmt: skip
# The skill that makes each one easier to learn; None where there is none.
PREREQUISITES = (None, 0, 1, 0, 1, 4, 5, 5, 7, 8, 3, 10, 7, 2, 4, 6, 15, 16, 4, 5)


@dataclass(frozen=True)
class SkillParameters:
    """True parameters of every skill; arrays of shape (num_skills,), all probabilities."""

    known_at_start: np.ndarray
    learn: np.ndarray  # per attempt, for an average learner whose prerequisite is mastered
    guess: np.ndarray
    slip: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """Return one row a skill: skill, prerequisite and the four probabilities."""
        return pd.DataFrame(
            {
                "skill": SKILLS,
                "prerequisite": ["" if p is None else SKILLS[p] for p in PREREQUISITES],
                "known_at_start": self.known_at_start,
                "learn": self.learn,
                "guess": self.guess,
                "slip": self.slip,
            }
        )


def draw_skill_parameters(*, seed: int = 7) -> SkillParameters:
    """Draw the true parameters of the twenty skills; later skills are known by fewer and learned more slowly."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(0, 1, len(SKILLS))
    return SkillParameters(
        known_at_start=np.round(np.clip(0.55 - 0.5 * depth + rng.normal(0, 0.05, len(SKILLS)), 0.02, 0.9), 3),
        learn=np.round(np.clip(0.30 - 0.15 * depth + rng.normal(0, 0.03, len(SKILLS)), 0.05, 0.5), 3),
        guess=np.round(rng.uniform(0.10, 0.30, len(SKILLS)), 3),
        slip=np.round(rng.uniform(0.03, 0.12, len(SKILLS)), 3),
    )


class SimulatedStudent:
    """One learner: `attempt(skill)` gives an answer and may teach the skill; `mastered` is the hidden truth."""

    def __init__(self, parameters: SkillParameters, *, start: int = 0, rng: np.random.Generator):
        self.parameters = parameters
        self.rng = rng
        self.speed = float(np.exp(rng.normal(0, 0.4)))  # multiplies every chance to learn
        # Skills of earlier school years (before `start`) are known by 85 in 100, the others as drawn.
        chance = np.where(np.arange(len(SKILLS)) < start, 0.85, parameters.known_at_start)
        self.mastered = rng.random(len(SKILLS)) < chance

    def attempt(self, skill: int) -> bool:
        """Answer one exercise of `skill` (its number); returns whether the answer is right, then learns with some chance."""
        p = self.parameters
        chance = 1 - p.slip[skill] if self.mastered[skill] else p.guess[skill]
        correct = bool(self.rng.random() < chance)
        ready = PREREQUISITES[skill] is None or self.mastered[PREREQUISITES[skill]]
        # Without the prerequisite practice helps little.
        if self.rng.random() < min(0.9, p.learn[skill] * self.speed * (1.0 if ready else 0.25)):
            self.mastered[skill] = True
        return correct


def simulate_students(num_students: int = 400, *, seed: int = 7) -> pd.DataFrame:
    """Simulate a class that works through the skills in short blocks and comes back to some.

    Returns:
        One row an attempt, in order: student, step (from 0), skill (its name), correct (0 or 1), mastered (0 or 1: the truth
        before the attempt), split (by student: 70 % train, 10 % valid, 20 % test).
    """
    check_positive(num_students=num_students)
    parameters = draw_skill_parameters(seed=seed)
    rng = np.random.default_rng([seed, num_students])
    rows = []
    for number in range(num_students):
        frontier = int(rng.integers(0, 16))  # where in the course this learner stands
        student = SimulatedStudent(parameters, start=frontier, rng=rng)
        split = "train" if number % 10 < 7 else "valid" if number % 10 == 7 else "test"
        step = 0
        length = int(rng.integers(30, 71))
        while step < length:
            # Mostly the next skill of the course, one block in four a look back.
            skill = int(rng.integers(0, frontier + 1)) if rng.random() < 0.25 else frontier
            for _ in range(min(int(rng.integers(2, 8)), length - step)):
                mastered = int(student.mastered[skill])
                rows.append((f"student-{number + 1:03d}", step, SKILLS[skill], int(student.attempt(skill)), mastered, split))
                step += 1
            frontier = min(frontier + 1, len(SKILLS) - 1) if skill == frontier else frontier
    return pd.DataFrame(rows, columns=["student", "step", "skill", "correct", "mastered", "split"])
