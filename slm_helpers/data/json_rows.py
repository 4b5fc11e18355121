"""Read rows from JSON lines and from the usual forms of a whole JSON file."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from slm_helpers.data.decoding import open_text, read_lines
from slm_helpers.data.rows import Reading, Row

_SPACE = re.compile(r"[\s,]*")
_MAX_CHARS = 1 << 28  # of a file that has to be read as a whole


def read_jsonl(reading: Reading) -> Iterator[Row]:
    """Yield one row an object a line; a file that begins with `[` is read as one list."""
    for number, line in enumerate(read_lines(reading.path, reading.encoding), 1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith("[") and not line.rstrip().endswith("]"):
            yield from read_json(reading)
            return
        try:
            value = parse_json(line)
        except ValueError as error:
            if number == 1 and line.strip() == "{":  # objects over several lines
                yield from read_json(reading)
                return
            raise ValueError(f"{reading.at(number)}: not a JSON object ({error}). Each line holds one object.") from error
        if number == 1 and isinstance(value, list) and value and isinstance(value[0], dict):
            yield from read_json(reading)
            return
        if not isinstance(value, dict):
            raise ValueError(f"{reading.at(number)}: a JSON {type(value).__name__}, but each line must hold an object {{...}}.")
        yield Row(value, where=reading.at(number))


def read_json(reading: Reading) -> Iterator[Row]:
    """Yield the rows of a JSON file: a list of objects, one list under a key, columns as pandas writes them, or SQuAD's passages.

    A file that holds one object a line is read as JSON lines.
    """
    first = list(islice(read_lines(reading.path, reading.encoding), 2))
    if len(first) > 1 and _is_an_object(first[0]):
        yield from read_jsonl(reading)
        return
    with open_text(reading.path, reading.encoding) as file:
        text = file.read(_MAX_CHARS + 1)
    if len(text) > _MAX_CHARS:
        raise ValueError(
            f"{reading.path}: a .json file is read as a whole, up to {_MAX_CHARS:,} characters. Write one object a line, as .jsonl."
        )
    if not text.strip():
        return
    try:
        value = parse_json(text)
    except ValueError as error:
        value = _many_objects(text)
        if not value:
            raise ValueError(f"{reading.path}: not JSON ({error}).") from error
    for number, row in enumerate(_rows_within(reading, value), 1):
        where = f"{reading.path}, row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a JSON {type(row).__name__}, but each row must be an object {{...}}.")
        yield Row(row, where=where)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: If it is none, a key stands in an object twice, or it is nested too deep or a number too long to be read.
    """

    def no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands there twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=no_twice)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _is_an_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _many_objects(text: str) -> list[Any]:
    """Return JSON values that stand one after the other, each over as many lines as it likes; none if that is not all there is."""
    decoder, values, position = json.JSONDecoder(), [], _SPACE.match(text).end()
    try:
        while position < len(text):
            value, position = decoder.raw_decode(text, position)
            values.append(value)
            position = _SPACE.match(text, position).end()
    except (ValueError, RecursionError):
        return []
    return values


def _rows_within(reading: Reading, value: Any) -> list[Any]:
    """Return the list of rows that a JSON value holds."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):  # pandas, orient="split"
            return [dict(zip(value["columns"], cells, strict=False)) for cells in value["data"] if isinstance(cells, list)]
        lists = {name: inner for name, inner in value.items() if isinstance(inner, list)}
        if lists and len(lists) == len(value) and len({len(cells) for cells in lists.values()}) == 1 and not _holds_objects(lists):
            return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]  # columns of cells
        if value and all(isinstance(inner, dict) for inner in value.values()):  # pandas writes {column: {row: cell}}
            keys = list(next(iter(value.values())))
            if keys and all(list(inner) == keys for inner in value.values()):
                if not all(key.isdigit() for key in keys):
                    return list(value.values())  # or {row: {column: cell}}
                return [{name: cells[key] for name, cells in value.items()} for key in keys]
        objects = [inner for inner in lists.values() if inner and all(isinstance(each, dict) for each in inner)]
        if len(objects) == 1:
            return _squad_rows(objects[0]) if "paragraphs" in objects[0][0] else objects[0]
    raise ValueError(
        f"{reading.path}: a JSON {type(value).__name__} without one list of rows. Give a list of objects, or one object a line as .jsonl."
    )


def _holds_objects(lists: dict[str, list]) -> bool:
    return any(isinstance(cell, dict) for cells in lists.values() for cell in cells[:1])


def _squad_rows(articles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a question; a question that its passage does not answer has no answers."""
    return [
        {"title": article.get("title", ""), "context": passage.get("context"), **question}
        for article in articles
        for passage in article.get("paragraphs", [])
        for question in passage.get("qas", [])
    ]
