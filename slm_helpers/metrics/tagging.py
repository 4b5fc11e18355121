"""Entities in IOB2 tags: precision, recall and F1 over whole spans, and legal tag sequences."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def spans_of(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return the entities of a sentence as (first word, word after the last, type), read from its IOB2 tags.

    An I-X that continues nothing begins an entity, as the script conlleval counts it.

    Example:
        >>> spans_of(["B-PER", "I-PER", "O", "B-LOC"])
        [(0, 2, 'PER'), (3, 4, 'LOC')]
    """
    spans: list[tuple[int, int, str]] = []
    start, kind = 0, None
    for place, tag in enumerate([*tags, "O"]):
        goes_on = tag[:1] == "I" and tag[2:] == kind
        if kind is not None and not goes_on:
            spans.append((start, place, kind))
            kind = None
        if tag != "O" and not goes_on:
            start, kind = place, tag[2:]
    return spans


def span_counts(tags: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Count the entities of each sentence and type: columns row (from 0), type, right, found, wanted.

    An entity is right if its first word, its last word and its type are.

    Raises:
        ValueError: If a sentence has not as many predicted tags as tags.
    """
    counts: dict[tuple[int, str], list[int]] = {}
    for row, (ours, theirs) in enumerate(zip(predictions, tags, strict=True)):
        if len(ours) != len(theirs):
            raise ValueError(f"row {row + 1}: {len(ours)} predicted tags for {len(theirs)} words, but each word needs one.")
        found, wanted = set(spans_of(ours)), set(spans_of(theirs))
        for place, spans in enumerate((found & wanted, found, wanted)):
            for _, _, kind in spans:
                counts.setdefault((row, kind), [0, 0, 0])[place] += 1
    keys = pd.DataFrame(list(counts), columns=["row", "type"])
    values = np.array(list(counts.values()), dtype="int64").reshape(-1, 3)
    return keys.assign(right=values[:, 0], found=values[:, 1], wanted=values[:, 2])


def precision_recall_f1(right: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 from counts; 0 where nothing was found or wanted, as conlleval has it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall, f1 = np.divide(right, found), np.divide(right, wanted), np.divide(2 * right, found + wanted)
    return np.nan_to_num(precision), np.nan_to_num(recall), np.nan_to_num(f1)


def tag_table(
    tags: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], *, num_samples: int = 1000, seed: int = 42
) -> pd.DataFrame:
    """Return the scores of a tagger with 95 % intervals: columns metric, value, ci_low, ci_high.

    entity_f1, entity_precision and entity_recall count the entities of all sentences together, exact ones only; accuracy is
    the share of words with the right tag. The intervals draw sentences with replacement.

    Reference:
        Tjong Kim Sang and De Meulder (2003), "Introduction to the CoNLL-2003 Shared Task", arXiv:cs/0306050 (the script conlleval).
    """
    counts = np.zeros((len(tags), 5), dtype="int64")  # right, found, wanted, right words, words
    entities = span_counts(tags, predictions)
    np.add.at(counts[:, :3], entities["row"].to_numpy(dtype="int64"), entities[["right", "found", "wanted"]].to_numpy())
    counts[:, 3] = [sum(a == b for a, b in zip(ours, theirs, strict=True)) for ours, theirs in zip(predictions, tags, strict=True)]
    counts[:, 4] = [len(sentence) for sentence in tags]
    # Sentences with the same counts are one kind: to draw sentences is to draw kinds, of which there are few.
    kinds, sizes = np.unique(counts, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(counts), sizes / len(counts), size=num_samples)
    right, found, wanted, right_words, words = (np.concatenate([sizes[None], drawn]) @ kinds).T
    precision, recall, f1 = precision_recall_f1(right, found, wanted)
    scores = np.stack([f1, precision, recall, right_words / words])
    low, high = np.quantile(scores[:, 1:], [0.025, 0.975], axis=1)
    names = ["entity_f1", "entity_precision", "entity_recall", "accuracy"]
    return pd.DataFrame({"metric": names, "value": scores[:, 0], "ci_low": low, "ci_high": high})


def legal_tags(scores: Sequence[np.ndarray], labels: Sequence[str]) -> list[np.ndarray]:
    """Return the best sequence of tags for each sentence among those that are well-formed IOB2, by the Viterbi algorithm.

    Args:
        scores: Logits or log-probabilities for each sentence, shape (words, num_tags).
        labels: The tags in the order of the scores, with a B-X for each I-X.

    Returns:
        Places in `labels`, one a word: no I-X stands anywhere but behind a B-X or I-X.
    """
    moves = np.array([[0.0 if _may_follow(after, before) else -np.inf for after in labels] for before in labels])
    first = np.array([0.0 if _may_follow(label, "O") else -np.inf for label in labels])
    lengths = np.array([len(rows) for rows in scores], dtype="int64")
    order = np.argsort(lengths, kind="stable")
    best: list[np.ndarray] = [np.zeros(0, dtype="int64")] * len(order)
    start = 0
    while start < len(order):
        # Sentences of like length side by side; few of them where they are long.
        stop = start + max(1, min(256, (1 << 15) // max(1, int(lengths[order[min(start + 255, len(order) - 1)]]))))
        picked = order[start:stop]
        for row, path in zip(picked, _best_paths([scores[i] for i in picked], first, moves), strict=True):
            best[row] = path
        start = stop
    return best


def _may_follow(tag: str, before: str) -> bool:
    return tag[:1] != "I" or (before != "O" and before[2:] == tag[2:])


def _best_paths(scores: list[np.ndarray], first: np.ndarray, moves: np.ndarray) -> list[np.ndarray]:
    """Return the best path through each table of scores; all tables are run side by side, one word at a time."""
    lengths = np.array([len(rows) for rows in scores])
    longest, num_tags = int(lengths.max()), len(first)
    padded = np.zeros((longest, len(scores), num_tags))
    for row, values in enumerate(scores):
        padded[: len(values), row] = values
    total = first + padded[0] if longest else np.zeros((len(scores), num_tags))
    came_from = np.tile(np.arange(num_tags), (longest, len(scores), 1))  # behind the end: from itself
    for place in range(1, longest):
        live = (place < lengths)[:, None]
        ways = total[:, :, None] + moves
        came_from[place] = np.where(live, ways.argmax(axis=1), came_from[place])
        total = np.where(live, ways.max(axis=1) + padded[place], total)
    path = np.zeros((longest, len(scores)), dtype="int64")
    tag, rows = total.argmax(axis=1), np.arange(len(scores))
    for place in reversed(range(longest)):
        path[place] = tag
        tag = came_from[place, rows, tag]
    return [path[:length, row] for row, length in enumerate(lengths)]
