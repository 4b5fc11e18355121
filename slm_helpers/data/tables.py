"""Read .csv and .tsv tables as people have them: any usual separator, with or without quotes, header and row numbers."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from slm_helpers.data.decoding import MAX_LINE_CHARS, read_lines
from slm_helpers.data.rows import Reading, Row
from slm_helpers.data.schema import ALL_COLUMNS

_DELIMITERS = ",;\t|"
_NO_DELIMITER = "\x1f"  # for tables of one column
_SAMPLE_ROWS = 200
_SEP_LINE = re.compile(r'"?sep=(.)"?')
_MAX_PREAMBLE = 10
_MAX_LINES_LOST = 20  # that one stray quote may take with it


@dataclass(frozen=True)
class _Layout:
    """How the cells of a table stand in its lines."""

    delimiter: str
    quote: str = '"'  # "" for a table without quotes
    escape: str | None = None  # what stands before a quote that is part of a quoted cell, where quotes are not doubled
    skip: int = 0  # lines before the header

    def reader(self, lines: Iterable[str], *, strict: bool = True) -> "csv._reader":
        """Return a csv reader over lines without their ends."""
        options: dict[str, Any] = {"quoting": csv.QUOTE_NONE}
        if self.quote:
            options = {"quotechar": self.quote, "escapechar": self.escape, "strict": strict, "skipinitialspace": self.delimiter != "\t"}
        return csv.reader((f"{line}\n" for line in lines), delimiter=self.delimiter, **options)

    def rows_of(self, lines: Iterable[str]) -> list[list[str]]:
        """Return the rows of some lines up to the first broken one, empty lines left out."""
        return self._parse(lines)[0]

    def evenness(self, sample: list[str]) -> float:
        """Return which share of some lines are rows as wide as most; a row that is broken counts with all after it."""
        rows, good = self._parse(sample[self.skip :])
        widths = Counter(map(len, rows))
        return good * widths.most_common(1)[0][1] / len(rows) if rows else 0.0

    def _parse(self, lines: Iterable[str]) -> tuple[list[list[str]], float]:
        """Return rows, and the share of lines before the first broken one."""
        rows, lines = [], list(lines)
        reader = self.reader(lines)
        try:
            rows.extend(cells for cells in reader if cells)
        except csv.Error as error:
            if "end of data" not in str(error):  # the sample may end within a cell
                return rows, reader.line_num / len(lines)
        return rows, 1.0


class _Remembered:
    """An iterator over lines that knows the last one."""

    def __init__(self, lines: Iterable[str]):
        self.lines, self.last = iter(lines), ""

    def __iter__(self) -> "_Remembered":
        return self

    def __next__(self) -> str:
        self.last = next(self.lines)
        return self.last


def read_table(reading: Reading, *, tabs: bool = False) -> Iterator[Row]:
    """Yield the rows of a table; `tabs` for a .tsv.

    Columns without a name are left out, and so are separators at the end of all lines; a first column of row numbers may lack
    its name. A row with too many or too few cells has a `problem`; with `strict` it is an error.
    """
    csv.field_size_limit(MAX_LINE_CHARS + 1)  # cells over several lines are bounded too; `read_rows` refuses shorter ones with their place
    sample = list(islice(read_lines(reading.path, reading.encoding), _SAMPLE_ROWS))
    preamble = 0 if reading.trusted or not reading.header else _preamble(sample, reading)
    layout = _layout(sample[preamble:], tabs=tabs, trusted=reading.trusted)
    layout = replace(layout, skip=layout.skip + preamble)
    lines = read_lines(reading.path, reading.encoding)
    for _ in range(layout.skip):
        next(lines)
    sampled = layout.rows_of(sample[layout.skip :])
    if reading.header and not "".join(sample[layout.skip : layout.skip + 1]).strip():
        raise ValueError(f"{reading.at(layout.skip + 1)}: the header line is empty. Put the column names there.")
    usual_width = Counter(len(cells) for cells in sampled[1:]).most_common(1)
    numbered = _numbered_rows(reading, layout, lines)
    header: list[str] = []
    if reading.header:
        line, header, _ = next(numbered)
        names = _names(reading, line, header, width=usual_width[0][0] if usual_width else 0, sampled=sampled[1:])
    else:
        names = [str(number) for number in range(1, Counter(map(len, sampled)).most_common(1)[0][0] + 1)] if sampled else []
    decimal_comma = layout.delimiter == ";"
    for line, cells, repair in numbered:
        where = reading.at(line)
        if not isinstance(cells, str) and reading.header and cells == header and not reading.trusted:
            cells = "the header stands here again"  # tables that were put together
        if isinstance(cells, str):
            yield Row(where=where, problem=cells, broken=True)
            continue
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        problem = _width_problem(names, len(cells), bool(layout.quote))
        if problem and reading.strict:
            raise ValueError(f"{where}: {problem}")
        named = {name: cell for name, cell in zip(names, cells, strict=False) if name}
        if len(cells) < len(names):
            named |= dict.fromkeys((name for name in names[len(cells) :] if name), "")
        row = Row(named, where=where, problem=problem, broken=len(cells) > len(names), decimal_comma=decimal_comma)
        row.repairs = [(max(named, key=lambda name: len(named[name])), repair)] if repair and named else []
        yield row


def looks_like_table(sample: list[str]) -> bool:
    """Whether nearly all of some lines hold a tab, or the same number of another separator but commas, which texts have too."""
    filled = [line for line in sample if line.strip()]
    if len(filled) < 2:
        return False
    return sum("\t" in line for line in filled) >= 0.95 * len(filled) or any(
        filled[0].count(sign) and all(line.count(sign) == filled[0].count(sign) for line in filled) for sign in ";|"
    )


def looks_like_data(cells: list[str]) -> bool:
    """Whether a first line holds cells rather than the names of columns: a number, the same cell twice, or a whole sentence."""
    cells = [cell.strip() for cell in cells]
    filled = [cell for cell in cells if cell]
    return len(cells) > 1 and any(
        re.fullmatch(r"[-+]?[\d.,]*\d", cell) or len(cell) > 100 or (len(cell.split()) > 3 and re.search(r"[.!?。]$", cell))
        for cell in filled
    )


def no_header_hint(cells: list[str], ours: Sequence[str] = ("text", "label")) -> str:
    """Return advice for a table whose first line seems to be its first row, else nothing; `ours` are columns that are needed."""
    return header_advice(ours, "Its first line looks like a row, not like names.") if looks_like_data(cells) else ""


def header_advice(ours: Sequence[str], reason: str) -> str:
    """Return how to name the columns of a table without a header, with a reason."""
    named = ", ".join(f'{name}="{number}"' for number, name in enumerate(ours[:2], 1))
    return (
        f" {reason} If there is no header, say header=False and number the columns from 1, e.g. "
        f"{named}; "
        f"in the shell --no-header {' '.join(f'--{name} {number}' for number, name in enumerate(ours[:2], 1))}."
    )


def read_attempt_triples(reading: Reading) -> Iterator[Row]:
    """Yield learners' attempts from three lines a learner: how many, which skills, and 1 or 0 for each (the layout of DKT)."""
    lines = ((number, line) for number, line in enumerate(read_lines(reading.path, reading.encoding), 1) if line.strip())
    reading.note("three lines a learner (number, skills, answers) were read as one row an attempt")
    for student, (number, count) in enumerate(lines, 1):
        skills, answers = ([cell.strip() for cell in next(lines, (0, ""))[1].rstrip(", \t").split(",")] for _ in range(2))
        if not count.strip(", \t").isdigit() or not len(skills) == len(answers) == int(count.strip(", \t")):
            raise ValueError(
                f"{reading.at(number)}: {count.strip()} attempts are announced, but {len(skills)} skills and {len(answers)} answers follow."
            )
        for step, (skill, answer) in enumerate(zip(skills, answers, strict=True)):
            yield Row(student=str(student), step=step, skill=skill, correct=answer, where=reading.at(number))


def looks_like_attempt_triples(sample: list[str]) -> bool:
    """Whether lines begin with a number n and two lines of n numbers each."""
    first = [[cell.strip() for cell in line.rstrip(", \t").split(",")] for line in sample if line.strip()][:3]
    if len(first) < 3 or len(first[0]) != 1 or not first[0][0].isdigit():
        return False
    return len(first[1]) == len(first[2]) == int(first[0][0]) and set(first[2]) <= {"0", "1"}


def _preamble(sample: list[str], reading: Reading) -> int:
    """Return how many lines (a title, remarks) stand before a header that has all the names that were asked for."""
    names = [name for name in reading.columns.values() if not name.isdigit()] or (["text", "label"] if reading.task == "classify" else [])
    needed = {" ".join(name.lower().split()) for name in names}
    if sample and _SEP_LINE.fullmatch(sample[0].strip("\ufeff ")):
        return 0
    for number, line in enumerate(sample[:_MAX_PREAMBLE] if needed else []):
        for delimiter in _DELIMITERS:
            cells = next(iter(_Layout(delimiter).rows_of([line])), [])
            if needed <= {" ".join(cell.lower().split()) for cell in cells}:
                if number:
                    reading.note(f"{number} line(s) before the header were left out")
                return number
    return 0


def _layout(sample: list[str], *, tabs: bool, trusted: bool) -> _Layout:
    """Return the layout under which a sample is a table with the most even rows."""
    if trusted and tabs:
        return _Layout("\t", quote="")
    marked = _SEP_LINE.fullmatch(sample[0].strip("\ufeff ")) if sample else None
    if marked:  # spreadsheets write and read such a line
        return _Layout(marked[1], skip=1)
    if tabs and sample and "\t" in sample[0]:
        return _Layout("\t", quote='"' if _has_quotes(sample) else "")
    scored = []
    for delimiter in _DELIMITERS:
        layout = _Layout(delimiter)
        rows = layout.rows_of(sample)
        width = len(rows[0]) if rows else 0
        usual = Counter(map(len, rows[1:])).most_common(1)[0][0] if rows[1:] else width
        # Rows may be wider by row numbers without a name, or end in a separator.
        scored.append((width > 1, usual in (width, width + 1), round(layout.evenness(sample), 1), width, layout))
    best: _Layout = max(scored, key=lambda entry: entry[:4])[-1]
    rows = best.rows_of(sample)
    if rows and len(rows[0]) == 1:
        numbered = rows[1:] and all(len(cells) == 2 and cells[0].strip().isdigit() for cells in rows[1:])
        return best if numbered else _Layout(_NO_DELIMITER)
    if rows and all(re.fullmatch("'.*'", cell) for cell in rows[0]):
        return replace(best, quote="'")
    escaped = replace(best, escape="\\")
    return escaped if any('\\"' in line for line in sample) and escaped.evenness(sample) > best.evenness(sample) else best


def _has_quotes(sample: list[str]) -> bool:
    """Whether cells of a .tsv stand in quotes, rather than begin with one by chance."""
    rows = [line.split("\t") for line in sample if line]
    opened = [cell for cells in rows for cell in cells if cell.startswith('"')]
    if not opened:
        return False
    if not all(re.fullmatch(r'"(?:[^"]|"")*"', cell, re.DOTALL) for cell in opened):
        # A cell over several lines looks broken here, but then only quotes give even rows.
        quoted = _Layout("\t").rows_of(sample)
        return len({len(cells) for cells in rows}) > 1 and len(quoted) > 1 and len({len(cells) for cells in quoted}) == 1
    always = any(all(len(cells) > i and cells[i].startswith('"') for cells in rows[1:]) for i in range(len(rows[0])))
    return always or any('""' in cell[1:-1] for cell in opened)


def _numbered_rows(reading: Reading, layout: _Layout, lines: Iterator[str]) -> Iterator[tuple[int, list[str] | str, str]]:
    """Yield the line in which each row begins, its cells (or what is wrong where quotes are broken), and how it was repaired."""
    remembered = _Remembered(lines)
    reader = layout.reader(remembered)
    while True:
        line = layout.skip + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = (
                f'broken quotes ({error}). Inside a quoted cell a quote is written twice (""), and each opening quote needs a closing one.'
            )
            lost = layout.skip + reader.line_num - line
            first = line == layout.skip + 1
            if reading.strict or reading.trusted or first or lost > _MAX_LINES_LOST or "end of data" in str(error):
                raise ValueError(f"{reading.at(line)}: {problem}") from error
            if lost:
                yield line, f"{problem} The {lost} lines after it are lost with it.", ""
                continue
            yield line, next(layout.reader([remembered.last], strict=False)), "a stray quote was left out"
            continue
        if cells:  # an empty line between rows is harmless
            yield line, cells, ""


def _names(reading: Reading, line: int, header: list[str], *, width: int, sampled: list[list[str]]) -> list[str]:
    """Return the names of the columns; "" for those that are left out."""
    names = [" ".join(name.split()) for name in header]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    needed = {*reading.columns.values(), *ALL_COLUMNS}
    if twice and not looks_like_data(header) and not set(twice) & needed:
        seen: Counter[str] = Counter()
        for number, name in enumerate(names):
            seen[name] += 1
            names[number] = f"{name} ({seen[name]})" if seen[name] > 1 else name
        twice = []
    if twice:
        hint = no_header_hint(header, reading.ours) or " Give each column its own name."
        raise ValueError(f"{reading.at(line)}: the column name {twice[0]!r} stands there twice.{hint}")
    if width == len(names) + 1 and "" not in names and all(cells[0].strip().isdigit() for cells in sampled if len(cells) == width):
        names.insert(0, "")  # R writes row numbers without a name above them
    numbers = [str(number) for number, name in enumerate(names, 1) if not name and number <= max(width, 1)]
    if numbers and any(cells[int(n) - 1].strip() for n in numbers for cells in sampled if len(cells) >= int(n)):
        reading.note(f"column {', '.join(numbers)} has no name and was left out")
    if not any(names):
        raise ValueError(f"{reading.at(line)}: no column has a name. Put the column names there.")
    return names


def _width_problem(names: list[str], num_cells: int, quoted: bool) -> str:
    if num_cells == len(names) or (num_cells < len(names) and not any(names[num_cells:])):
        return ""
    hint = "A cell that holds the separator or a quote must stand in double quotes." if quoted else "Without quotes no cell can hold a tab."
    shown = ", ".join(name for name in names if name)
    return f"{num_cells} cells, but the header has {len(names)} columns ({shown[:200]}). {hint}"


def first_cells(reading: Reading, *, tabs: bool) -> list[str]:
    """Return the cells of a table's first line."""
    sample = list(islice(read_lines(reading.path, reading.encoding), _SAMPLE_ROWS))
    rows = _layout(sample, tabs=tabs, trusted=False).rows_of(sample)
    return rows[0] if rows else []
