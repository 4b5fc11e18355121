"""What a cell of a person's file becomes: one spelling for a label, whole numbers without loss, lists, answers, dates.

Each `..._cell` takes a cell and its row and returns the value, or raises ValueError for what cannot be meant.
"""

import ast
import json
import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from slm_helpers.data.rows import Row

import numpy as np

LABELS_SEPARATOR = ", "  # between the labels of a text that has several
_CORRECT = {"true": 1, "yes": 1, "right": 1, "correct": 1, "false": 0, "no": 0, "wrong": 0, "incorrect": 0}


def spell_label(value: Any, *, decimal_comma: bool = False) -> str:
    """Return one spelling for a value in whatever format it comes: 1, 1.0 and "1.0" are "1"; True and "TRUE" are "true".

    With `decimal_comma`, "1,5" is "1.5".
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    text = str(value).strip()
    if text in ("True", "TRUE", "False", "FALSE"):
        return text.lower()
    if decimal_comma and re.fullmatch(r"-?\d+,\d+", text):
        text = text.replace(",", ".")
    number = re.fullmatch(r"(-?\d+)\.(\d*?)0*", text)
    if number is None:
        return text
    return f"{number[1]}.{number[2]}" if number[2] else number[1]


def whole_number(value: Any) -> int:
    """Return a whole number from a cell; no digit is lost, however long it is."""
    if isinstance(value, bool):
        return int(value)
    try:
        number = Decimal(str(value).strip())
        if number == number.to_integral_value() and abs(number) < 2**63:
            return int(number)
    except InvalidOperation:  # letters, nan and inf too
        pass
    raise ValueError(f"{value!r} is not a whole number.")


def text_cell(value: Any, row: Row | dict) -> str:
    """Return a text as it stands."""
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} {value!r:.40}, but text is needed. Put it in quotes.")
    return value


def stripped_cell(value: Any, row: Row | dict) -> str:
    """Return a text without spaces around it."""
    return text_cell(value, row).strip()


def name_cell(value: Any, row: Row | dict) -> str:
    """Return a label or a name; a list that holds one is that one."""
    value = _literal(value) if isinstance(value, str) and value.strip().startswith("[") else value
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise ValueError(
                f"{len(value)} labels ({', '.join(map(str, value[:4]))}), but each text has one label here. Keep one of them, "
                "or take the task multilabel, which gives a text any number: slm finetune multilabel, slm report --task multilabel."
            )
        value = value[0]
    if not isinstance(value, str | int | float | bool | Decimal):
        raise ValueError(f"{type(value).__name__} {value!r:.40}, but text is needed. Put it in quotes.")
    return spell_label(value, decimal_comma=getattr(row, "decimal_comma", False))


def labels_cell(value: Any, row: Row | dict) -> str:
    """Return the labels of a text joined by ", ", each once and sorted, from a list or from a text with commas, semicolons or | in it.

    An empty list is "", a text with none of the labels.
    """
    value = _literal(value) if isinstance(value, str) and value.strip().startswith("[") else value
    if not isinstance(value, list | tuple):
        text = name_cell(value, row)
        value = re.split(r"[;|]" if re.search(r"[;|]", text) else ",", text)
    names = (name_cell(label, row).replace(",", " ") for label in value if label is not None)
    return LABELS_SEPARATOR.join(sorted({" ".join(name.split()) for name in names} - {""}))


def words_cell(value: Any, row: Row | dict) -> Any:
    """Return words or tags joined by single spaces; spans of characters stay a list until the text is known."""
    value = _literal(value) if isinstance(value, str) and value.strip().startswith(("[", "array(")) else value
    if isinstance(value, list | tuple):
        if not value or any(isinstance(each, list | tuple | dict) for each in value):
            return list(value)
        # A no-break space keeps the words of a token together; an empty token still is one.
        return " ".join(str(each).strip().replace(" ", "\u00a0") or "\u00a0" for each in value)
    return text_cell(value, row).strip(" \t\n")


def _literal(value: str) -> Any:
    """Return the list or dict that a cell writes as JSON, as Python or as NumPy prints it; the text itself if it is none."""
    text = re.sub(r"array\((\[.*?\])(?:, dtype=\w+)?\)", r"\1", value.strip(), flags=re.DOTALL)
    quoted = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
    if re.fullmatch(rf"\[\s*(?:{quoted})(?:\s+(?:{quoted}))+\s*\]", text):  # NumPy's lists have no commas
        text = f"[{', '.join(re.findall(quoted, text))}]"
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def turns_cell(value: Any, row: Row | dict) -> list:
    """Return the turns of a dialogue from a list or its JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f'turns must be a JSON list such as ["Hello", "Hi"] ({error}).') from error
    if not isinstance(value, list) or not value:
        raise ValueError("turns must be a JSON list with one turn at least.")
    return value


def answer_cell(value: Any, row: Row | dict) -> str:
    """Return the answer; of several equally good ones (SQuAD) the first, and nothing if there is none."""
    found = _first_answer(value, "text")
    return spell_label(found) if isinstance(found, int | float) else text_cell("" if found is None else found, row).strip()


def answer_start_cell(value: Any, row: Row | dict) -> int:
    """Return where the first answer begins in its context, -1 if there is none."""
    found = _first_answer(value, "answer_start")
    return -1 if found is None else whole_number(found)


def _first_answer(value: Any, key: str) -> Any:
    value = _literal(value) if isinstance(value, str) and value.strip().startswith(("{", "[")) else value
    if isinstance(value, dict):
        value = value.get(key)
    if isinstance(value, list):
        value = value[0] if value else None
        value = value.get(key) if isinstance(value, dict) else value
        value = None if key == "answer_start" and isinstance(value, str) and not value.isdigit() else value
    return value


def step_cell(value: Any, row: Row | dict) -> int:
    """Return the place of an attempt in time: a whole number, or a date in nanoseconds."""
    if isinstance(value, datetime) or (isinstance(value, str) and re.search(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", value)):
        import pandas as pd  # heavy: who reads no dates does without

        try:
            return int(pd.Timestamp(value).as_unit("ns").value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{value!r} is neither a whole number nor a date.") from error
    return whole_number(value)


def correct_cell(value: Any, row: Row | dict) -> int:
    """Return 1 for a right answer and 0 for a wrong one, from numbers, truth values or words."""
    number = _CORRECT.get(str(value).strip().lower())
    number = whole_number(value) if number is None else number
    if number not in (0, 1):
        raise ValueError(f"{value!r}, but it must be 1 for a right answer or 0 for a wrong one.")
    return number
