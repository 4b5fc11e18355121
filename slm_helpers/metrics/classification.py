"""Scores and their uncertainty. Language models are compared in bits per byte or character; perplexity only within one vocabulary."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from slm_helpers._checks import check_positive

import numpy as np
import pandas as pd

_BLOCK = 1 << 18  # scores looked at together: two MB


def loss_nats(logits: np.ndarray, targets: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return the mean cross-entropy in nats per predicted token.

    Args:
        logits: Scores before softmax, shape (..., vocab_size).
        targets: Token ids, shape (...).
        mask: 1 where a target counts and 0 where it is padding, shape (...); all count unless given.
    """
    losses = token_losses(logits, targets)
    if mask is None:
        return float(losses.mean())
    mask = np.asarray(mask, dtype="float64")
    if mask.sum() == 0:
        raise ValueError("The mask leaves no target to score.")
    return float((losses * mask).sum() / mask.sum())


def token_losses(logits: np.ndarray, targets: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Return the cross-entropy of each target in nats, of the logits divided by a temperature.

    Rows are taken in blocks: copies of the logits of many rows under a whole vocabulary would fill the memory.

    Args:
        logits: Shape (..., vocab_size).
        targets: Shape (...).
        temperature: Above 0.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits have shape {logits.shape} and targets {targets.shape}, but the targets need shape {logits.shape[:-1]}.")
    rows, right = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).astype(int)
    losses, size = np.empty(len(right)), max(1, _BLOCK // logits.shape[-1])
    for start in range(0, len(right), size):
        part = rows[start : start + size].astype("float64")
        part = (part - part.max(axis=-1, keepdims=True)) / temperature
        losses[start : start + size] = np.log(np.exp(part).sum(axis=-1)) - part[np.arange(len(part)), right[start : start + size]]
    return losses.reshape(targets.shape)


def perplexity(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return exp of the mean cross-entropy: the number of equally likely tokens the model hesitates between."""
    return float(np.exp(loss_nats(logits, targets)))


def bits_per_char(total_nats: float, text: str) -> float:
    """Return the bits a model needs per character of `text`, given its total cross-entropy over it."""
    if not text:
        raise ValueError("The text is empty: there is no character to divide by.")
    return float(total_nats / (np.log(2) * len(text)))


def bits_per_byte(total_nats: float, text: str) -> float:
    """Return the bits a model needs per UTF-8 byte of `text`: comparable across tokenisers and with file compressors."""
    if not text:
        raise ValueError("The text is empty: there is no byte to divide by.")
    return float(total_nats / (np.log(2) * len(text.encode())))


def accuracy(labels: Sequence, predictions: Sequence) -> float:
    """Return the share of predictions that equal their label."""
    labels, predictions = _pair(labels, predictions)
    return float((labels == predictions).mean())


def macro_f1(labels: Sequence, predictions: Sequence) -> float:
    """Return the mean over classes of F1, every class counted alike; classes are those that occur in the labels."""
    from sklearn.metrics import f1_score

    labels, predictions = _pair(labels, predictions)
    return float(f1_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0))


def macro_recall(labels: Sequence, predictions: Sequence) -> float:
    """Return the mean over classes of recall, every class counted alike."""
    from sklearn.metrics import recall_score

    labels, predictions = _pair(labels, predictions)
    return float(recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0))


def bootstrap_interval(
    score: Callable[..., float], *arrays: Sequence, num_samples: int = 1000, level: float = 0.95, seed: int = 42
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `score(*arrays)`, resampling rows with replacement.

    Args:
        score: Takes as many arrays as are given; e.g. `accuracy`, or `np.mean`.
        arrays: One entry a row each, all of one length.
        num_samples: Resamples.
        level: Coverage, 0.95 for a 95 % interval.
        seed: Of the resampling.

    Example:
        >>> bootstrap_interval(np.mean, [1.0, 1.0, 1.0])
        (1.0, 1.0)

    Reference:
        Efron and Tibshirani (1993), "An Introduction to the Bootstrap".
    """
    check_positive(num_samples=num_samples)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but must lie between 0 and 1, e.g. 0.95.")
    columns = [np.asarray(a) for a in arrays]
    lengths = {len(a) for a in columns}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"The arrays have lengths {sorted(lengths)}, but must have one length of at least 1.")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(columns[0]), size=(num_samples, len(columns[0])))
    scores = [score(*(a[pick] for a in columns)) for pick in picks]
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_table(labels: Sequence, predictions: Sequence, *, seed: int = 42) -> pd.DataFrame:
    """Return accuracy, macro_f1 and macro_recall with 95 % intervals: columns metric, value, ci_low, ci_high."""
    labels, predictions = _pair(labels, predictions)
    names, codes = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    counts = confusion_counts(codes[: len(labels)], codes[len(labels) :], num_classes=len(names))
    return scores_from_confusion(counts, seed=seed)


def confusion_counts(labels: Sequence[int], predictions: Sequence[int], *, num_classes: int) -> np.ndarray:
    """Return how often each class (row) was taken for each (column): int64, shape (num_classes, num_classes)."""
    labels, predictions = _pair(labels, predictions)
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores_from_confusion(counts: np.ndarray, *, num_samples: int = 1000, seed: int = 42) -> pd.DataFrame:
    """Return accuracy, macro_f1 and macro_recall of a confusion matrix with 95 % intervals, as `score_table` does.

    To draw rows with replacement is to draw the cells of the matrix from a multinomial distribution, which does not get slower
    with more rows.
    """
    cells = np.flatnonzero(counts)
    rows, columns = np.unravel_index(cells, counts.shape)
    size, total = len(counts), int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts.reshape(-1)[cells] / total, size=num_samples)
    found = []
    for cell_counts in np.concatenate([counts.reshape(1, -1)[:, cells], drawn]):
        right = np.bincount(rows, cell_counts * (rows == columns), minlength=size)
        asked, answered = np.bincount(rows, cell_counts, minlength=size), np.bincount(columns, cell_counts, minlength=size)
        occurs = asked > 0
        f1 = 2 * right[occurs] / (asked + answered)[occurs]
        found.append((right.sum() / total, f1.mean(), (right[occurs] / asked[occurs]).mean()))
    found = np.array(found)
    low, high = np.quantile(found[1:], [0.025, 0.975], axis=0)
    return pd.DataFrame({"metric": ["accuracy", "macro_f1", "macro_recall"], "value": found[0], "ci_low": low, "ci_high": high})


def fit_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return what to divide scores by so that the probabilities made of them are as likely as they claim.

    Args:
        scores: Logits or log-probabilities, shape (num_rows, num_choices), of rows that were not trained on.
        targets: The right choice of each, shape (num_rows,).

    Reference:
        Guo et al. (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(token_losses(scores, targets, temperature=np.exp(log_temperature)).mean())

    # Within a factor of twenty: on few rows that are all right the best temperature would be zero.
    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def calibration_error(confidence: np.ndarray, right: np.ndarray, *, num_bins: int = 10) -> float:
    """Return the mean distance between confidence and accuracy, over bins of equally many rows, weighted by them."""
    order = np.argsort(confidence, kind="stable")
    bins = [part for part in np.array_split(order, num_bins) if len(part)]
    return float(sum(abs(confidence[part].mean() - right[part].mean()) * len(part) for part in bins) / len(order))


def normalise_answer(answer: str) -> str:
    """Return an answer in lower case without punctuation, English articles and spare spaces, as SQuAD compares them.

    Reference:
        Rajpurkar et al. (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text", arXiv:1606.05250.
    """
    bare = "".join(sign for sign in answer.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_matches(answers: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """Return for each question 1.0 if the prediction is the answer after `normalise_answer`, else 0.0."""
    pairs = zip(*_pair(np.asarray(answers, dtype=object), np.asarray(predictions, dtype=object)), strict=True)
    return np.array([float(normalise_answer(answer) == normalise_answer(prediction)) for answer, prediction in pairs])


def token_f1_scores(answers: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """Return for each question the F1 of the words that answer and prediction share; two empty ones agree fully."""
    pairs = zip(*_pair(np.asarray(answers, dtype=object), np.asarray(predictions, dtype=object)), strict=True)
    return np.array([_word_f1(normalise_answer(answer).split(), normalise_answer(prediction).split()) for answer, prediction in pairs])


def mean_interval(values: Sequence[float], *, num_samples: int = 1000, level: float = 0.95, seed: int = 42) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over rows; of the differences of two systems it is the paired interval.

    Faster than `bootstrap_interval(np.mean, ...)`, and the same: only how often each value is drawn counts.
    """
    values, counts = np.unique(np.asarray(values, dtype="float64"), return_counts=True)
    if not len(values):
        raise ValueError("There is no value to take the mean of.")
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=num_samples)
    low, high = np.quantile(drawn @ values / counts.sum(), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def auc(labels: Sequence[int], scores: Sequence[float]) -> float:
    """Return the area under the ROC curve: how often a row with label 1 has a higher score than one with label 0; ties count half."""
    labels, scores = _pair(labels, scores)
    return float(_weighted_auc(*_sorted_by_score(labels, scores)[:2], np.ones(len(labels))))


def auc_interval(
    labels: Sequence[int], scores: Sequence[float], groups: Sequence, *, num_samples: int = 1000, level: float = 0.95, seed: int = 42
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `auc`. Drawn are whole groups (students): the rows of one are not independent."""
    return auc_difference_interval(labels, scores, None, groups, num_samples=num_samples, level=level, seed=seed)


def auc_difference_interval(
    labels: Sequence[int],
    scores: Sequence[float],
    others: Sequence[float] | None,
    groups: Sequence,
    *,
    num_samples: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> tuple[float, float]:
    """Return the paired interval of how much higher the AUC of `scores` is than that of `others`, both on the same draws of groups."""
    labels, scores = _pair(labels, scores)
    codes, names = pd.factorize(np.asarray(groups))
    ordered = [_sorted_by_score(labels, np.asarray(column)) for column in (scores, others) if column is not None]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num_samples):
        weights = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[codes].astype("float64")
        areas = [_weighted_auc(hits, ends, weights[order]) for hits, ends, order in ordered]
        found.append(areas[0] - (areas[1] if others is not None else 0.0))
    # A draw of few students may hold one kind of answer only, and has no area.
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sorted_by_score(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels by rising score, the last place of each run of equal scores, and the order."""
    if not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        raise ValueError("The AUC needs labels of both kinds, 0 and 1, and no others.")
    order = np.argsort(scores, kind="stable")
    return labels[order].astype(bool), np.flatnonzero(np.append(np.diff(scores[order]) > 0, True)), order


def _weighted_auc(hits: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> float:
    right, wrong = (np.diff(np.cumsum(weights * part)[ends], prepend=0.0) for part in (hits, ~hits))
    total = right.sum() * wrong.sum()
    return float((right * (np.cumsum(wrong) - wrong / 2)).sum() / total) if total else float("nan")


def _word_f1(answer: list[str], prediction: list[str]) -> float:
    if not answer or not prediction:
        return float(answer == prediction)
    return 2 * sum((Counter(answer) & Counter(prediction)).values()) / (len(answer) + len(prediction))


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


def _pair(labels: Sequence, predictions: Sequence) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(f"There are {labels.size} labels and {predictions.size} predictions, but one prediction per label is needed.")
    return labels, predictions
