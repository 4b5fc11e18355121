"""Other ways to write entities, converted to IOB2: IOB1, BIOES, BILOU, plain types, numbers, and spans of characters."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

_PREFIXED = re.compile(r"([BIOELSUMW])-(.+)")
_BEGINS, _CONTINUES = frozenset("BSUW"), frozenset("IMEL")
# Chinese and Japanese write no spaces: each sign is a token there.
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+(?:['’][^\W_]+)*|\S")


def to_iob2(rows: Sequence[list[str]]) -> tuple[list[list[str]], str]:
    """Return the tags of all sentences as IOB2, and a sentence for the user on what they were ("" if they were IOB2).

    What fits no scheme comes back as it is, for `check_tags` to say where it goes wrong.

    Example:
        >>> to_iob2([["I-PER", "I-PER", "O", "I-LOC", "B-LOC"]])[0]
        [['B-PER', 'I-PER', 'O', 'B-LOC', 'B-LOC']]
    """
    tags = {tag for row in rows for tag in row}
    if all(re.fullmatch(r"\d+", tag) for tag in tags):
        return _from_numbers(rows, tags)
    prefixes = {match[1] if (match := _PREFIXED.fullmatch(tag)) else tag for tag in tags}
    if prefixes <= {"O", "B", "I"}:
        if all(_is_iob1(row) for row in rows) and not all(_is_iob2(row) for row in rows):
            return [_first_as_begin(row) for row in rows], "the tags were IOB1 and were converted to IOB2"
        return list(rows), ""
    if prefixes <= _BEGINS | _CONTINUES | {"O"}:
        name = "BILOU" if prefixes & {"L", "U"} else "BIOES"
        return [[_renamed(tag) for tag in row] for row in rows], f"the tags were {name} and were converted to IOB2"
    if not any(_PREFIXED.fullmatch(tag) for tag in tags) and not prefixes & {"B", "I", "o", "B-", "I-"}:
        converted = [_first_as_begin([tag if tag == "O" else f"I-{tag}" for tag in row]) for row in rows]
        return converted, "the tags were types without B- and I-; neighbours of one type were taken as one entity (IOB2)"
    return list(rows), ""


def spans_to_tags(text: str, spans: Sequence[Any]) -> tuple[str, str]:
    """Return tokens and IOB2 tags, each joined by single spaces, of a text with spans of characters.

    Args:
        text: Cut into words and signs, and at the borders of spans.
        spans: Each (start, end, type), or an object with these (also as start_offset, end_offset, label or entity).

    Raises:
        ValueError: If a span is of another form, lies outside the text or overlaps another one.
    """
    entities = sorted(_span(span, len(text)) for span in spans)
    for (_, end, first), (start, _, second) in pairwise(entities):
        if start < end:
            raise ValueError(f"the spans of {first} and {second} overlap at character {start}. Keep one of them.")
    borders = sorted({0, len(text), *(place for start, end, _ in entities for place in (start, end))})
    tokens, tags = [], []
    by_start = {start: (end, name) for start, end, name in entities}
    for start, end in pairwise(borders):
        name = by_start.get(start, (0, ""))[1]
        for number, match in enumerate(_TOKEN.finditer(text, start, end)):
            tokens.append(match[0])
            tags.append(f"{'I' if number else 'B'}-{name}" if name else "O")
    return " ".join(tokens), " ".join(tags)


def _span(span: Any, length: int) -> tuple[int, int, str]:
    if isinstance(span, dict):
        start, end = (
            next((span[name] for name in (part, f"{part}_offset", f"{part}Offset") if name in span), None) for part in ("start", "end")
        )
        name = next((span[key] for key in ("label", "type", "entity", "entity_group", "tag") if key in span), None)
        name = name[0] if isinstance(name, list) and len(name) == 1 else name
        span = (start, end, name)
    if len(span) != 3 or not isinstance(span[0], int) or not isinstance(span[1], int) or not isinstance(span[2], str):
        raise ValueError(f'{span!r:.60} is no span of characters: start, end and type are needed, as in [0, 9, "PER"].')
    if not 0 <= span[0] < span[1] <= length:
        raise ValueError(f"the span {list(span)} lies outside its text, which has {length} characters.")
    return span[0], span[1], re.sub(r"\s+", "_", span[2].strip())


def _is_iob2(row: list[str]) -> bool:
    return all(tag[0] != "I" or before[2:] == tag[2:] for before, tag in pairwise(["O", *row]))


def _is_iob1(row: list[str]) -> bool:
    """Whether B- stands only where an entity follows another one of its type."""
    return all(tag[0] != "B" or (before != "O" and before[2:] == tag[2:]) for before, tag in pairwise(["O", *row]))


def _first_as_begin(row: list[str]) -> list[str]:
    return [f"B{tag[1:]}" if tag[0] == "I" and before[2:] != tag[2:] else tag for before, tag in pairwise(["O", *row])]


def _renamed(tag: str) -> str:
    return tag if tag == "O" else f"{'B' if tag[0] in _BEGINS else 'I'}{tag[1:]}"


def _from_numbers(rows: Sequence[list[str]], tags: set[str]) -> tuple[list[list[str]], str]:
    """Convert numbered tags: 0 is O; 1 and 2 begin and continue the first type, 3 and 4 the second, where the rows allow it."""
    pairs = all(
        int(tag) == 0 or int(tag) % 2 or int(before) in (int(tag) - 1, int(tag)) for row in rows for before, tag in pairwise(["0", *row])
    )
    if pairs:
        names = {tag: "O" if tag == "0" else f"{'B' if int(tag) % 2 else 'I'}-{(int(tag) + 1) // 2}" for tag in tags}
        note = "the tags were numbers: 0 was read as O, 1 and 2 as B-1 and I-1, 3 and 4 as B-2 and I-2, and so on"
        return [[names[tag] for tag in row] for row in rows], note
    plain = [_first_as_begin(["O" if tag == "0" else f"I-{tag}" for tag in row]) for row in rows]
    return plain, "the tags were numbers: 0 was read as O, each other number as a type, whose neighbours are one entity"
