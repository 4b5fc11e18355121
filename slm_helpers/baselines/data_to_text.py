"""What a writer of facts has to beat: a template filled with them, and the text of the nearest known record with its facts replaced."""

import re
from collections.abc import Sequence
from dataclasses import replace

from slm_helpers.text.records import Record, delexicalise, fill, parse_facts


class TemplateWriter:
    """Fill one sentence and a list: what a careful person writes in ten minutes. It cannot miss or invent a fact."""

    def __init__(self, phrases: dict[str, str] | None = None, *, frames: dict[str, tuple[str, str]] | None = None):
        """Take the wording.

        Args:
            phrases: For each fact name how it goes on after "NAME is a TYPE", e.g. {"area": "in {}"}, in this order; facts without a
                phrase follow as "Name: value."
            frames: For each tone what stands before and behind the facts.
        """
        self.phrases, self.frames = phrases or {}, frames or {}

    def predict(self, sources: Sequence[str], tones: Sequence[str] | None = None) -> list[str]:
        """Return one text a record."""
        tones = tones or [""] * len(sources)
        return [self._text(parse_facts(source), tone) for source, tone in zip(sources, tones, strict=True)]

    def _text(self, record: Record, tone: str) -> str:
        if record.relations:
            return _relations(record)
        places = {name: f"#{letter}" for name, letter in zip(record.names, record.letters, strict=True)}
        before, behind = self.frames.get(tone, ("", ""))
        name, kind = places.pop("name", None), places.pop("type", None)
        told = [phrase.format(places.pop(fact)) for fact, phrase in self.phrases.items() if fact in places]
        first = " ".join(filter(None, [name, "is a" if name and kind else "", kind, *told]))
        rest = [f"{fact[:1].upper()}{fact[1:]}: {place}." for fact, place in places.items()]
        sentences = [before, f"{first}." if first else "", *rest, behind]
        return fill(" ".join(filter(None, sentences)), record)


class NearestRecord:
    """Take the text of the known record that is most alike (names of facts first, then words of values), and put in the facts.

    A fact that the known record lacks takes the place of one that is left over; a place that stays without a fact is cut out.
    """

    def fit(self, sources: Sequence[str], targets: Sequence[str], tones: Sequence[str] | None = None) -> "NearestRecord":
        """Remember the texts with placeholders."""
        self._rows = []
        for source, target, tone in zip(sources, targets, tones or [""] * len(sources), strict=True):
            record = parse_facts(source)
            self._rows.append((tone, record, set(record.names), _words(record), delexicalise(target, record)))
        return self

    def predict(self, sources: Sequence[str], tones: Sequence[str] | None = None) -> list[str]:
        """Return one text a record."""
        return [self._text(parse_facts(source), tone) for source, tone in zip(sources, tones or [""] * len(sources), strict=True)]

    def _text(self, record: Record, tone: str) -> str:
        names, words = set(record.names), _words(record)

        def alike(row: tuple) -> tuple[float, float]:
            return len(names & row[2]) / len(names | row[2]), len(words & row[3]) / max(1, len(words | row[3]))

        _, known, _, _, text = max((row for row in self._rows if row[0] == tone), key=alike)
        left = dict(zip(record.names, record.contents, strict=True)) if len(names) == len(record.names) else {}
        left = left or {f"{place}": value for place, value in enumerate(record.contents)}
        values: list[str | None] = [left.pop(name, None) for name in known.names]
        spare = list(left.values())
        values = [value if value is not None else spare.pop(0) if spare else "" for value in values]
        text = fill(text, replace(known, contents=tuple(values)))
        return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(text.split()))


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
