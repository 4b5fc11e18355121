"""Checks of arguments: each raises where the value enters, says what was wrong and how to fix it; and text made safe to print."""

import re
from collections.abc import Collection
from numbers import Integral, Real

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def check_positive(**sizes: int) -> None:
    """Raise ValueError for the first size that is not a positive whole number."""
    for name, value in sizes.items():
        # numpy integers count too; True is an Integral but never meant as a size
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 1. Pass e.g. {name}=64.")


def check_share(**shares: float) -> None:
    """Raise ValueError for the first share that lies outside [0, 1)."""
    for name, value in shares.items():
        if not isinstance(value, Real) or not 0 <= value < 1:
            raise ValueError(f"{name} is {value!r}, but must lie in [0, 1). For 20 % write {name}=0.2.")


def check_choice(choices: Collection[str], **values: str) -> None:
    """Raise ValueError for the first value that is not one of `choices`."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, choices))}.")


def printable(text: str) -> str:
    r"""Return `text` with its control characters escaped, so that a terminal shows them and obeys none.

    Escaped are the control characters of ASCII but tab and line feed, DEL, those from U+0080 to U+009F, and half a surrogate pair, which
    no stream can encode. All other letters, signs and emoji stay.

    Example:
        >>> printable("caf\u00e9\x1b[31m")
        'caf\u00e9\\x1b[31m'
    """
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def harmless_cell(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe before = + - @ at its start, unless it is a number."""
    if not cell.lstrip().startswith(("=", "+", "-", "@")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
