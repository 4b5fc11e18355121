"""One call for every data set: bundled corpora, public sets and a person's own file, as a DataFrame with a `split` column.

Also what a language model needs before it sees a number: near copies, splits without leaks, and windows of token ids.
"""

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slm_helpers._checks import check_choice, check_positive
from slm_helpers.data.files import FORMATS, read_rows, read_text, sha256_of

import numpy as np
import pandas as pd

DATA_DIR = Path(__file__).resolve().parents[2] / "data"
SPLITS = ("train", "valid", "test")
_SPLIT_ALIASES = {"dev": "valid", "val": "valid", "validation": "valid", "eval": "valid", "training": "train"}
TASK_COLUMNS = {
    "language_model": ("text",),
    "classify": ("text", "label"),
    "tag": ("tokens", "tags"),
    "command": ("tokens", "tags", "intent"),
    "listen": ("sound", "label"),
    "translate": ("source", "target"),
    "answer": ("context", "question", "answer", "answer_start"),
    "dialogue": ("turns",),
    "trace": ("student", "step", "skill", "correct"),
}
_COLUMNS = (*dict.fromkeys(name for names in TASK_COLUMNS.values() for name in names), "target_language", "tone")
_MAY_BE_EMPTY = ("answer", "context", "intent", "tone")  # other tasks may have rows without; the task that needs one says so
_WHOLE_NUMBERS = ("answer_start", "step", "correct")
# What stands for a column that a file lacks, if it has those that the column goes with.
OPTIONAL = {"context": "", "answer_start": -1, "target_language": "", "tone": ""}
_GOES_WITH = {
    "context": {"question", "answer"},
    "answer_start": {"question", "answer"},
    "target_language": {"source", "target"},
    "tone": {"source", "target"},
}


def load_dataset(
    name_or_path: str | Path,
    *,
    split: str | None = None,
    text: str | None = None,
    label: str | None = None,
    tokens: str | None = None,
    tags: str | None = None,
    intent: str | None = None,
    sound: str | None = None,
    source: str | None = None,
    target: str | None = None,
    target_language: str | None = None,
    tone: str | None = None,
    context: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    answer_start: str | None = None,
    turns: str | None = None,
    student: str | None = None,
    step: str | None = None,
    skill: str | None = None,
    correct: str | None = None,
    encoding: str = "utf-8",
    seed: int = 42,
) -> pd.DataFrame:
    """Load a bundled corpus ("stories"), a public set ("sst2") or your own file ("my.csv").

    Several sets of one task may be joined with a plus ("story_books+childrens_books"). For your own file, name its columns
    where they differ from ours: `load_dataset("my.csv", text="comment", label="stars")`. A column `split` in the file is
    kept (dev, val and validation become valid); without one, rows are dealt 80/10/10 at random, equal texts on one side.
    Rows without text or label are left out, counted in a warning and listed by `skipped_rows`. A file of questions and answers
    needs no context (facts, asked without a passage) and no answer_start (the first place of the answer in its context counts).
    Sentences and their translations may also stand in two text files, a line each: `load_dataset("train.en::train.es")`; an ending of
    two letters names the target language.

    Args:
        name_or_path: Name of a set, or path of a .csv, .tsv, .jsonl, .txt, .parquet or CoNLL file.
        split: Return only this split. For a file without a column `split`: count all its rows to this split.
        text, label, tokens, tags, intent, sound, source, target, target_language, tone, context, question, answer, answer_start, turns,
            student, step, skill, correct: Names that your file uses for these columns.
        encoding: Of your own file, e.g. "cp1252".
        seed: Of the random split of your own file.

    Returns:
        DataFrame with the task's columns (strings, but for whole numbers and lists of turns) and `split`.

    Raises:
        FileNotFoundError: If no such file or set is at hand.
        ValueError: If the data cannot be used as they are; the message names file, row and column and what to do.
    """
    columns = {
        "text": text, "label": label, "tokens": tokens, "tags": tags, "intent": intent, "sound": sound,
        "source": source, "target": target, "target_language": target_language, "tone": tone,
        "context": context, "question": question, "answer": answer, "answer_start": answer_start, "turns": turns,
        "student": student, "step": step, "skill": skill, "correct": correct,
    }  # fmt: skip
    columns = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    if split is not None:
        check_choice(SPLITS, split=split)
    name = str(name_or_path)
    if "::" in name:
        return _load_line_pairs(name, columns, split, encoding, seed)
    if _looks_like_a_file(name):
        return _load_own(Path(name), columns, split, encoding, seed)
    if columns:
        raise ValueError(f"Column names go with your own file, but {name!r} is the name of a set. Leave out {', '.join(columns)}=.")
    parts = [_load_named(part.strip()) for part in name.split("+")]
    frame = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    if split is not None:
        frame = frame[frame["split"] == split].reset_index(drop=True)
        if frame.empty:
            raise ValueError(f"{name} has no split {split!r}.")
    return frame


def list_datasets() -> pd.DataFrame:
    """Return one row a known set: name, task, source (bundled or public) and what it holds."""
    from slm_helpers.data.bundled import BUNDLED
    from slm_helpers.data.public import PUBLIC

    rows = [(name, c.task, "bundled", c.about) for name, c in BUNDLED.items()]
    rows.append(("tone_words", "listen", "bundled", "ten made-up words by synthetic voices, made when asked for (no speech)"))
    rows += [(name, p.task, "public", p.about) for name, p in PUBLIC.items()]
    return pd.DataFrame(rows, columns=["name", "task", "source", "about"])


def skipped_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what `load_dataset` left out of `frame`: columns where, column, reason; no row if nothing was left out."""
    return pd.DataFrame(frame.attrs.get("skipped", []), columns=["where", "column", "reason"])


def check_labels(frame: pd.DataFrame, *, name: str = "") -> None:
    """Raise ValueError unless train has two labels at least and the other splits have no label that train lacks."""
    train = set(frame.loc[frame["split"] == "train", "label"])
    if len(train) < 2:
        raise ValueError(
            f"{name or 'the data'}: the labels have {len(train)} class(es) in train ({', '.join(map(repr, sorted(train)))}), "
            "but a classifier needs two at least. Add rows of another class."
        )
    for split in ("valid", "test"):
        unseen = np.flatnonzero((frame["split"] == split) & ~frame["label"].isin(train))
        if len(unseen):
            number = int((frame["split"] == split).iloc[: unseen[0] + 1].sum())
            place = _place(frame, name, unseen[0]) if name or "where" in frame else f"{split}, row {number}"
            raise ValueError(
                f"{place}: label {frame['label'].iloc[unseen[0]]!r} stands in {split} but never in train. "
                "Correct its spelling, add training rows with it, or remove the rows."
            )


def check_tags(frame: pd.DataFrame, *, name: str = "the data") -> None:
    """Raise ValueError for the first row whose tags are not well-formed IOB2 or do not match its tokens in number."""
    for row, (tokens, tags) in enumerate(zip(frame["tokens"], frame["tags"], strict=True)):
        tag_list = tags.split(" ")
        if len(tokens.split(" ")) != len(tag_list):
            raise ValueError(
                f"{_place(frame, name, row)}: {len(tokens.split(' '))} tokens but {len(tag_list)} tags. Each token needs one tag."
            )
        before = "O"
        for place, tag in enumerate(tag_list, 1):
            if not re.fullmatch(r"O|[BI]-\S+", tag):
                raise ValueError(f"{_place(frame, name, row)}, token {place}: {tag!r} is not an IOB2 tag such as O, B-LOC or I-LOC.")
            if tag[0] == "I" and before[2:] != tag[2:]:
                raise ValueError(
                    f"{_place(frame, name, row)}, token {place}: {tag} follows {before}, but I-{tag[2:]} may only continue "
                    f"B-{tag[2:]} or I-{tag[2:]}. Write B-{tag[2:]} where an entity begins."
                )
            before = tag


def make_splits(
    keys: Iterable[str],
    *,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    labels: Iterable[str] | None = None,
    exact: bool = False,
    seed: int = 42,
) -> np.ndarray:
    """Deal rows to train, valid and test at random; rows with the same key (after `normalise_text`) stay together.

    Args:
        keys: One string a row, usually its text.
        shares: Of train, valid and test; they sum to 1.
        labels: If given, every label is dealt in these shares.
        exact: Compare keys to the letter, for names and numbers.
        seed: Of the shuffle. Whoever draws other things at random from the same rows should use another seed for them.

    Returns:
        Array of "train", "valid" and "test", one a row.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares are {shares}, but must be three shares of 0 or more that sum to 1, e.g. (0.8, 0.1, 0.1).")
    table = pd.DataFrame({"key": [key if exact else normalise_text(key) or key for key in keys]})
    table["label"] = list(labels) if labels is not None else ""
    groups = table.drop_duplicates("key").sample(frac=1.0, random_state=seed)
    place = groups.groupby("label").cumcount()
    size = groups.groupby("label")["key"].transform("size")
    num_valid, num_test = np.floor(size * shares[1] + 0.5), np.floor(size * shares[2] + 0.5)
    groups["split"] = np.where(place < num_test, "test", np.where(place < num_test + num_valid, "valid", "train"))
    return table["key"].map(groups.set_index("key")["split"]).to_numpy(dtype=object)


def normalise_text(text: str) -> str:
    """Return the words of `text` in lower case, without punctuation and digits, joined by single spaces."""
    return " ".join(re.sub(r"[^\w\s]|[\d_]", "", text.lower()).split())


def find_shared_runs(texts: Iterable[str], splits: Iterable[str], *, num_words: int = 8) -> pd.DataFrame:
    """Find near copies across splits: runs of `num_words` words that stand in two splits at least.

    Words are compared as `normalise_text` leaves them. Returns one row a run: run, splits, num_rows.
    """
    check_positive(num_words=num_words)
    where: dict[str, set[tuple[str, int]]] = {}
    for row, (text, split) in enumerate(zip(texts, splits, strict=True)):
        words = normalise_text(text).split()
        for start in range(len(words) - num_words + 1):
            where.setdefault(" ".join(words[start : start + num_words]), set()).add((split, row))
    found = []
    for run, places in where.items():
        names = sorted({split for split, _ in places})
        if len(names) > 1:
            found.append((run, "+".join(names), len(places)))
    return pd.DataFrame(found, columns=["run", "splits", "num_rows"])


def make_windows(token_ids: np.ndarray, window: int, *, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cut a stream of token ids into training examples; the targets are the inputs shifted by one.

    Args:
        token_ids: Shape (num_tokens,).
        window: Tokens in one example.
        stride: Tokens from one start to the next; `window` (no overlap) unless given.

    Returns:
        inputs and targets, each int32 of shape (num_windows, window). Tokens after the last full window are left out:
        at most `stride` of them.

    Raises:
        ValueError: If the stream is too short for one window and its target.

    Example:
        >>> make_windows(np.arange(7), 3)[1].tolist()
        [[1, 2, 3], [4, 5, 6]]
    """
    stride = window if stride is None else stride
    check_positive(window=window, stride=stride)
    token_ids = np.asarray(token_ids)
    if token_ids.ndim != 1 or len(token_ids) < window + 1:
        raise ValueError(
            f"token_ids has shape {token_ids.shape}, but a window of {window} needs a flat array of at least {window + 1} tokens. "
            "Use more text or a smaller window."
        )
    view = np.lib.stride_tricks.sliding_window_view(token_ids, window + 1)[::stride]
    return view[:, :-1].astype("int32"), view[:, 1:].astype("int32")


def _place(frame: pd.DataFrame, name: str, row: int) -> str:
    """Say where a row stands: its line in the file while `_load_own` still knows it, else its number."""
    return frame["where"].iloc[row] if "where" in frame else f"{name}, row {row + 1}"


def _looks_like_a_file(name: str) -> bool:
    return "/" in name or "\\" in name or name.lower().removesuffix(".gz").endswith(FORMATS)


def _load_named(name: str) -> pd.DataFrame:
    # Imported here because both build on this module's helpers.
    from slm_helpers.data.bundled import BUNDLED, load_bundled
    from slm_helpers.data.public import PUBLIC, load_public
    from slm_helpers.data.simulated import simulate_tone_words

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


def _load_own(path: Path, columns: dict[str, str], split: str | None, encoding: str, seed: int) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    wanted: dict[str, str] | None = None
    present: set[str] = set()
    for row in read_rows(path, encoding=encoding):
        if wanted is None:
            present = set(row)
            wanted = _wanted_columns(path, columns, list(row))
        late = [name for name in _COLUMNS if name in row and name not in present]
        if late:
            raise ValueError(f"{row.where}: the first row has no {late[0]!r}, but this one has. Give every row the same keys.")
        clean, problem = clean_row(row, wanted)
        if problem:
            skipped.append(problem)
        else:
            clean |= {"split": _split_name(row), "where": row.where}
            rows.append(clean)
    if not rows:
        raise ValueError(
            f"{path}: no row is left: all {len(skipped)} lack a value, e.g. {skipped[0]['where']}, column {skipped[0]['column']!r}."
        )
    frame = pd.DataFrame(rows)
    frame = frame.assign(**{name: value for name, value in OPTIONAL.items() if name not in frame and _GOES_WITH[name] <= set(frame)})
    if {"student", "skill", "correct"} <= set(frame) and "step" not in frame:
        frame["step"] = frame.groupby("student").cumcount()  # in the order of the file
    if "tags" in frame:
        check_tags(frame.assign(where=frame["where"] + f", column {wanted['tags']!r}"))
    has_split = frame["split"].notna()
    if has_split.any() and not has_split.all():
        raise ValueError(f"{frame['where'][~has_split].iloc[0]}, column 'split': empty, but other rows have a split. Fill it in.")
    if has_split.all():
        frame = frame if split is None else frame[frame["split"] == split].reset_index(drop=True)
        if frame.empty:
            raise ValueError(f"{path}: no row has the split {split!r}.")
    elif split is not None:
        frame["split"] = split
    else:
        frame["split"] = _deal_own(path, frame, seed)
    if "label" in frame and (frame["split"] == "train").any():
        column = f", column {wanted['label']!r}"
        check_labels(frame.assign(where=frame["where"] + column), name=f"{path}{column}")
    frame = frame.drop(columns="where")
    if skipped:
        frame.attrs["skipped"] = skipped
        warnings.warn(
            f"{path}: {len(skipped)} of {len(skipped) + len(rows)} rows were left out for want of a value "
            f"(first: {skipped[0]['where']}, column {skipped[0]['column']!r}). skipped_rows(frame) lists them.",
            stacklevel=3,
        )
    return frame


def _load_line_pairs(name: str, columns: dict[str, str], split: str | None, encoding: str, seed: int) -> pd.DataFrame:
    """Return source and target from two text files, of which line n of one translates line n of the other."""
    paths = [Path(part) for part in name.split("::")]
    if len(paths) != 2 or columns:
        raise ValueError(f"{name}: two text files make pairs of lines, e.g. train.en::train.es, and they have no columns to name.")
    lines = [read_text(path, encoding=encoding).removesuffix("\n").split("\n") for path in paths]
    if len(lines[0]) != len(lines[1]):
        raise ValueError(
            f"{paths[0]} has {len(lines[0]):,} lines and {paths[1]} {len(lines[1]):,}, but line n of one must translate line n of the "
            "other. Find where they part: a line is missing, or a text holds a line end."
        )
    frame = pd.DataFrame({"source": lines[0], "target": lines[1]}).map(str.strip)
    empty = (frame == "").any(axis=1).to_numpy()
    if empty.all():
        raise ValueError(f"{name}: no pair is left: in each of the {len(frame)} lines one side is empty.")
    skipped = [
        {"where": f"{paths[int(bool(source))]}, line {row + 1}", "column": "target" if source else "source", "reason": "empty"}
        for row, source in enumerate(frame["source"])
        if empty[row]
    ]
    # The usual names, corpus.en and corpus.es, say the language.
    language = paths[1].suffix[1:] if re.fullmatch(r"\.[a-z]{2}", paths[1].suffix) else ""
    frame = frame[~empty].reset_index(drop=True).assign(target_language=language)
    frame["split"] = split if split is not None else _deal_own(paths[0], frame, seed)
    if skipped:
        frame.attrs["skipped"] = skipped
        warnings.warn(
            f"{name}: {len(skipped)} of {len(empty)} pairs were left out for one side is empty (first: {skipped[0]['where']}). "
            "skipped_rows(frame) lists them.",
            stacklevel=3,
        )
    return frame


def _wanted_columns(path: Path, columns: dict[str, str], present: list[str]) -> dict[str, str]:
    """Return {our name: name in the file}; raise if a named column is missing or none is known."""
    for ours, theirs in columns.items():
        if theirs not in present:
            raise ValueError(f"{path}: there is no column {theirs!r} (asked for as {ours}). It has: {', '.join(present)}.")
    wanted = {name: name for name in _COLUMNS if name in present and name not in columns.values()} | columns
    if not wanted:
        raise ValueError(
            f"{path}: none of its columns ({', '.join(present)}) is called {', '.join(_COLUMNS[:3])} or the like. "
            f'Say which is which, e.g. text="{present[0]}", in the shell --text "{present[0]}".'
        )
    return wanted


def clean_row(
    row: dict[str, Any], wanted: dict[str, str], *, may_be_empty: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Return the wanted cells of one row of `read_rows`, and why the row cannot be used (None if it can).

    Args:
        row: A row as `read_rows` yields it.
        wanted: {our name: name in the file}.
        may_be_empty: Our names of further columns whose cells may be empty ("" then).

    Raises:
        ValueError: If a cell is of a kind that cannot be meant (a list as text, "maybe" as a whole number).
    """
    clean: dict[str, Any] = {}
    where = getattr(row, "where", "row ?")
    for ours, theirs in wanted.items():
        value = row.get(theirs)
        if value is None or value != value or (isinstance(value, str) and not value.strip()):  # NaN alone differs from itself
            if ours in may_be_empty:
                clean[ours] = ""
                continue
            if ours not in _MAY_BE_EMPTY or value is None:
                return {}, {"where": where, "column": theirs, "reason": "empty"}
            value = ""
        if ours in _WHOLE_NUMBERS:
            clean[ours] = _whole_number(value, where, theirs)
            if ours == "correct" and clean[ours] not in (0, 1):
                raise ValueError(f"{where}, column {theirs!r}: {value!r}, but it must be 1 for a right answer or 0 for a wrong one.")
        elif ours == "turns":
            clean[ours] = _turns(value, where, theirs)
        elif ours in ("label", "skill", "student") and isinstance(value, int | float):
            clean[ours] = str(int(value)) if float(value).is_integer() else str(value)  # 1 and 1.0 are the same class
        elif not isinstance(value, str):
            raise ValueError(f"{where}, column {theirs!r}: {type(value).__name__} {value!r:.40}, but text is needed. Put it in quotes.")
        else:
            clean[ours] = value.strip() if ours != "text" else value
    return clean, None


def _whole_number(value: Any, where: str, column: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise ValueError(f"{where}, column {column!r}: {value!r} is not a whole number.")
    return int(number)


def _turns(value: Any, where: str, column: str) -> list:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f'{where}, column {column!r}: turns must be a JSON list such as ["Hello", "Hi"] ({error}).') from error
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}, column {column!r}: turns must be a JSON list with one turn at least.")
    return value


def _split_name(row: dict[str, Any]) -> str | None:
    value = row.get("split")
    if value is None:
        return None
    name = _SPLIT_ALIASES.get(str(value).strip().lower(), str(value).strip().lower())
    if name not in SPLITS:
        raise ValueError(f"{getattr(row, 'where', '')}, column 'split': {value!r}, but it must be train, valid or test.")
    return name


def _deal_own(path: Path, frame: pd.DataFrame, seed: int) -> np.ndarray:
    if len(frame) < 10:
        raise ValueError(f"{path}: {len(frame)} rows are too few to split. Give ten at least, or a column 'split' with train, valid, test.")
    key = next(name for name in ("text", "tokens", "source", "context", "student", *frame.columns) if name in frame)
    keys = frame[key].astype(str) + (" " + frame["question"] if key == "context" and not frame["context"].any() else "")
    # Dealt label by label, a class of four rows or fewer stays whole in train.
    return make_splits(keys, labels=frame.get("label"), exact=key == "student", seed=seed)


def read_checked(path: Path, sha256: str) -> list[dict[str, Any]]:
    """Return the rows of a bundled file after comparing its SHA-256 with the recorded one."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: the bundled file is missing. Clone the repository again.")
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(
            f"{path}: the file was changed (SHA-256 {found[:12]}..., recorded {sha256[:12]}...). "
            "Restore it with git, or load your own copy by its path."
        )
    return list(read_rows(path))
