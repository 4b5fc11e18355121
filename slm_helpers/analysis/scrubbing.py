"""Find names, numbers and addresses in texts and put placeholders in their place; nothing is replaced without a row that says so.

Patterns find what has a form (`slm_helpers.text.personal_data`, and here web and street addresses, dates and codes); a tagger finds
names. Neither finds everything: notebook 23 measures how much is missed.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from slm_helpers._checks import check_choice
from slm_helpers.data.files import atomic_write, check_writable, read_rows
from slm_helpers.data.schema import find_columns
from slm_helpers.text.personal_data import KINDS as PERSONAL
from slm_helpers.text.personal_data import find_personal_data
from slm_helpers.text.words import split_words

import numpy as np
import pandas as pd

NAMES = {"PER": "person", "LOC": "place", "ORG": "organisation"}  # types of the bundled entities that can point at a person
_STREET = r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Square|Court|Place|Terrace|Close|Boulevard|Blvd|Way|Row|Hill|Quay)"
_LINK = r"[^\s<>\"')]*[^\s<>\"').,;:!?]"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)[a-z]*"
# Besides those of `find_personal_data`, in this order: what an earlier one has found is not looked at again. A number that is replaced
# in vain costs little here, so these ask for less: a telephone number may lack its area code, and any four digits may be a code.
PATTERNS: dict[str, re.Pattern] = {
    "web address": re.compile(rf"(?:https?://|www\.){_LINK}|\b(?:[\w-]+\.)+(?:com|org|net|info|io|eu|uk|de|es|example)\b(?:/{_LINK})?"),
    "date": re.compile(
        rf"\b(?:\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{2,4}}|\d{{1,2}} {_MONTH} \d{{4}}|{_MONTH} \d{{1,2}}, \d{{4}})\b"
    ),
    "street address": re.compile(rf"\b\d{{1,4}}[a-z]?,? (?:[A-Z][\w']+ ){{1,3}}{_STREET}\b\.?"),
    "postcode": re.compile(r"\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b"),
    "telephone number": re.compile(r"(?<![\w.,-])\d{3}[ -]\d{4}(?![\w-])"),
    "number": re.compile(r"(?<![\w.,])(?:[A-Z]{1,3}-?)?\d{4,}(?![.,]?\d)"),
}
KINDS = (*dict.fromkeys((*PERSONAL, *PATTERNS)), *NAMES.values())
_TOKEN = re.compile(  # titles and initials keep their full stop
    r"\b(?:Mrs?|Ms|Dr|St|Prof|Rev|Capt|Lt|Sgt|Ltd|Inc|Co|Jr|Sr)\.(?=\s|$)|\b(?:[^\W\d_]\.)+(?!\w)"
    r"|\d+(?:[.,:]\d+)+|['’]s\b|[^\W_]+(?:(?!['’]s\b)[-'’&][^\W_]+)*|\S"
)
_COLUMNS = ["row", "start", "end", "kind", "text", "replacement"]
_ENDINGS = (".csv", ".tsv", ".jsonl")


class Tagger(Protocol):
    """What finds names: `TokenTagger`, `LinearTagger` or anything else with such a method."""

    def predict(self, sentences: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """Return an IOB2 tag for each word of each sentence."""


@dataclass(frozen=True)
class Scrubbed:
    """Texts without what was found in them.

    Attributes:
        texts: As many as were given, in their order.
        replaced: One row a replacement: row (of the text, from 0), start and end (characters of the text as it was), kind, text (what
            stood there: as personal as the texts were) and replacement.
        counts: kind, replaced, and texts (in how many); kinds that were looked for and not found have a 0.
    """

    texts: list[str]
    replaced: pd.DataFrame
    counts: pd.DataFrame


def scrub(texts: Iterable[str], *, tagger: Tagger | None = None, names: bool = True, kinds: Sequence[str] = KINDS) -> Scrubbed:
    """Replace names, numbers and addresses in texts by placeholders such as [person 1]; equal ones in a text get equal numbers.

    Args:
        texts: Strings; an empty one stays empty.
        tagger: Finds the names; a linear tagger that learned from the bundled entities (`name_tagger`) unless given.
        names: Whether to look for names at all; patterns alone need no tagger.
        kinds: What is replaced, of KINDS. Dates, places and organisations may be what a text is about: leave them out then.

    Raises:
        TypeError: If a text is not a string.
        ValueError: If a kind is unknown.

    Example:
        >>> scrub(["Write to ada@mail.example or call 555 0134."], names=False).texts
        ['Write to [e-mail address 1] or call [telephone number 1].']
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    for kind in kinds:
        check_choice(KINDS, kind=kind)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"Text {number} is {str(text)[:40]!r} ({type(text).__name__}), but only strings can be scrubbed. Use str(text)."
            )
    found = [find_patterns(text, kinds=kinds) for text in texts]
    if names and set(kinds) & set(NAMES.values()):
        for spans, more in zip(found, find_names(texts, tagger or name_tagger()), strict=True):
            spans += [span for span in more if span[2] in kinds and all(span[1] <= start or span[0] >= end for start, end, _ in spans)]
    rows, scrubbed = [], []
    for number, (text, spans) in enumerate(zip(texts, found, strict=True)):
        clean, replaced = _replace(text, sorted(spans))
        scrubbed.append(clean)
        rows += [(number, *each) for each in replaced]
    replaced = pd.DataFrame(rows, columns=_COLUMNS)
    return Scrubbed(scrubbed, replaced, _counts(replaced, [kind for kind in kinds if names or kind not in NAMES.values()]))


def find_patterns(text: str, *, kinds: Sequence[str] = KINDS) -> list[tuple[int, int, str]]:
    """Return (start, end, kind) of what has the form of a mail address, a number and so on; spans do not overlap.

    All patterns are tried, whatever `kinds` are asked for, so that leaving one out gives its text to no other.
    """
    found = [(finding.start, finding.end, finding.kind) for finding in find_personal_data(text)]
    for kind, pattern in PATTERNS.items():
        spans = [match.span() for match in pattern.finditer(text)]
        found += [(*span, kind) for span in spans if all(span[1] <= start or span[0] >= end for start, end, _ in found)]
    return [span for span in found if span[2] in kinds]


def find_names(texts: Sequence[str], tagger: Tagger) -> list[list[tuple[int, int, str]]]:
    """Return (start, end, kind) of the names in each text; other types of the tagger than NAMES are left alone."""
    sentences, places = [], []
    for number, text in enumerate(texts):
        for words in split_tokens(text):
            sentences.append([text[start:end] for start, end in words])
            places.append((number, words))
    found: list[list[tuple[int, int, str]]] = [[] for _ in texts]
    for (number, words), tags in zip(places, tagger.predict(sentences) if sentences else [], strict=True):
        open_kind = None
        for (start, end), tag in zip(words, tags, strict=True):
            kind = NAMES.get(tag[2:])
            if kind and tag[0] == "I" and kind == open_kind:
                found[number][-1] = (found[number][-1][0], end, kind)
            elif kind:
                found[number].append((start, end, kind))
            open_kind = kind
    return found


def split_tokens(text: str) -> list[list[tuple[int, int]]]:
    """Return (start, end) of the tokens of each sentence, cut as the bundled entities are: "'s" and punctuation stand alone.

    Example:
        >>> [["Ada's tea"[start:end] for start, end in sentence] for sentence in split_tokens("Ada's tea")]
        [['Ada', "'s", 'tea']]
    """
    spans = [match.span() for match in _TOKEN.finditer(text)]
    words = split_words(text)
    begins = words.places[np.flatnonzero(np.diff(words.sentences, prepend=-1)), 0] if len(words.places) else np.zeros(0)
    sentences = np.searchsorted(begins, [start for start, _ in spans], side="right")
    return [[span for span, of in zip(spans, sentences, strict=True) if of == number] for number in dict.fromkeys(sentences)]


@lru_cache(maxsize=4)
def name_tagger(outside_bias: float = 1.0) -> Tagger:
    """Return a linear tagger that learned from train and valid of the bundled entities, in about a second.

    Args:
        outside_bias: Taken from the score of "no name". Above 0 more is found, rightly and wrongly; a name that stays is worse here
            than a word that goes. 1 has the best F2 (recall counts more than precision) in a cross-validation on these rows.
    """
    from slm_helpers.baselines.tagging import LinearTagger
    from slm_helpers.data.loading import load_dataset

    frame = load_dataset("entities")
    frame = frame[frame["split"] != "test"]
    sentences, tags = ([row.split(" ") for row in frame[column]] for column in ("tokens", "tags"))
    return LinearTagger(outside_bias=outside_bias).fit(sentences, tags)


def scrub_file(
    source: str | Path,
    target: str | Path,
    *,
    column: str | None = None,
    tagger: Tagger | None = None,
    names: bool = True,
    show_originals: bool = False,
    reading: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Scrub a column of a file: all rows and columns are written to `target`, and what was replaced beside it.

    Args:
        source: A file as `read_rows` takes it.
        target: Where to: .csv, .tsv or .jsonl. What was replaced stands in <target without its ending>.replaced.csv.
        column: The column with the texts, or its number; without it "text" or another usual name.
        tagger: As for `scrub`.
        names: As for `scrub`.
        show_originals: Write what stood there into the list of replacements too. It is then as personal as the source.
        reading: Arguments of `read_rows`.

    Returns:
        rows, without_text (rows whose text is empty; they are kept), texts_changed, replaced (a count for each kind), list (path).

    Raises:
        ValueError: If the ending is none of the three, the column is missing, or a row cannot be read; the message says where.
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in _ENDINGS:
        raise ValueError(f"{target}: scrubbed rows are written to a file with one of the endings {', '.join(_ENDINGS)}.")
    check_writable(target.parent)
    rows = list(read_rows(source, task="lm", columns={"text": column} if column else {}, **(reading or {})))
    if broken := next((row for row in rows if row.broken), None):
        raise ValueError(f"{broken.where}: {broken.problem} Repair the row, or leave it out: a row that is not understood is not scrubbed.")
    name = find_columns(rows[0].column_names(), {"text": column} if column else {}, task="lm", where=str(source))["text"]
    if name not in dict(rows[0]):
        raise ValueError(
            f"{source}: the column {name} lies inside another one, which would be written unscrubbed. Make it a column of its own."
        )
    texts = ["" if row.get(name) is None else str(row[name]) for row in rows]
    result = scrub(texts, tagger=tagger, names=names)
    listed = result.replaced.assign(row=result.replaced["row"] + 1)  # rows of a file are counted from 1
    beside = target.with_name(f"{target.stem}.replaced.csv")
    _write([dict(row) | {name: text} for row, text in zip(rows, result.texts, strict=True)], target)
    with atomic_write(beside) as file:
        file.write((listed if show_originals else listed.drop(columns="text")).to_csv(index=False, lineterminator="\n"))
    counts = dict(zip(result.counts["kind"], result.counts["replaced"].tolist(), strict=True))
    changed = int(result.replaced["row"].nunique())
    empty = sum(not text.strip() for text in texts)
    return {"rows": len(rows), "without_text": empty, "texts_changed": changed, "replaced": counts, "list": str(beside)}


def _replace(text: str, spans: Sequence[tuple[int, int, str]]) -> tuple[str, list[tuple]]:
    parts, replaced, numbers, last = [], [], {}, 0
    for start, end, kind in spans:
        known = numbers.setdefault(kind, {})
        placeholder = f"[{kind} {known.setdefault(text[start:end].casefold(), len(known) + 1)}]"
        replaced.append((start, end, kind, text[start:end], placeholder))
        parts += [text[last:start], placeholder]
        last = end
    return "".join([*parts, text[last:]]), replaced


def _counts(replaced: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    found = replaced.groupby("kind")["row"].agg(["size", "nunique"]).reindex(list(kinds), fill_value=0)
    return found.set_axis(["replaced", "texts"], axis=1).rename_axis("kind").reset_index()


def _write(rows: Sequence[dict[str, Any]], target: Path) -> None:
    with atomic_write(target) as file:
        if target.suffix.lower() == ".jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        else:
            separator = "," if target.suffix.lower() == ".csv" else "\t"
            file.write(pd.DataFrame(rows, dtype=object).to_csv(index=False, sep=separator, lineterminator="\n"))
