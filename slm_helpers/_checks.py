"""Checks of arguments: each raises where the value enters, says what was wrong and how to mend it."""

from collections.abc import Collection
from numbers import Integral, Real


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
