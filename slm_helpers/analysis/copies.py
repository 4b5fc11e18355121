"""Copies in a collection: the same text, the same words, nearly the same words; and phrases that many texts share.

Reference:
    Broder (1997), "On the Resemblance and Containment of Documents": MinHash of runs of words.
    Leskovec, Rajaraman and Ullman (2020), "Mining of Massive Datasets", chapter 3: bands of hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slm_helpers.analysis.word_table import WordTable

import numpy as np

RUN = 3  # words of a run that is compared
SIMILAR = 0.5  # share of runs in common (Jaccard) from which on two texts are near copies
_BANDS, _ROWS = 24, 3  # of hashes: a pair of similarity 0.5 shares a band in 96 % of cases, of 0.7 in 99.99 %
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_CHUNK = 2_000_000  # runs hashed together
PHRASE = 8  # words of a phrase that only copied text shares


@dataclass(frozen=True)
class Copies:
    """Which texts belong together.

    Attributes:
        group: A number for each text; copies have the same one, shape (num_texts,). Groups are numbered by their first text.
        first: Whether a text is the first of its group.
        kind: For each text that is not: "same text", "same words" or "near copy" of the first; "" for the first.
        similarity: Share of runs of three words in common with the first, 0 to 1.
    """

    group: np.ndarray
    first: np.ndarray
    kind: np.ndarray
    similarity: np.ndarray


def find_copies(texts: Sequence[str], table: WordTable, *, seed: int = 42) -> Copies:
    """Find copies among texts; what only similar texts connect is one group too.

    Args:
        texts: As written.
        table: From `count_words`.
        seed: Of the hashes.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    num = len(texts)
    if not num:
        nothing = np.zeros(0, dtype="int64")
        return Copies(nothing, nothing.astype(bool), nothing.astype(object), nothing.astype("float64"))
    same_words = _same_words(texts, table)
    unique = np.unique(same_words)
    hashes, starts = _runs(table.take(unique))
    left, right = _candidates(hashes, starts, seed)
    alike = np.array(
        [_jaccard(_row(hashes, starts, a), _row(hashes, starts, b)) >= SIMILAR for a, b in zip(left, right, strict=True)], dtype=bool
    )
    links = csr_matrix((np.ones(int(alike.sum())), (left[alike], right[alike])), shape=(len(unique), len(unique)))
    component = connected_components(links, directed=False)[1]
    joined = component[np.searchsorted(unique, same_words)]
    firsts, group = np.unique(joined, return_index=True)[1], joined
    order = np.argsort(firsts)
    group = np.argsort(order)[group]  # numbered by first text
    firsts = firsts[order]
    kind, similarity = np.full(num, "", dtype=object), np.ones(num)
    place = np.searchsorted(unique, same_words)
    for text in np.flatnonzero(np.arange(num) != firsts[group]):
        head = firsts[group[text]]
        if same_words[text] == same_words[head]:
            kind[text] = "same text" if texts[text] == texts[head] else "same words"
        else:
            kind[text] = "near copy"
            similarity[text] = _jaccard(_row(hashes, starts, place[text]), _row(hashes, starts, place[head]))
    return Copies(group, np.arange(num) == firsts[group], kind, similarity)


def shared_phrases(table: WordTable, copies: Copies, *, min_texts: int = 5) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Find phrases of eight words that stand in several texts which are no copies of one another: headers, footers, templates.

    Args:
        table: Words.
        copies: Of a group of copies only the first counts.
        min_texts: Least number of such texts.

    Returns:
        Which share of the words of each text stands in such phrases, shape (num_texts,); and the phrases of most texts, one of several
        that overlap, as (text, first word within it, number of texts).
    """
    hashes, places, text = _ngram_hashes(table, PHRASE)
    frequent = _repeated(hashes, min_texts)
    if not len(frequent):
        return np.zeros(table.num_texts), []
    where = np.minimum(np.searchsorted(frequent, hashes), len(frequent) - 1)
    kept = frequent[where] == hashes
    places, text, where = places[kept], text[kept], where[kept]
    counted = copies.first[text]
    pairs = np.unique(where[counted].astype("int64") * table.num_texts + text[counted])
    num_texts = np.bincount(pairs // table.num_texts, minlength=len(frequent))
    common = num_texts[where] >= min_texts
    covered = np.zeros(len(table.ids) + 1, dtype="int64")
    np.add.at(covered, places[common], 1)
    np.add.at(covered, places[common] + PHRASE, -1)
    within = np.cumsum(covered)[:-1] > 0
    sums = np.concatenate([[0], np.cumsum(within)])[table.offsets]
    shares = np.diff(sums) / np.maximum(table.lengths, 1)
    return shares, _distinct_phrases(table, places, text, where, num_texts, common)


def _distinct_phrases(
    table: WordTable, places: np.ndarray, text: np.ndarray, where: np.ndarray, num_texts: np.ndarray, common: np.ndarray, *, most: int = 20
) -> list[tuple[int, int, int]]:
    """Return common phrases, those of most texts first; of phrases that share four words in a row, the first."""
    keys, first = np.unique(where[common], return_index=True)
    at = np.flatnonzero(common)[first]
    found: list[tuple[int, int, int]] = []
    known: set[tuple[int, ...]] = set()
    for each in np.lexsort((places[at], -num_texts[keys]))[:2000]:
        words = table.ids[places[at[each]] : places[at[each]] + PHRASE].tolist()
        parts = {tuple(words[start : start + 4]) for start in range(PHRASE - 3)}
        if not parts & known and len(found) < most:
            owner = int(text[at[each]])
            found.append((owner, int(places[at[each]] - table.offsets[owner]), int(num_texts[keys[each]])))
        known |= parts
    return found


def _repeated(hashes: np.ndarray, least: int) -> np.ndarray:
    """Return the values that stand there so often at least, ascending: one sort in place of the three that `np.unique` needs for more."""
    ordered = np.sort(hashes)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, "int64")
    return ordered[starts[np.diff(np.append(starts, len(ordered))) >= least]]


def _same_words(texts: Sequence[str], table: WordTable) -> np.ndarray:
    """Return for each text the first one with the same words in the same order; a text without words equals only itself as written."""
    known: dict[bytes | str, int] = {}
    found = np.empty(len(texts), dtype="int64")
    for number, text in enumerate(texts):
        words = table.ids[table.offsets[number] : table.offsets[number + 1]].tobytes()
        found[number] = known.setdefault(words or text, number)
    return found


def _ngram_hashes(table: WordTable, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a hash of each run of n words within a text, where it begins among all words, and its text."""
    num = len(table.ids) - n + 1
    if num <= 0:
        return np.zeros(0, "uint64"), np.zeros(0, "int64"), np.zeros(0, "int32")
    text = table.text_of_word
    value = np.zeros(num, dtype="uint64")
    for step in range(n):
        value = _mix(value * np.uint64(0x100000001B3) + table.ids[step : step + num].astype("uint64") + np.uint64(1))
    inside = np.flatnonzero(text[:num] == text[n - 1 :])
    return value[inside], inside, text[inside]


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)  # SplitMix64
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _runs(table: WordTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct hashes of the runs of each text, one text after the other, and where each text's begin.

    A text of fewer words is one run, one without words none that another shares.
    """
    hashes, _, text = _ngram_hashes(table, RUN)
    short = np.flatnonzero(table.lengths < RUN)
    whole = np.where(table.lengths[short] > 0, _short_hashes(table, short), _mix(short.astype("uint64") + _PRIME))
    hashes, text = np.concatenate([hashes, whole]), np.concatenate([text.astype("int64"), short])
    order = np.lexsort((hashes, text))
    hashes, text = hashes[order], text[order]
    new = np.append(True, (hashes[1:] != hashes[:-1]) | (text[1:] != text[:-1])) if len(hashes) else np.zeros(0, bool)
    hashes, text = hashes[new], text[new]
    return hashes, np.searchsorted(text, np.arange(table.num_texts + 1))


def _short_hashes(table: WordTable, short: np.ndarray) -> np.ndarray:
    """Return one hash for the one or two words of each short text."""
    last = max(len(table.ids) - 1, 0)
    ids = table.ids if len(table.ids) else np.zeros(1, "int32")
    first = ids[np.minimum(table.offsets[short], last)].astype("uint64")
    second = np.where(table.lengths[short] > 1, ids[np.minimum(table.offsets[short] + 1, last)] + 1, 0).astype("uint64")
    return _mix(_mix(first + _PRIME) + second)


def _candidates(hashes: np.ndarray, starts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of texts that share a band of MinHashes: texts in a band are paired with the first and the next of it."""
    rng = np.random.default_rng(seed)
    num, salts = len(starts) - 1, rng.integers(1, 2**63, _BANDS * _ROWS, dtype="uint64")
    pairs: list[np.ndarray] = []
    for band in range(_BANDS):
        key = np.zeros(num, dtype="uint64")
        for salt in salts[band * _ROWS : (band + 1) * _ROWS]:
            key = _mix(key + _smallest(hashes, starts, salt))
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        new = np.append(True, ordered[1:] != ordered[:-1])
        head = order[np.maximum.accumulate(np.where(new, np.arange(num), 0))]
        follows = np.flatnonzero(~new)
        pairs += [np.stack([head[follows], order[follows]]), np.stack([order[follows - 1], order[follows]])]
    both = np.sort(np.concatenate(pairs, axis=1), axis=0)
    code = np.unique(both[0] * num + both[1])
    return code // num, code % num


def _smallest(hashes: np.ndarray, starts: np.ndarray, salt: np.uint64) -> np.ndarray:
    """Return the smallest salted hash of each text."""
    found = np.empty(len(starts) - 1, dtype="uint64")
    begin = 0
    while begin < len(found):
        end = max(begin + 1, int(np.searchsorted(starts, starts[begin] + _CHUNK, side="right")) - 1)
        part = _mix(hashes[starts[begin] : starts[end]] ^ salt)
        found[begin:end] = np.minimum.reduceat(part, starts[begin:end] - starts[begin])
        begin = end
    return found


def _row(hashes: np.ndarray, starts: np.ndarray, text: int) -> np.ndarray:
    return hashes[starts[text] : starts[text + 1]]


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Return the share of hashes in common of two ascending arrays of distinct ones."""
    both = np.intersect1d(one, other, assume_unique=True).size
    return both / (len(one) + len(other) - both)
