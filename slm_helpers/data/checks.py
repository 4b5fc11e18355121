"""Look once at rows before a model is trained on them, and say in short lines what is odd."""

import re
from collections import Counter
from collections.abc import Iterator

from slm_helpers.data.schema import SPLITS, task_columns
from slm_helpers.data.splits import normalise_text

import numpy as np
import pandas as pd

_MISSING = {"na", "n/a", "nan", "null", "none", "nil", "-", "--", "?", "unknown", "missing", "#n/a"}
_RARE = 5  # rows of a class in train, below which little can be learned of it
_RUN = 8  # words of a run that two texts share only if one was made from the other
_MAX_RUNS = 50  # of a text that are compared
_NO_SPACES = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")  # Thai, Japanese, Chinese
_SHOWN = 3  # classes that a line names


def describe_problems(frame: pd.DataFrame, *, task: str | None = None, show_texts: bool = True) -> list[str]:
    """Return short lines on what is odd about rows of `load_dataset`, the gravest first; none if nothing is.

    Looked at are rows left out or repaired, texts that stand in train and in another part too, as they are or nearly, classes that
    a part lacks or that are very rare, labels that differ in case only or look like missing values, and texts with two labels.

    Args:
        frame: Columns of the task and `split`.
        task: Its columns are looked at; without it, those that are there.
        show_texts: Whether a line may quote a text; if not, none of the data leaves the table.

    Example:
        >>> rows = [("good", "a", "train"), ("bad", "b", "train"), ("good", "a", "test")]
        >>> describe_problems(pd.DataFrame(rows, columns=["text", "label", "split"]))[0]
        '1 of 1 test texts stand in train too: scores on them show what was learned by heart.'
    """
    names = [name for name in (task_columns(task) if task is not None else frame.columns) if name in frame]
    lines = [*_left_out(frame)]
    texts = _texts(frame, names)
    if texts is not None:
        lines += _shared_texts(frame["split"], texts)
    if "student" in names:
        lines += _shared_students(frame)
    for name in ("label", "intent"):
        if name in names:
            lines += _odd_labels(frame, name)
            lines += _odd_counts(frame, name)
            if texts is not None:
                lines += _conflicts(texts, frame[name], name, show_texts)
    return lines


def _left_out(frame: pd.DataFrame) -> Iterator[str]:
    for key, what in (("skipped", "rows were left out"), ("repaired", "cells were repaired")):
        found = frame.attrs.get(key, [])
        if found:
            reasons = Counter(f"{row['column']} {row['reason']}".strip()[:80] for row in found)
            yield f"{len(found):,} {what}: {'; '.join(f'{count:,} {reason}' for reason, count in reasons.most_common(3))}."


def _texts(frame: pd.DataFrame, names: list[str]) -> pd.Series | None:
    """Return what each row asks about, in lower case and with single spaces; None where rows hold no text."""
    if "question" in names:
        texts = frame["context"] + " " + frame["question"] if "context" in frame else frame["question"]
    else:
        name = next((name for name in ("text", "tokens", "source") if name in names), None)
        if name is None:
            return None
        texts = frame[name]
    return pd.Series([" ".join(text.lower().split()) for text in texts], index=frame.index)


def _shared_texts(splits: pd.Series, texts: pd.Series) -> Iterator[str]:
    """Say how many texts of valid and test stand in train too, and how many share most runs of words with texts of train."""
    train = set(texts[splits == "train"])
    train_runs: set[int] | None = None
    for split in ("valid", "test"):
        part = texts[splits == split]
        equal = part.isin(train)
        if equal.any():
            why = "scores on them show what was learned by heart" if split == "test" else "they are no measure of what was learned"
            yield f"{int(equal.sum()):,} of {len(part):,} {split} texts stand in train too: {why}."
        if train and not equal.all():
            train_runs = {run for text in train for run in _runs(text)} if train_runs is None else train_runs
            near = sum(_is_near_copy(_runs(text), train_runs) for text in part[~equal])
            if near:
                yield f"{near:,} of {len(part):,} {split} texts are nearly in train: most of their runs of {_RUN} words stand there."


def _runs(text: str) -> list[int]:
    """Return hashes of the runs of words in a text (signs, where no spaces are written)."""
    words = normalise_text(text).split()
    if _NO_SPACES.search(text):
        words = list("".join(words))
    return [hash(tuple(words[start : start + _RUN])) for start in range(min(len(words) - _RUN + 1, _MAX_RUNS))]


def _is_near_copy(runs: list[int], known: set[int]) -> bool:
    return bool(runs) and sum(run in known for run in runs) > len(runs) / 2


def _shared_students(frame: pd.DataFrame) -> Iterator[str]:
    train = set(frame.loc[frame["split"] == "train", "student"])
    for split in ("valid", "test"):
        students = set(frame.loc[frame["split"] == split, "student"])
        if students & train:
            yield f"{len(students & train):,} of {len(students):,} {split} students stand in train too."


def _odd_labels(frame: pd.DataFrame, name: str) -> Iterator[str]:
    """Say which labels differ in case only, look like missing values or several labels, or are numbers in great number."""
    counts = frame[name].value_counts()
    spelled: dict[str, list[str]] = {}
    for label in counts.index:
        spelled.setdefault(" ".join(str(label).lower().split()), []).append(label)
    alike = [labels for labels in spelled.values() if len(labels) > 1]
    if alike:
        shown = "; ".join(", ".join(map(repr, sorted(labels))) for labels in alike[:_SHOWN])
        yield f"values of {name} differ in case only and count as different classes: {shown}. Write each in one way."
    missing = [label for label in counts.index if str(label).lower() in _MISSING]
    if missing:
        shown = ", ".join(f"{label!r} ({counts[label]:,} rows)" for label in missing)
        yield f"{name} {shown} looks like a missing value, but counts as a class. Leave the cell empty where there is no label."
    classes = set(counts.index)
    several = [label for label in classes if "," in label and {part.strip() for part in label.split(",")} <= classes]
    if several:
        yield (
            f"{len(several):,} values of {name} look like several labels in one, e.g. {min(several, key=len)!r}; each such combination "
            "counts as a class of its own."
        )
    numbers = [label for label in counts.index if label.replace(".", "", 1).lstrip("-").isdigit()]
    if len(numbers) > 20 and len(numbers) > 0.9 * len(counts):
        yield f"{name} has {len(numbers):,} different numbers, and each counts as a class; their order is not used. Join them into ranges."


def _odd_counts(frame: pd.DataFrame, name: str) -> Iterator[str]:
    """Say which classes are rare, and which a part lacks."""
    table = pd.crosstab(frame[name], frame["split"]).reindex(columns=SPLITS, fill_value=0)
    train = table["train"]
    rare = train[(train > 0) & (train < _RARE)].sort_values()
    if len(rare) and train.sum() > 10 * _RARE:
        yield f"{len(rare):,} of {len(table):,} classes of {name} have fewer than {_RARE} rows in train: {_some(rare)}."
    absent = {split: table[(table[split] == 0) & (train > 0)].sum(axis=1) for split in SPLITS[1:] if table[split].sum()}
    if len(absent) == 2 and absent["valid"].index.equals(absent["test"].index):
        absent = {"valid and test": absent["test"]}
    for split, counts in absent.items():
        if len(counts):
            yield f"{split}: no row of {len(counts):,} of {len(table):,} classes of {name}, so no score tells of them: {_some(counts)}."
    unseen = table[train == 0].sum(axis=1)
    if train.sum() and len(unseen):
        yield f"{len(unseen):,} classes of {name} never stand in train: {_some(unseen)}."
    share = train.max() / max(train.sum(), 1)
    if share > 0.95 and len(table) > 1:
        yield f"{share:.1%} of train are {train.idxmax()!r}: compare with a model that always says so."


def _some(counts: pd.Series) -> str:
    shown = ", ".join(f"{label!r} ({count:,})" for label, count in counts.head(_SHOWN).items())
    return shown + (f" and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else "")


def _conflicts(texts: pd.Series, labels: pd.Series, name: str, show_texts: bool) -> Iterator[str]:
    """Say how many texts stand there with different labels."""
    pairs = pd.DataFrame({"text": texts, "label": labels}).drop_duplicates()
    twice = pairs["text"].duplicated(keep=False).to_numpy()
    if twice.any():
        number = pairs["text"][twice].nunique()
        first = pairs["text"].iloc[int(np.argmax(twice))]
        theirs = ", ".join(map(repr, pairs["label"][pairs["text"] == first].head(3)))
        example = f" ({theirs} for {first[:60]!r})" if show_texts else ""
        yield f"{number:,} texts have several values of {name}{example}: no model can be right on all of them."
