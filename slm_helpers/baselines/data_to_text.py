"""Baselines of data-to-text: a template filled with the facts, and the text of the nearest known record with its facts replaced."""

import re
from collections.abc import Sequence
from dataclasses import replace

from slm_helpers.text.records import Record, delexicalise, fill, parse_facts

from sklearn.base import BaseEstimator


class TemplateWriter(BaseEstimator):
    """Fill one sentence and a list: what a careful person writes in ten minutes. It cannot miss or invent a fact.

    Args:
        phrases: For each fact name how it goes on after "NAME is a TYPE", e.g. {"area": "in {}"}, in this order; facts without a
            phrase follow as "Name: value."
        frames: For each tone what stands before and behind the facts.
    """

    def __init__(self, phrases: dict[str, str] | None = None, *, frames: dict[str, tuple[str, str]] | None = None):
        self.phrases, self.frames = phrases, frames

    def predict(self, sources: Sequence[str], tones: Sequence[str] | None = None) -> list[str]:
        """Return one text a record, in the tone of each, if tones are given; a tone without a frame has none."""
        return [self._text(parse_facts(source), tone) for source, tone in zip(sources, _tones(tones, sources), strict=True)]

    def _text(self, record: Record, tone: str) -> str:
        if record.relations:
            return _relations(record)
        places = {name: f"#{letter}" for name, letter in zip(record.names, record.letters, strict=True)}
        before, behind = (self.frames or {}).get(tone, ("", ""))
        name, kind = places.pop("name", None), places.pop("type", None)
        told = [phrase.format(places.pop(fact)) for fact, phrase in (self.phrases or {}).items() if fact in places]
        first = " ".join(filter(None, [name, "is a" if name and kind else "", kind, *told]))
        rest = [f"{fact[:1].upper()}{fact[1:]}: {place}." for fact, place in places.items()]
        sentences = [before, f"{first}." if first else "", *rest, behind]
        return fill(" ".join(filter(None, sentences)), record)


class NearestRecord(BaseEstimator):
    """Take the text of the known record that is most alike (names of facts first, then words of values), and put in the facts.

    A fact that the known record lacks takes the place of one that is left over; a place that stays without a fact is cut out.
    """

    def fit(self, sources: Sequence[str], targets: Sequence[str], tones: Sequence[str] | None = None) -> "NearestRecord":
        """Remember the texts with placeholders."""
        self.rows_: dict[str, list[tuple]] = {}  # by tone
        for source, target, tone in zip(sources, targets, _tones(tones, sources), strict=True):
            record = parse_facts(source)
            self.rows_.setdefault(tone, []).append((record, set(record.names), _words(record), delexicalise(target, record)))
        return self

    def predict(self, sources: Sequence[str], tones: Sequence[str] | None = None) -> list[str]:
        """Return one text a record, from those of its tone, if tones are given."""
        tones = _tones(tones, sources)
        unknown = next((tone for tone in tones if tone not in self.rows_), None)
        if unknown is not None:
            raise ValueError(f"The tone {unknown!r} is unknown: fit saw {', '.join(map(repr, self.rows_))}. Give one of these.")
        return [self._text(parse_facts(source), tone) for source, tone in zip(sources, tones, strict=True)]

    def _text(self, record: Record, tone: str) -> str:
        names, words = set(record.names), _words(record)

        def alike(row: tuple) -> tuple[float, float]:
            return len(names & row[1]) / len(names | row[1]), len(words & row[2]) / max(1, len(words | row[2]))

        known, _, _, text = max(self.rows_[tone], key=alike)
        left = dict(zip(record.names, record.contents, strict=True)) if len(names) == len(record.names) else {}
        left = left or {f"{i}": value for i, value in enumerate(record.contents)}
        values: list[str | None] = [left.pop(name, None) for name in known.names]
        spare = list(left.values())
        values = [value if value is not None else spare.pop(0) if spare else "" for value in values]
        text = fill(text, replace(known, contents=tuple(values)))
        return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(text.split()))


def _tones(tones: Sequence[str] | None, sources: Sequence[str]) -> list[str]:
    return [""] * len(sources) if tones is None else list(tones)


def _words(record: Record) -> set[str]:
    return {word for value in record.contents for word in re.findall(r"\w+", value.lower())}


def _relations(record: Record) -> str:
    """State each triple: "The leader name of Aarhus is Jacob Bundsgaard." """
    said = []
    for line in record.relations:
        subject, relation, found = re.fullmatch(r"(#\w) (.+) (#\w)", line).groups()
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", relation).lower()
        said.append(f"The {words} of {subject} is {found}.")
    return fill(" ".join(said), record)
