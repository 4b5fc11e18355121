"""Entities in IOB2 tags: precision, recall and F1 over whole spans, and legal tag sequences."""

from collections.abc import Sequence

from slm_helpers.metrics.intervals import bootstrap_table

import numpy as np
import pandas as pd

COUNTS = ("tp", "num_predicted", "num_gold")


def spans_of(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return the entities of a sentence as (first word, word after the last, type), read from its IOB2 tags.

    An I-X that continues nothing begins an entity, as the script conlleval counts it.

    Example:
        >>> spans_of(["B-PER", "I-PER", "O", "B-LOC"])
        [(0, 2, 'PER'), (3, 4, 'LOC')]
    """
    spans: list[tuple[int, int, str]] = []
    start, kind = 0, None
    for i, tag in enumerate([*tags, "O"]):
        continues = tag[:1] == "I" and tag[2:] == kind
        if kind is not None and not continues:
            spans.append((start, i, kind))
            kind = None
        if tag != "O" and not continues:
            start, kind = i, tag[2:]
    return spans


def span_counts(tags: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Count the entities of each sentence and type: columns row (from 0), type, tp (true positives), num_predicted, num_gold.

    An entity is a true positive if its first word, its last word and its type are those of one in `tags`.

    Raises:
        ValueError: If a sentence has not as many predicted tags as tags.
    """
    counts: dict[tuple[int, str], list[int]] = {}
    for row, (predicted, gold) in enumerate(zip(predictions, tags, strict=True)):
        if len(predicted) != len(gold):
            raise ValueError(f"row {row + 1}: {len(predicted)} predicted tags for {len(gold)} words, but each word needs one.")
        predicted, gold = set(spans_of(predicted)), set(spans_of(gold))
        for column, spans in enumerate((predicted & gold, predicted, gold)):
            for _, _, kind in spans:
                counts.setdefault((row, kind), [0, 0, 0])[column] += 1
    keys = pd.DataFrame(list(counts), columns=["row", "type"])
    values = np.array(list(counts.values()), dtype="int64").reshape(-1, 3)
    return keys.assign(**dict(zip(COUNTS, values.T, strict=True)))


def precision_recall_f1(tp: np.ndarray, num_predicted: np.ndarray, num_gold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 from counts; 0 where nothing is predicted or in the data, as conlleval has it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = np.divide(tp, num_predicted), np.divide(tp, num_gold)
        f1 = np.divide(2 * np.asarray(tp), np.asarray(num_predicted) + num_gold)
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
    entities = span_counts(tags, predictions)
    counts = np.zeros((len(tags), 5), dtype="int64")  # COUNTS, words with the right tag, words
    np.add.at(counts[:, :3], entities["row"].to_numpy(dtype="int64"), entities[list(COUNTS)].to_numpy())
    counts[:, 3] = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(predictions, tags, strict=True)]
    counts[:, 4] = [len(sentence) for sentence in tags]

    def scores(sums: np.ndarray) -> tuple[float, float, float, float]:
        precision, recall, f1 = precision_recall_f1(*sums[:3])
        return f1, precision, recall, sums[3] / sums[4]

    names = ["entity_f1", "entity_precision", "entity_recall", "accuracy"]
    return bootstrap_table(names, scores, counts, num_samples=num_samples, seed=seed)


def entity_table(tags: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Return columns type, precision, recall, f1 and rows (entities of that type in the data), sorted by type."""
    counts = span_counts(tags, predictions).groupby("type")[list(COUNTS)].sum()
    precision, recall, f1 = precision_recall_f1(*counts.to_numpy().T)
    return pd.DataFrame({"type": counts.index, "precision": precision, "recall": recall, "f1": f1, "rows": counts["num_gold"].to_numpy()})


def legal_tags(scores: Sequence[np.ndarray], labels: Sequence[str]) -> list[np.ndarray]:
    """Return the best sequence of tags for each sentence among those that are well-formed IOB2, by the Viterbi algorithm.

    Args:
        scores: Logits or log-probabilities for each sentence, shape (words, num_tags).
        labels: The tags in the order of the scores, with a B-X for each I-X.

    Returns:
        Indices into `labels`, one a word, int64: an I-X follows a B-X or I-X only.
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
    for i in range(1, longest):
        live = (i < lengths)[:, None]
        ways = total[:, :, None] + moves
        came_from[i] = np.where(live, ways.argmax(axis=1), came_from[i])
        total = np.where(live, ways.max(axis=1) + padded[i], total)
    path = np.zeros((longest, len(scores)), dtype="int64")
    tag, rows = total.argmax(axis=1), np.arange(len(scores))
    for i in reversed(range(longest)):
        path[i] = tag
        tag = came_from[i, rows, tag]
    return [path[:length, row] for row, length in enumerate(lengths)]
