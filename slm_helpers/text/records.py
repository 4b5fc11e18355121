"""Facts and the texts that state them: parse a record, put placeholders for its values and fill them again.

A record is written as `name: Aurora | price: 20 euros`, or, where facts are about several things, as triples
`Alan Bean : crew member of : Apollo 12 | ...`. Each value has a letter; *delexicalised* text holds `#A` where value A stands.

Reference:
    Wen et al. (2015), "Semantically Conditioned LSTM-based Natural Language Generation ...", arXiv:1508.01745 (delexicalised
    text); Gardent et al. (2017), "The WebNLG Challenge" (triples).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Record:
    """What a text has to state."""

    contents: tuple[str, ...]  # the values
    names: tuple[str, ...]  # of the fact that each value belongs to; of a triple the property, of its first subject "subject"
    letters: tuple[str, ...]  # of the placeholder of each value
    relations: tuple[str, ...] = ()  # between values, "#A crew member of #B"; none where facts are names and values


def parse_facts(source: str | dict[str, str], letters: dict[str, str] | None = None) -> Record:
    """Return a record from its written form, or from a dictionary {name: value}.

    A part with " : " twice is a triple. It is a name and a value that holds such signs, as in "title: Star Wars : Episode : One", if it
    begins with a name in small letters and a colon, or with any name and a colon where other parts are names and values.

    Args:
        source: The facts.
        letters: For names of facts, a lower-case letter that is theirs in every record; other facts get A, B, ... in their order.

    Raises:
        ValueError: If there is no fact, a fact has no name or no value, a name stands twice, or there are more than 26.

    Example:
        >>> parse_facts("name: Aurora | price: 20 euros", {"price": "p"}).letters
        ('A', 'p')
    """
    pairs = [map(str, pair) for pair in source.items()] if isinstance(source, dict) else _split_facts(source.split(" | "))
    parts = [[cell.strip() for cell in pair] for pair in pairs]
    if not any(any(part) for part in parts):
        raise ValueError("The record has no facts. Write them as name: value | name: value.")
    for part in parts:
        if len(part) not in (2, 3) or not all(part):
            raise ValueError(
                f"{' : '.join(part)!r:.80} is no fact. Write facts as name: value | name: value, or subject : property : object | ..."
            )
    if len({len(part) for part in parts}) > 1:
        raise ValueError(f"{source!r:.80} mixes facts of the form name: value with triples. Use one form in a record.")
    if len(parts[0]) == 3:
        return _of_triples(parts)
    names = tuple(name for name, _ in parts)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"The fact {twice[0]!r} stands twice in a record, but each name may have one value. Join the values in one fact.")
    _check_number(len(parts))
    free = iter(LETTERS)
    return Record(tuple(value for _, value in parts), names, tuple((letters or {}).get(name) or next(free) for name in names))


def _split_facts(parts: Sequence[str]) -> list[list[str]]:
    """Return the cells of each part: name and value, or subject, property and object."""
    is_triple = [part.count(" : ") >= 2 for part in parts]
    names = [re.match(r"\s*([^:]*[^:\s]):\s", part) for part in parts]  # "title: ", also of a triple whose subject is "1634: A War"
    others_are_pairs = not all(is_triple)
    for i, name in enumerate(names):
        if is_triple[i] and name and (others_are_pairs or name[1].islower()):
            is_triple[i] = False
    return [part.split(" : ") if triple else part.split(":", 1) for part, triple in zip(parts, is_triple, strict=True)]


def _of_triples(parts: list[list[str]]) -> Record:
    values: dict[str, str] = {}  # value: name of its fact
    triples = []
    for subject, relation, found in parts:
        subject, found = subject.strip('"') or subject, found.strip('"') or found
        values.setdefault(subject, "subject")
        values.setdefault(found, relation)
        triples.append((subject, relation, found))
    _check_number(len(values))
    letters = dict(zip(values, LETTERS, strict=False))
    relations = tuple(f"#{letters[subject]} {relation} #{letters[found]}" for subject, relation, found in triples)
    return Record(tuple(values), tuple(values.values()), tuple(letters.values()), relations)


def _check_number(num_values: int) -> None:
    if num_values > len(LETTERS):
        raise ValueError(f"The record has {num_values} values, but at most {len(LETTERS)} can be told apart. Split it.")


def states(text: str, value: str) -> bool:
    """Whether a value stands in a text word for word, letter case and the kind of spaces aside."""
    return value_pattern(value).search(text) is not None


def delexicalise(text: str, record: Record, *, copied: Sequence[bool] | None = None) -> str:
    """Return the text with a placeholder in the place of each value that stands in it; "an" before one becomes "a".

    Args:
        text: As a person wrote it.
        record: Its facts.
        copied: Whether each value is replaced at all; all are unless given.

    Example:
        >>> delexicalise("An umbrella for 20 euros.", parse_facts("type: umbrella | price: 20 euros"))
        'A #A for #B.'
    """
    # The longest first: a price may hold another value. What is replaced is kept out of reach as a private sign until the end.
    for place in sorted(range(len(record.contents)), key=lambda place: -len(record.contents[place])):
        if copied is None or copied[place]:
            text = value_pattern(record.contents[place]).sub(chr(0xE000 + place), text)
    text = re.sub("[\ue000-\uf8ff]", lambda found: f"#{record.letters[ord(found.group()) - 0xE000]}", text)
    return re.sub(r"\b([Aa])n (?=#[A-Za-z]\b)", r"\1 ", text)


def fill(text: str, record: Record) -> str:
    """Return a delexicalised text with its values: capitals where a sentence begins, "a" or "an" by the sound of what follows.

    A placeholder without a value stays, and counts as invented.

    Example:
        >>> fill("A #A for #B. #A!", parse_facts("type: umbrella | price: 20 euros"))
        'An umbrella for 20 euros. Umbrella!'
    """
    values = dict(zip(record.letters, record.contents, strict=True))

    def put(found: re.Match) -> str:
        if found.group(2) not in values:
            return found.group()
        value, article, before = values[found.group(2)], found.group(1), text[: found.start()]
        if article:
            return f"{article}{'n' if _sounds_open(value) else ''} {value}"
        starts = not before.strip() or re.search(r"[.!?]\s+$", before)
        return value[:1].upper() + value[1:] if starts else value

    return re.sub(r"(?:\b([Aa]) )?#([A-Za-z])(?![A-Za-z])", put, text)


def value_pattern(value: str) -> re.Pattern:
    """Return a pattern of a value as whole words, letter case and the kind of spaces aside."""
    words = r"\s+".join(re.escape(word) for word in value.split())
    # A value that begins or ends with a sign needs no end of word there.
    start = r"(?<!\w)" if value[:1].isalnum() else ""
    return re.compile(f"{start}{words}" + (r"(?!\w)" if value[-1:].isalnum() else ""), re.IGNORECASE)


def _sounds_open(value: str) -> bool:
    """Whether "an" stands before it: by its letters, with the common exceptions."""
    word = value.lower()
    if re.match(r"(8|11\b|18\b|hour|honest|heir)", word):
        return True
    return word[:1] in tuple("aeiou") and not re.match(r"(uni(?!n)|use|eu|one\b|once|u-|ukulele|ute)", word)
