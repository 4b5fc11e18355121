"""Read files with one token a line and an empty line between sentences (CoNLL): which column holds what, comments, row numbers."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from slm_helpers.data.decoding import read_lines
from slm_helpers.data.rows import Reading, Row

_TAG = re.compile(r"O|[BIOELSUMW]-\S+")
# The base phrases of CoNLL-2000, which stand in a column beside the entities of CoNLL-2003.
_PHRASES = {"ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP"}
_UNIVERSAL = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_TOKEN_NAMES = {"token", "tokens", "word", "words", "form"}
_SAMPLE_LINES = 2000


@dataclass(frozen=True)
class _Layout:
    """Which cells hold token and tag (from 0, -1 is the last; None if there is no tag), and the key of the tag within its cell."""

    token: int
    tag: int | None
    width: int
    index: bool = False  # whether the first column numbers the tokens
    key: str = ""
    known: frozenset[str] = frozenset()  # tags
    names: tuple[str, ...] = ()  # of a header line, which is no token


def looks_like_conll(sample: list[str], *, tags_wanted: bool) -> bool:
    """Whether lines are tokens with tags in blocks between empty lines; with `tags_wanted` a last column of any few words will do."""
    if not any(not line.strip() for line in "\n".join(sample).strip("\n").split("\n")):
        return False
    rows = [_cells(line) for line in sample if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    if len(rows) < 2 or any(len(cells) < 2 for cells in rows) or len({len(cells) for cells in rows}) > 2:
        return False
    has_tags = any(all(_TAG.fullmatch(cells[i]) for cells in rows[1:]) for i in (0, -1))
    return has_tags or (tags_wanted and len(rows[0]) < 12 and len({cells[-1] for cells in rows}) <= max(2, len(rows) // 4))


def read_conll(reading: Reading) -> Iterator[Row]:
    """Yield sentences with the columns tokens and tags, each joined by single spaces.

    Lines are split at tabs if they have any, else at ASCII spaces, so that a no-break space stays within its token. Comments
    before a sentence, numbers of the tokens and lines for several tokens (CoNLL-U) are left out. `reading.columns` may say by
    number (from 1) or name which columns hold tokens and tags; without it, a second column of tags is an error.
    """
    layout = _find_layout(reading, list(islice(read_lines(reading.path, reading.encoding), _SAMPLE_LINES)))
    names = [reading.columns.get(name, name) for name in ("tokens", "tags")]
    block: list[tuple[str, str | None]] = []
    start = 1
    for number, line in enumerate(read_lines(reading.path, reading.encoding), 1):
        cells = _cells(line)
        if not line.strip(" \t") or cells[0] == "-DOCSTART-":
            if block:
                yield _sentence(names, block, reading.at(start))
            block = []
            continue
        if (not block and _is_comment(line, cells, layout)) or (number == 1 and cells == list(layout.names)):
            continue
        if layout.index and re.fullmatch(r"\d+[-.]\d+", cells[0]):
            continue
        if not block:
            start = number
        block.append(_token_and_tag(reading, number, cells, layout))
    if block:
        yield _sentence(names, block, reading.at(start))


def _cells(line: str) -> list[str]:
    cells = line.split("\t") if "\t" in line.strip("\t ") else line.strip(" ").split(" ")
    return [cell.strip(" ") for cell in cells if cell.strip(" \t")] or [""]


def _is_comment(line: str, cells: list[str], layout: _Layout) -> bool:
    """Whether a line before a sentence is a comment, not the token `#`."""
    if not line.startswith("#"):
        return False
    return len(cells) != layout.width or layout.tag is None or not (cells[layout.tag] in layout.known or _TAG.fullmatch(cells[layout.tag]))


def _token_and_tag(reading: Reading, number: int, cells: list[str], layout: _Layout) -> tuple[str, str | None]:
    needed = max(layout.token, layout.tag or 0, 0 if layout.tag is None else 1) + 1
    if len(cells) < needed:
        raise ValueError(f"{reading.at(number)}: {len(cells)} column(s), but a token and its tag are needed ('Bergen\\tB-LOC').")
    tag = None if layout.tag is None else cells[layout.tag]
    if layout.key and tag is not None:
        tag = dict(part.split("=", 1) for part in tag.split("|") if "=" in part).get(layout.key, "O")
    return cells[layout.token], tag


def _sentence(names: list[str], block: list[tuple[str, str | None]], where: str) -> Row:
    tokens, tags = zip(*block, strict=True)
    # A no-break space keeps the words of a token together.
    row = Row({names[0]: " ".join(token.replace(" ", "\u00a0") for token in tokens)}, where=where)
    if tags[0] is not None:
        row[names[1]] = " ".join(tag or "O" for tag in tags)
    return row


def _find_layout(reading: Reading, sample: list[str]) -> _Layout:
    """Read off some lines which column holds what."""
    blocks: list[list[list[str]]] = [[]]
    comments = []
    for line in sample:
        cells = _cells(line)
        if not line.strip(" \t") or cells[0] == "-DOCSTART-":
            blocks.append([])
        elif line.startswith("#") and not blocks[-1]:
            comments.append(line)
        else:
            blocks[-1].append(cells)
    blocks = [block for block in blocks if block]
    rows = [cells for block in blocks for cells in block]
    if not rows:
        return _Layout(0, -1, 2)
    width = Counter(map(len, rows)).most_common(1)[0][0]
    names: tuple[str, ...] = tuple(rows[0]) if rows[0][0].lower() in _TOKEN_NAMES and not _TAG.fullmatch(rows[0][-1]) else ()
    rows = [cells for cells in rows[bool(names) :] if len(cells) == width]
    named = names or (_UNIVERSAL if width == len(_UNIVERSAL) else ())
    declared = next((line.split("=", 1)[1].split() for line in comments if line.startswith("# global.columns")), None)
    named = tuple(declared or named)
    index = width > 1 and _numbers_tokens(blocks)
    tag_like = [i for i in range(index, width) if all(_TAG.fullmatch(cells[i]) for cells in rows)]
    key = ""
    asked = reading.columns.get("tags")
    if asked is not None:
        tag = _column(reading, asked, named, width, "tags")
    elif not tag_like and (keyed := _keyed_tag(rows, width)):
        tag, key = keyed
    else:
        tag = _choose_tag(reading, rows, tag_like, width, index)
    asked = reading.columns.get("tokens")
    taken = {tag % width} if tag is not None else set()
    token = (
        next((i for i in range(index, width) if i not in taken), 0) if asked is None else _column(reading, asked, named, width, "tokens")
    )
    if index:
        reading.note("the first column numbers the tokens and was left out")
    known = frozenset(cells[tag] for cells in rows) if tag is not None else frozenset()
    if tag == width - 1 and asked is None:
        tag = -1  # columns between may be missing
    return _Layout(token, tag, width, index, key, known, names)


def _numbers_tokens(blocks: list[list[list[str]]]) -> bool:
    """Whether the first column counts the tokens of each block from 0 or 1."""
    for block in blocks[:-1] or blocks:  # the sample may end within the last block
        numbers = [cells[0] for cells in block if not re.fullmatch(r"\d+[-.]\d+", cells[0])]
        if numbers not in ([str(i) for i in range(1, len(numbers) + 1)], [str(i) for i in range(len(numbers))]):
            return False
    return True


def _choose_tag(reading: Reading, rows: list[list[str]], tag_like: list[int], width: int, index: bool) -> int | None:
    if width - index == 1:
        return None  # tokens alone, to be tagged
    entities = [i for i in tag_like if not {cells[i][2:] for cells in rows if cells[i] != "O"} <= _PHRASES or i == width - 1]
    if len(entities) > 1:
        numbers = [str(i + 1) for i in entities]
        raise ValueError(
            f"{reading.path}: the columns {' and '.join(numbers)} both hold tags ({', '.join(rows[0])}). "
            f'Say which one to use, e.g. tags="{numbers[0]}", in the shell --tags {numbers[0]}.'
        )
    return entities[0] if entities else width - 1


def _keyed_tag(rows: list[list[str]], width: int) -> tuple[int, str] | None:
    """Find tags within the last column, as in `SpaceAfter=No|ner=B-PER`."""
    pairs = [part.split("=", 1) for cells in rows for part in cells[width - 1].split("|") if "=" in part]
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    keys = [name for name, cells in values.items() if all(_TAG.fullmatch(cell) for cell in cells)]
    return (width - 1, keys[0]) if len(keys) == 1 else None


def _column(reading: Reading, asked: str, named: tuple[str, ...], width: int, ours: str) -> int:
    """Return the place of a column that was named by number or name."""
    if asked in named:
        return named.index(asked)
    if asked.isdigit() and 1 <= int(asked) <= width:
        return int(asked) - 1
    raise ValueError(
        f"{reading.path}: there is no column {asked!r} (asked for as {ours}). It has the columns 1 to {width}"
        f'{" (" + ", ".join(named) + ")" if named else ""}. Name one of them, e.g. {ours}="{width}".'
    )
