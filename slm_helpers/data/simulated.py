"""Simulated learners with known true parameters, so that advice on what to practise next can be checked against the truth.

This is a simulation and no real student's data. Each learner either has or lacks each skill (Bayesian knowledge tracing,
Corbett and Anderson 1994): an answer is right with 1 - slip if mastered, else with guess; after each attempt the skill may
be learned, sooner for quick learners and where its prerequisite is mastered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slm_helpers._checks import check_positive

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


def practise(
    choose: Callable[[list[SimulatedStudent], list[list[tuple[int, int]]], np.random.Generator], Sequence[int]],
    *,
    num_students: int = 100,
    num_known: int = 20,
    num_exercises: int = 30,
    seed: int = 11,
) -> pd.DataFrame:
    """Let learners do exercises that somebody chooses, and see what they learn.

    Whoever chooses meets the same learners with the same first attempts, as long as the seed is the same.

    Args:
        choose: Gets the learners, their attempts so far (skill's number, 1 right or 0) and a generator, and returns a skill for
            each. Only an oracle may look into the learners.
        num_students: Learners.
        num_known: Attempts of each, at skills drawn from the course up to where the learner stands, before the advice begins.
        num_exercises: Exercises that are chosen.
        seed: Of the learners and of what happens to them.

    Returns:
        One row a learner: before and after, how many skills are mastered when the advice begins and ends, and correct, the share
        of right answers in between.
    """
    check_positive(num_students=num_students, num_known=num_known, num_exercises=num_exercises)
    parameters = draw_skill_parameters()
    students, histories = [], []
    for number in range(num_students):
        rng = np.random.default_rng([seed, number])
        frontier = int(rng.integers(0, 16))
        student = SimulatedStudent(parameters, start=frontier, rng=rng)
        skills = rng.integers(0, frontier + 1, num_known).tolist()
        histories.append([(skill, int(student.attempt(skill))) for skill in skills])
        students.append(student)
    before = [int(student.mastered.sum()) for student in students]
    rng = np.random.default_rng([seed, num_students, num_exercises])
    for _ in range(num_exercises):
        for student, history, skill in zip(students, histories, choose(students, histories, rng), strict=True):
            history.append((int(skill), int(student.attempt(int(skill)))))
    correct = [np.mean([answer for _, answer in history[num_known:]]) for history in histories]
    return pd.DataFrame({"before": before, "after": [int(student.mastered.sum()) for student in students], "correct": correct})


VOWELS = {"a": (750, 1250), "e": (450, 1950), "i": (280, 2350), "o": (450, 850), "u": (320, 1150)}  # first two formants, in hertz
# Ten words of two vowels; each has its mirror image among the others, so that the order of the sounds counts.
TONE_WORDS = ("a-i", "i-a", "o-e", "e-o", "u-a", "a-u", "i-u", "u-i", "e-a", "a-e")


def simulate_tone_words(*, num_speakers: int = 6, num_takes: int = 10, seed: int = 7) -> pd.DataFrame:
    """Synthesise ten made-up words by made-up voices, a stand-in where no recordings are at hand.

    This is not speech. A word is a buzz whose two resonances (formants) glide from one vowel to another; voices differ in pitch and
    in the length of their vocal tract, takes in speed, melody, vowels slightly off, noise, and when the
    word begins.

    Args:
        num_speakers: Voices.
        num_takes: Recordings of each word by each voice; of ten, six are train, one valid and three test.
        seed: Of everything.

    Returns:
        One row a recording: sound (float32 samples, 8,000 a second), label ("0" to "9"), speaker, id, split.
    """
    check_positive(num_speakers=num_speakers, num_takes=num_takes)
    rng = np.random.default_rng([seed, num_speakers, num_takes])
    rows = []
    for number in range(num_speakers):
        voice = {"pitch": float(np.exp(rng.uniform(np.log(90), np.log(230)))), "tract": float(rng.uniform(0.82, 1.2))}
        for label, word in enumerate(TONE_WORDS):
            for take in range(num_takes):
                place = take % 10
                split = "train" if place < 6 else "valid" if place == 6 else "test"
                rows.append((_speak(word, **voice, rng=rng), str(label), f"voice-{number + 1}", f"{label}_{number + 1}_{take}", split))
    return pd.DataFrame(rows, columns=["sound", "label", "speaker", "id", "split"])


def _speak(word: str, *, pitch: float, tract: float, rng: np.random.Generator, rate: int = 8000) -> np.ndarray:
    """Return the samples of one take of a word."""
    seconds = 0.42 * float(np.exp(rng.normal(0, 0.18)))
    time = np.arange(round(seconds * rate)) / (seconds * rate)  # from 0 to 1
    first, last = (np.array(VOWELS[vowel]) * tract * np.exp(rng.normal(0, 0.06, 2)) for vowel in word.split("-"))
    middle, width = rng.uniform(0.3, 0.7), rng.uniform(0.04, 0.12)
    share = 1 / (1 + np.exp(-(time - middle) / width))[:, None]
    formants = (1 - share) * first + share * last
    melody = pitch * np.exp(rng.normal(0, 0.06) + rng.normal(0, 0.15) * (time - 0.5))
    phase = 2 * np.pi * np.cumsum(melody) / rate
    harmonics = np.arange(1, int(0.47 * rate / melody.max()) + 1)
    heights = harmonics * melody[:, None]
    loud = sum(
        gain / (1 + ((heights - formants[:, i : i + 1]) / width) ** 2) for i, (gain, width) in enumerate([(1.0, 70.0), (0.5, 110.0)])
    )
    sound = (loud * np.sin(harmonics * phase[:, None])).sum(axis=1)
    sound *= np.minimum(1, np.minimum(time, 1 - time) / 0.12)  # fades in and out
    sound *= 1 - rng.uniform(0.2, 0.8) * np.exp(-(((time - middle) / 0.06) ** 2))  # and is closed a little between the vowels
    level = np.sqrt((sound**2).mean())
    # As in a recording, nobody knows when the word begins.
    sound = np.pad(sound, rng.integers(0, round(0.25 * rate), 2))
    sound = sound + rng.normal(0, level * 10 ** (-rng.uniform(0, 20) / 20), len(sound))
    return (0.3 * rng.uniform(0.3, 1.0) * sound / np.abs(sound).max()).astype("float32")
