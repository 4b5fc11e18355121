"""Words of a collection as numbers: counted once, then vocabulary growth, n-grams and features are array arithmetic.

Reference:
    Heaps (1978), "Information Retrieval": the vocabulary grows as a power of the text.
    Monroe, Colaresi and Quinn (2008), "Fightin' Words": log-odds with a prior, for the n-grams that are typical of a group.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slm_helpers.text.words import CJK, MARKS

import numpy as np
import pandas as pd

_LETTER = rf"(?:[^\W{CJK}]|[{MARKS}])"
WORD = re.compile(rf"[{CJK}]|{_LETTER}+(?:['’]{_LETTER}+)*")  # "don't" is one word, a sign of Chinese or Japanese is one too
_LONG_NUMBER = re.compile(r"\d{5}|@|_{3}")  # in a word that is not shown: it may be a person's number


@dataclass(frozen=True)
class WordTable:
    """The words of texts in lower case: `ids[offsets[i]:offsets[i + 1]]` are those of text i, as positions in `vocabulary`."""

    vocabulary: list[str]
    ids: np.ndarray  # int32, shape (num_words,)
    offsets: np.ndarray  # int64, shape (num_texts + 1,)

    @property
    def num_texts(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Words in each text, shape (num_texts,)."""
        return np.diff(self.offsets)

    @property
    def text_of_word(self) -> np.ndarray:
        """The text that each word stands in, int32, shape (num_words,)."""
        return np.repeat(np.arange(self.num_texts, dtype="int32"), self.lengths)

    def take(self, texts: np.ndarray) -> "WordTable":
        """Return the table of some texts, in their order; the vocabulary stays."""
        lengths = self.lengths[texts]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[texts], lengths)
        return WordTable(self.vocabulary, self.ids[places], offsets)


def count_words(texts: Sequence[str]) -> WordTable:
    """Cut texts into words and number these by first appearance.

    Example:
        >>> table = count_words(["Don't go!", "Go, go"])
        >>> table.vocabulary, table.ids.tolist(), table.lengths.tolist()
        (["don't", 'go'], [0, 1, 1, 1], [2, 2])
    """
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__
    parts = [np.array([vocabulary[word] for word in WORD.findall(text.lower())], dtype="int32") for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype("int64")
    return WordTable(list(vocabulary), np.concatenate(parts) if parts else np.zeros(0, "int32"), offsets)


def vocabulary_growth(table: WordTable, *, seed: int = 42, num_points: int = 25) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return how many distinct words the first so many words hold, texts in random order, and Heaps' law through it.

    Returns:
        Columns `words` and `distinct`, and {"beta", "k"} of distinct = k * words ** beta, fitted on the points from 1 % of the words on;
        NaN for fewer than 100 words.
    """
    mixed = table.take(np.random.default_rng(seed).permutation(table.num_texts))
    total = len(mixed.ids)
    if total < 100:
        return pd.DataFrame({"words": [total], "distinct": [len(np.unique(mixed.ids))]}), {"beta": float("nan"), "k": float("nan")}
    first = np.sort(np.unique(mixed.ids, return_index=True)[1])
    sizes = np.unique(np.geomspace(min(50, total), total, num_points).astype("int64"))
    curve = pd.DataFrame({"words": sizes, "distinct": np.searchsorted(first, sizes)})
    late = curve[curve["words"] >= 0.01 * total]
    beta, log_k = np.polyfit(np.log(late["words"]), np.log(late["distinct"]), 1)
    return curve, {"beta": float(beta), "k": float(np.exp(log_k))}


def count_ngrams(table: WordTable, groups: np.ndarray, num_groups: int, *, longest: int = 3, min_texts: int = 5) -> dict[str, Any]:
    """Count in how many texts of each group every n-gram stands, however often in one; n-grams of fewer texts are left out.

    A longer n-gram is looked for only where its parts are frequent (Agrawal and Srikant 1994, "Apriori").

    Args:
        table: Words.
        groups: The group of each text, 0 to num_groups - 1.
        num_groups: Number of groups.
        longest: Words of the longest n-gram.
        min_texts: Least number of texts.

    Returns:
        "ngrams": the n-grams as strings; "sizes": their n; "counts": int64, shape (num_ngrams, num_groups).
    """
    text = table.text_of_word
    code = table.ids.astype("int64")
    names, sizes, counts, words = [], [], [], table.vocabulary
    prefix: list[str] = []
    for n in range(1, longest + 1):
        if n > 1:  # `code` of an (n-1)-gram that is too rare is -1
            follows = (code[:-1] >= 0) & (table.ids[n - 1 :][: len(code) - 1] >= 0) & (text[:-1] == text[1:])
            tail = code[1:] >= 0
            joint = np.where(follows & tail, code[:-1] * len(words) + table.ids[n - 1 :], -1)
            code, text = joint, text[:-1]
        codes, code = _frequent(code, text, min_texts)
        if not len(codes):
            break
        heads = words if n == 1 else [f"{prefix[each // len(words)]} {words[each % len(words)]}" for each in codes]
        prefix = [heads[each] for each in codes] if n == 1 else heads
        present = code >= 0
        pairs = np.unique(text[present].astype("int64") * len(codes) + code[present])
        table_of = np.bincount((pairs % len(codes)) * num_groups + groups[pairs // len(codes)], minlength=len(codes) * num_groups).reshape(
            -1, num_groups
        )
        names += prefix
        sizes += [n] * len(codes)
        counts.append(table_of)
    joined = np.concatenate(counts) if counts else np.zeros((0, num_groups), dtype="int64")
    return {"ngrams": np.array(names, dtype=object), "sizes": np.array(sizes, dtype="int64"), "counts": joined}


def _frequent(code: np.ndarray, text: np.ndarray, min_texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that stand in enough texts, ascending, and the array with each code replaced by its place there (-1: too rare)."""
    codes, place = np.unique(code, return_inverse=True)
    pairs = np.unique(place.astype("int64") * (int(text.max(initial=0)) + 1) + text)
    num_texts = np.bincount(pairs // (int(text.max(initial=0)) + 1), minlength=len(codes))
    enough = (num_texts >= min_texts) & (codes >= 0)
    new = np.where(enough, np.cumsum(enough) - 1, -1)
    return codes[enough], new[place]


def is_shown(ngram: str) -> bool:
    """Whether an n-gram may be shown: none with a long number in it, which may be a person's."""
    return not _LONG_NUMBER.search(ngram)


def frequent_ngrams(found: dict[str, Any], *, num: int = 15, plain_words: frozenset[str] = frozenset()) -> pd.DataFrame:
    """Return the n-grams of each length that stand in most texts: columns n, ngram, texts.

    N-grams of `plain_words` and single letters alone are left out.
    """
    rows = []
    totals = found["counts"].sum(axis=1)
    for n in np.unique(found["sizes"]):
        places = np.flatnonzero(found["sizes"] == n)
        taken = 0
        for place in places[np.argsort(-totals[places], kind="stable")]:
            ngram = found["ngrams"][place]
            content = [word for word in ngram.split(" ") if word not in plain_words and (len(word) > 1 or not word.isascii())]
            if taken < num and is_shown(ngram) and content:
                rows.append({"n": int(n), "ngram": ngram, "texts": int(totals[place])})
                taken += 1
    return pd.DataFrame(rows, columns=["n", "ngram", "texts"])


def typical_ngrams(
    found: dict[str, Any], names: Sequence[str], num_texts: np.ndarray, *, num: int = 10, least: float = 3.0, prior: float = 10.0
) -> pd.DataFrame:
    """Return the n-grams that are more frequent in a group than in all others together.

    Args:
        found: From `count_ngrams`.
        names: Of the groups.
        num_texts: Texts of each group.
        num: N-grams of a group at most; one whose words stand in an n-gram that is listed already is left out.
        least: Smallest z of the log-odds: 3 is rarely reached by chance, though thousands of n-grams are tried.
        prior: Weight of the prior, in texts: it pulls n-grams of few texts to the odds of the whole collection.

    Returns:
        Columns group, ngram, z, share (of the group's texts), elsewhere (share of all others).
    """
    counts = found["counts"].astype("float64")
    total, everywhere = float(num_texts.sum()), counts.sum(axis=1)
    rows: list[dict[str, Any]] = []
    for group, name in enumerate(names):
        size, rest = float(num_texts[group]), total - float(num_texts[group])
        if not size or not rest or not len(counts):
            continue
        inside, outside = counts[:, group], everywhere - counts[:, group]
        added = prior * everywhere / total
        # Half a text keeps the odds finite of an n-gram that stands in all of them.
        odds_in = np.log((inside + added) / (size + prior - inside - added + 0.5))
        odds_out = np.log((outside + added) / (rest + prior - outside - added + 0.5))
        z = (odds_in - odds_out) / np.sqrt(1 / (inside + added) + 1 / (outside + added))
        listed: list[set[str]] = []
        for place in np.lexsort((-found["sizes"], -z))[: 40 * num]:
            ngram = found["ngrams"][place]
            words = set(ngram.split(" "))
            if z[place] < least or len(listed) == num:
                break
            if not is_shown(ngram) or any(words <= other or other <= words for other in listed):
                continue
            listed.append(words)
            shares = {"share": inside[place] / size, "elsewhere": outside[place] / rest}
            rows.append({"group": name, "ngram": ngram, "z": float(z[place])} | shares)
    return pd.DataFrame(rows, columns=["group", "ngram", "z", "share", "elsewhere"])
