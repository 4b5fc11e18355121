"""Splits without leaks, near copies, and windows of token ids."""

import re
from collections.abc import Iterable

from slm_helpers._checks import check_positive

import numpy as np
import pandas as pd


def make_splits(
    keys: Iterable[str],
    *,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    labels: Iterable[str] | None = None,
    exact: bool = False,
    seed: int = 42,
) -> np.ndarray:
    """Deal rows to train, valid and test at random; rows with the same key (after `normalise_text`) stay together.

    Args:
        keys: One string a row, usually its text.
        shares: Of train, valid and test; they sum to 1.
        labels: If given, every label is dealt in these shares.
        exact: Compare keys to the letter, for names and numbers.
        seed: Of the shuffle. Whoever draws other things at random from the same rows should use another seed for them.

    Returns:
        Array of "train", "valid" and "test", one a row.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares are {shares}, but must be three shares of 0 or more that sum to 1, e.g. (0.8, 0.1, 0.1).")
    table = pd.DataFrame({"key": [key if exact else normalise_text(key) or key for key in keys]})
    table["label"] = list(labels) if labels is not None else ""
    groups = table.drop_duplicates("key").sample(frac=1.0, random_state=seed)
    place = groups.groupby("label").cumcount()
    size = groups.groupby("label")["key"].transform("size")
    num_valid, num_test = np.floor(size * shares[1] + 0.5), np.floor(size * shares[2] + 0.5)
    groups["split"] = np.where(place < num_test, "test", np.where(place < num_test + num_valid, "valid", "train"))
    return table["key"].map(groups.set_index("key")["split"]).to_numpy(dtype=object)


def normalise_text(text: str) -> str:
    """Return the words of `text` in lower case, without punctuation and digits, joined by single spaces."""
    return " ".join(re.sub(r"[^\w\s]|[\d_]", "", text.lower()).split())


def find_shared_runs(texts: Iterable[str], splits: Iterable[str], *, num_words: int = 8) -> pd.DataFrame:
    """Find near copies across splits: runs of `num_words` words that stand in two splits at least.

    Words are compared as `normalise_text` leaves them. Returns one row a run: run, splits, num_rows.
    """
    check_positive(num_words=num_words)
    where: dict[str, set[tuple[str, int]]] = {}
    for row, (text, split) in enumerate(zip(texts, splits, strict=True)):
        words = normalise_text(text).split()
        for start in range(len(words) - num_words + 1):
            where.setdefault(" ".join(words[start : start + num_words]), set()).add((split, row))
    found = []
    for run, places in where.items():
        names = sorted({split for split, _ in places})
        if len(names) > 1:
            found.append((run, "+".join(names), len(places)))
    return pd.DataFrame(found, columns=["run", "splits", "num_rows"])


def make_windows(token_ids: np.ndarray, window: int, *, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cut a stream of token ids into training examples; the targets are the inputs shifted by one.

    Args:
        token_ids: Shape (num_tokens,).
        window: Tokens in one example.
        stride: Tokens from one start to the next; `window` (no overlap) unless given.

    Returns:
        inputs and targets, each int32 of shape (num_windows, window). Tokens after the last full window are left out:
        at most `stride` of them.

    Raises:
        ValueError: If the stream is too short for one window and its target.

    Example:
        >>> make_windows(np.arange(7), 3)[1].tolist()
        [[1, 2, 3], [4, 5, 6]]
    """
    stride = window if stride is None else stride
    check_positive(window=window, stride=stride)
    token_ids = np.asarray(token_ids)
    if token_ids.ndim != 1 or len(token_ids) < window + 1:
        raise ValueError(
            f"token_ids has shape {token_ids.shape}, but a window of {window} needs a flat array of at least {window + 1} tokens. "
            "Use more text or a smaller window."
        )
    view = np.lib.stride_tricks.sliding_window_view(token_ids, window + 1)[::stride]
    return view[:, :-1].astype("int32"), view[:, 1:].astype("int32")
