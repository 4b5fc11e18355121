"""Learners' attempts: the checks they have to pass, and what is known of a learner before each of them."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

NUM_FEATURES = 8
_EMA_WEIGHT = 0.3  # of the newest answer in an exponential moving average


class Learner:
    """What is known of one learner so far. Take its `features` before an attempt and `update` it afterwards, in order."""

    __slots__ = ("_all", "_skills", "num_attempts", "past")

    def __init__(self):
        self.past: list[tuple[int, int]] = []  # skill and correct of each attempt, or of the last ones after `forget`
        self.num_attempts = 0
        self._skills: dict[int, list[float]] = {}  # right, wrong, moving average, index of the last attempt
        self._all = [0, 0, 0.5]

    def features(self, skill: int) -> list[int]:
        """Return NUM_FEATURES whole numbers, in hundredths, on the learner and a skill (its number).

        The logarithms of right and wrong answers on the skill, and on all skills, plus 1; exponential moving averages of the answers on
        the skill and on all, above or below one half; the logarithm of the attempts since the last one on the skill; 1 if there was
        none.
        """
        right, wrong, mean, last = self._skills.get(skill, (0, 0, 0.5, -1))
        gap = self.num_attempts - last if last >= 0 else 0
        logs = [math.log1p(count) for count in (right, wrong, self._all[0], self._all[1])]
        return [round(100 * x) for x in (*logs, 2 * mean - 1, 2 * self._all[2] - 1, math.log1p(gap), last < 0)]

    def counts(self, skill: int) -> tuple[int, int, int, int]:
        """Return right and wrong answers so far, on the skill and on all skills."""
        right, wrong, _, _ = self._skills.get(skill, (0, 0, 0.5, -1))
        return int(right), int(wrong), self._all[0], self._all[1]

    def update(self, skill: int, correct: int) -> None:
        """Add an attempt."""
        counts = self._skills.setdefault(skill, [0, 0, 0.5, -1])
        for known in (counts, self._all):
            known[0] += correct
            known[1] += 1 - correct
            known[2] += _EMA_WEIGHT * (correct - known[2])
        counts[3] = self.num_attempts
        self.past.append((skill, correct))
        self.num_attempts += 1

    def forget(self, num_kept: int) -> None:
        """Keep the last attempts only in `past`; `features` and `counts` stay the same."""
        del self.past[:-num_kept]


def order_attempts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return attempts checked and in order, one row an attempt: learners in the order of their first row, their attempts by `step`.

    Several rows with the same student and step are one attempt at an exercise for several skills, as the ASSISTments tables have
    them. Left apart, each row would tell the answer of the next. They become one row, whose skill is all of theirs, and a warning
    says how many.

    Args:
        frame: Columns student, step, skill, correct, and more, of which the first row's cells are kept.

    Raises:
        ValueError: If `correct` holds anything but 0 and 1, or rows of one attempt do not agree on it.
    """
    bad = np.flatnonzero(~frame["correct"].isin([0, 1]))
    if len(bad):
        raise ValueError(f"row {bad[0] + 1}: correct is {frame['correct'].iloc[bad[0]]!r}, but must be 1 (right) or 0 (wrong).")
    first = frame.groupby("student", sort=False).ngroup()
    ordered = frame.iloc[np.lexsort([frame["step"], first])]
    keys = ["student", "step"]
    several = ordered.duplicated(keys, keep=False)
    if not several.any():
        return ordered.reset_index(drop=True)
    groups = ordered[several].groupby(keys, sort=False)
    torn = groups["correct"].nunique()
    if (torn > 1).any():
        student, step = torn.index[int(np.argmax(torn > 1))]
        raise ValueError(
            f"student {student!r}, step {step}: several rows are one attempt, but some are right and some wrong. "
            "Number the attempts of a learner in the column step, one number each."
        )
    skills = groups["skill"].agg(lambda names: " + ".join(sorted(set(names))))
    joined = ordered[~ordered.duplicated(keys)].copy()
    at = pd.MultiIndex.from_frame(joined[keys])
    joined["skill"] = np.where(at.isin(skills.index), skills.reindex(at).to_numpy(), joined["skill"])
    warnings.warn(
        f"{int(several.sum()):,} rows are {len(skills):,} attempts at exercises for several skills; each became one row.", stacklevel=2
    )
    return joined.reset_index(drop=True)


def skill_codes(names: Sequence[str], skills: Sequence[str], *, where: str | Sequence[str] = "row") -> np.ndarray:
    """Return the index of each name among the known skills.

    Args:
        names: Of skills.
        skills: Those known.
        where: For messages: what is counted, or where each name stands.

    Raises:
        ValueError: For the first name that is not known.
    """
    index = {name: code for code, name in enumerate(skills)}
    for row, name in enumerate(names, 1):
        if name not in index:
            place = f"{where} {row}" if isinstance(where, str) else where[row - 1]
            raise ValueError(
                f"{place}: the skill {name!r} is unknown to this model, which knows {', '.join(skills[:10])}"
                f"{' ...' if len(skills) > 10 else ''}. Correct its spelling, or train with rows of that skill."
            )
    return np.array([index[name] for name in names], dtype="int64")


def find_duplicate_skills(frame: pd.DataFrame, *, min_students: int = 8) -> pd.DataFrame:
    """Find skills that seem to be two names of the same attempts, in data that give no number of the exercise.

    Some tables hold an exercise for two skills as two rows, and keep all rows of a learner sorted by skill. Then the learner's
    answers on one skill are those on the other, letter by letter, and whoever reads one knows the other. Compared are learners who
    have as many attempts at both skills, two at least. Skills whose exercises are shared in part only cannot be found so.

    Returns:
        One row a pair: skill, duplicate, students (with as many attempts at both), same (of these, with the same answers), expected (how
        many would be by chance) and alone (students whose answers on the duplicate are not those on the skill). Pairs are kept where
        85 % agree and chance would explain at most 70 % of that.
    """
    counts: dict[tuple[str, str], list[float]] = {}
    learners = _blocks(frame)
    for blocks in learners.values():
        names = sorted(blocks)
        means = {name: sum(blocks[name]) / len(blocks[name]) for name in names}
        for place, name in enumerate(names):
            for duplicate in names[place + 1 :]:
                if len(blocks[name]) == len(blocks[duplicate]) >= 2:
                    a, b = means[name], means[duplicate]
                    found = counts.setdefault((name, duplicate), [0, 0, 0.0])
                    found[0] += 1
                    found[1] += blocks[name] == blocks[duplicate]
                    found[2] += (a * b + (1 - a) * (1 - b)) ** len(blocks[name])
    rows = [(*pair, *values) for pair, values in counts.items()]
    table = pd.DataFrame(rows, columns=["skill", "duplicate", "students", "same", "expected"])
    clear = (table["students"] >= min_students) & (table["same"] >= 0.85 * table["students"]) & (table["expected"] <= 0.7 * table["same"])
    table = table[clear].sort_values("same", ascending=False).reset_index(drop=True)
    return table.assign(
        alone=[
            sum(duplicate in blocks and blocks.get(skill) != blocks[duplicate] for blocks in learners.values())
            for skill, duplicate in zip(table["skill"], table["duplicate"], strict=True)
        ]
    )


def merge_duplicate_skills(frame: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """Return attempts without those that a learner has twice under the two names of `find_duplicate_skills`; the first name stays.

    A duplicate that never went alone is renamed where it does here: else it would be a skill that nobody could learn about.
    """
    pairs = set(zip(duplicates["skill"], duplicates["duplicate"], strict=True))
    doubled = set()
    for student, blocks in _blocks(frame).items():
        kept: list[str] = []
        for name in sorted(blocks):
            if any((other, name) in pairs and blocks[other] == blocks[name] for other in kept):
                doubled.add((student, name))
            else:
                kept.append(name)
    again = [pair in doubled for pair in zip(frame["student"], frame["skill"], strict=True)]
    joined = frame[~np.array(again, dtype=bool)].reset_index(drop=True)
    never_alone = duplicates[duplicates["alone"] == 0].drop_duplicates("duplicate")
    names = dict(zip(never_alone["duplicate"], never_alone["skill"], strict=True))
    for _ in names:  # a first name may be a duplicate itself
        joined["skill"] = joined["skill"].replace(names)
    return joined


def _blocks(frame: pd.DataFrame) -> dict[str, dict[str, list[int]]]:
    """Return the answers of each learner on each skill."""
    found: dict[str, dict[str, list[int]]] = {}
    for student, skill, correct in zip(frame["student"], frame["skill"], frame["correct"], strict=True):
        found.setdefault(student, {}).setdefault(skill, []).append(correct)
    return found
