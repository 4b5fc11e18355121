"""One call for every data set: bundled corpora, public sets and a person's own file, as a DataFrame with a `split` column."""

import warnings
from pathlib import Path

from slm_helpers._checks import check_choice
from slm_helpers.data.bundled import BUNDLED, load_bundled
from slm_helpers.data.files import FORMATS, SPREADSHEETS
from slm_helpers.data.own_files import Options, load_line_pairs, load_own
from slm_helpers.data.public import PUBLIC, load_public
from slm_helpers.data.schema import (
    ALL_COLUMNS,
    SPLITS,
    task_columns,
)
from slm_helpers.data.simulated import simulate_tone_words

import pandas as pd


def load_dataset(
    name_or_path: str | Path,
    *,
    task: str | None = None,
    split: str | None = None,
    encoding: str = "utf-8",
    header: bool = True,
    strict: bool = False,
    seed: int = 42,
    **columns: str | None,
) -> pd.DataFrame:
    """Load a bundled corpus ("stories"), a public set ("sst2") or your own file ("my.csv").

    Several sets of one task may be joined with a plus ("story_books+childrens_books"). For your own file, name its columns
    where they differ from ours: `load_dataset("my.csv", text="comment", label="stars")`. A column `split` in the file is
    kept (dev, val and validation become valid); without one, rows are dealt 80/10/10 at random, equal texts on one side.
    Rows without text or label are left out, counted in a warning and listed by `skipped_rows`; so are broken rows, as long as they
    are few. A file of questions and answers needs no context (facts, asked without a passage) and no answer_start (the first place
    of the answer in its context counts). Sentences and their translations may also stand in two text files, a line each:
    `load_dataset("train.en::train.es")`; an ending of two letters names the target language.

    Args:
        name_or_path: Name of a set, or path of a .csv, .tsv, .json, .jsonl, .txt, .parquet or CoNLL file, also as .gz or .zip.
        task: Read only the columns of this task ("classify", "tag", "answer" ...), also under other usual names.
        split: Return only this split. For a file without a column `split`: count all its rows to this split.
        encoding: Of your own file, e.g. "cp1252"; a byte order mark overrules it.
        header: Whether the first line of your table names the columns. If not, they are called "1", "2" and so on.
        strict: Refuse a file that needs a repair or has a broken row.
        seed: Of the random split of your own file.
        **columns: Names (or numbers, or paths such as "data.text") that your file uses for our columns: text, label, tokens, tags,
            sentence (of a token, where each row is one), intent, sound, source, target, target_language, tone, context, question,
            answer, answer_start, turns, student, step, skill, correct.

    Returns:
        DataFrame with the task's columns (strings, but for whole numbers and lists of turns) and `split`.

    Raises:
        FileNotFoundError: If no such file or set is at hand.
        ValueError: If the data cannot be used as they are; the message names file, row and column and what to do.
        TypeError: If a keyword is neither an option nor one of our columns.
    """
    named = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    unknown = [ours for ours in columns if ours not in ALL_COLUMNS]
    if unknown:
        raise TypeError(f"load_dataset has no option and knows no column {unknown[0]!r}. Columns are {', '.join(ALL_COLUMNS)}.")
    if split is not None:
        check_choice(SPLITS, split=split)
    if task is not None:
        task_columns(task)
    name = str(name_or_path)
    if "::" in name or _looks_like_a_file(name):
        options = Options(named, task, split, encoding, header, strict, seed)
        frame = load_line_pairs(name, options) if "::" in name else load_own(Path(name), options)
        for note in options.notes:
            warnings.warn(f"{name}: {note}", stacklevel=2)
        return frame
    if named:
        raise ValueError(f"Column names go with your own file, but {name!r} is the name of a set. Leave out {', '.join(named)}=.")
    parts = [_load_named(part.strip()) for part in name.split("+")]
    frame = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    if split is not None:
        frame = frame[frame["split"] == split].reset_index(drop=True)
        if frame.empty:
            raise ValueError(f"{name} has no split {split!r}.")
    return frame


def list_datasets() -> pd.DataFrame:
    """Return one row a known set: name, task, source (bundled or public) and what it holds."""
    rows = [(name, c.task, "bundled", c.about) for name, c in BUNDLED.items()]
    rows.append(("tone_words", "listen", "bundled", "ten made-up words by synthetic voices, made when asked for (no speech)"))
    rows += [(name, p.task, "public", p.about) for name, p in PUBLIC.items()]
    return pd.DataFrame(rows, columns=["name", "task", "source", "about"])


def skipped_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what `load_dataset` left out of `frame`: columns where, column, reason; no row if nothing was left out."""
    return pd.DataFrame(frame.attrs.get("skipped", []), columns=["where", "column", "reason"])


def repaired_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return which cells `load_dataset` changed to read them: columns where, column, reason; no row if there is none."""
    return pd.DataFrame(frame.attrs.get("repaired", []), columns=["where", "column", "reason"])


def _looks_like_a_file(name: str) -> bool:
    return "/" in name or "\\" in name or name.lower().removesuffix(".gz").endswith((*FORMATS, ".zip", *SPREADSHEETS))


def _load_named(name: str) -> pd.DataFrame:
    if name in BUNDLED:
        return load_bundled(name)
    if name == "tone_words":
        return simulate_tone_words()
    if name in PUBLIC:
        return load_public(name)
    raise ValueError(
        f"{name!r} is neither a set nor a file. Bundled: {', '.join([*BUNDLED, 'tone_words'])}. Public: {', '.join(PUBLIC)}. "
        f"Your own file needs one of the endings {', '.join(FORMATS)}."
    )
