"""Answers to questions: a span of a given passage or "no answer"; or, without passages, one of the answers learned by heart."""

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from slm_helpers.backend import keras
from slm_helpers.evaluation import exact_matches, mean_interval, token_f1_scores
from slm_helpers.finetune import Examples, FinetuneConfig, encode_texts, fit_examples, run_rows, softmax
from slm_helpers.heads import build_reader
from slm_helpers.models import SavedModel, build_text_classifier, shared_shape, start_from
from slm_helpers.tasks.classify import classifier_from_base, fit_classifier
from slm_helpers.tasks.common import Evaluation, starting_tokenizer
from slm_helpers.tokenizers import Tokenizer
from slm_helpers.words import SMALL_WORDS, Words, overlap_features, split_words

import numpy as np
import pandas as pd

COLUMNS = ("context", "question", "answer", "answer_start")
PREDICT_COLUMNS = ("context", "question")
SCRATCH = {"embedding_dim": 128, "units": 192}  # size of a network without a base
PIECE, OVERLAP = 300, 100  # words of a passage read at once, and words that two pieces of a longer one share
MAX_ANSWER = 30  # words
NUM_FEATURES = 12  # of a word, see `_features`
DEFAULT = FinetuneConfig(epochs=20, batch_size=16, learning_rate=2e-3, layer_decay=0.85, patience=5)
_QUESTION_FORMS = {
    "number": ("When", "How many", "How much", "Which"),
    "name": ("Who", "Where", "What", "Which"),
    "other": ("What", "How", "Why"),
}


def train(
    frame: pd.DataFrame, *, base: SavedModel | None, config: FinetuneConfig = DEFAULT, dropout: float = 0.4, num_cloze: int = 1500
) -> tuple[SavedModel, pd.DataFrame]:
    """Learn to answer from the columns context, question, answer, answer_start and split.

    With passages the model learns to find the span of the answer, after a first round on questions made of the training passages
    themselves: a sentence with a gap is the question and what stood there the answer (Dhingra et al. 2018). Where all contexts are
    empty it learns the training answers by heart and chooses among them.

    Args:
        frame: From `load_dataset`; the split valid, if there, chooses the epoch and calibrates the confidence.
        base: A language model to start from, or a reader of an earlier run to go on with; None starts from random weights.
        config: Settings of the training.
        dropout: Share of activations dropped in training.
        num_cloze: Questions made of the training passages; 0 for none.

    Returns:
        The model with its tokeniser, labels (the known answers, where there are no passages) and settings, and the history of
        its training.

    Raises:
        ValueError: If some rows have a context and some have none, or no training row can be used.

    Reference:
        Dhingra et al. (2018), "Simple and Effective Semi-Supervised Question Answering", arXiv:1804.00720.
    """
    _check_one_form(frame)
    keras.utils.set_random_seed(config.seed)
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    if (frame["context"] == "").all():
        saved, history = _train_facts(parts, base=base, config=config, dropout=dropout)
    else:
        saved, history = _train_reader(parts, base=base, config=config, dropout=dropout, num_cloze=num_cloze)
    if "valid" in parts:
        guesses, probs = _answers(saved, parts["valid"].to_dict("records"))
        right = exact_matches(parts["valid"]["answer"].tolist(), guesses)
        saved.settings["confidence"] = fit_confidence(probs, right)
    return saved, history


def evaluate(saved: SavedModel, frame: pd.DataFrame) -> Evaluation:
    """Score a model on the columns context, question and answer.

    Returns:
        exact_match and token_f1 in the manner of SQuAD with 95 % intervals over questions; no_answer_recall, where there are
        questions without an answer: the share of them that it leaves unanswered. With a column kind, the table kinds: exact_match
        and token_f1 for each.

    Raises:
        ValueError: If a row has a context and the model was trained without, or the reverse.
    """
    answers = frame["answer"].tolist()
    guesses, _ = _answers(saved, frame.to_dict("records"))
    scores = pd.DataFrame({"exact_match": exact_matches(answers, guesses), "token_f1": token_f1_scores(answers, guesses)})
    columns = {"exact_match": scores["exact_match"], "token_f1": scores["token_f1"]}
    none = np.array([not answer for answer in answers])
    if none.any() and not none.all():
        columns["no_answer_recall"] = scores["exact_match"][none]
    metrics = pd.DataFrame(
        [(name, values.mean(), *mean_interval(values)) for name, values in columns.items()],
        columns=["metric", "value", "ci_low", "ci_high"],
    )
    tables = {}
    if "kind" in frame:
        kinds = scores.groupby(frame["kind"].to_numpy())
        tables["kinds"] = kinds.mean().assign(rows=kinds.size()).rename_axis("kind").reset_index()
    return Evaluation(rows=len(frame), metrics=metrics, tables=tables)


def predict(saved: SavedModel, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return prediction ("" for no answer) and confidence (calibrated probability of being right) for rows with context and question."""
    guesses, probs = _answers(saved, rows)
    slope, shift = saved.settings.get("confidence", (1.0, 0.0))
    confidence = 1 / (1 + np.exp(-(slope * _logit(probs) + shift)))
    return [{"prediction": guess, "confidence": round(float(p), 4)} for guess, p in zip(guesses, confidence, strict=True)]


def fit_confidence(probs: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return slope and shift so that sigmoid(slope * logit(probability) + shift) tells how often a prediction is right.

    Args:
        probs: The probability that the model gives each of its predictions, on rows that were not trained on.
        right: 1 for the predictions that were right, else 0.

    Reference:
        Platt (1999), "Probabilistic Outputs for Support Vector Machines", with his counts that keep few rows from certainty.
    """
    from sklearn.linear_model import LogisticRegression

    right = np.asarray(right, dtype="float64")
    hits, misses = right.sum(), (1 - right).sum()
    wanted = np.where(right > 0, (hits + 1) / (hits + 2), 1 / (misses + 2))
    scores = _logit(probs)[:, None]
    model = LogisticRegression(C=10.0)
    model.fit(np.concatenate([scores, scores]), np.repeat([1, 0], len(scores)), sample_weight=np.concatenate([wanted, 1 - wanted]))
    return max(float(model.coef_[0, 0]), 0.0), float(model.intercept_[0])


def reader_from_base(base: keras.Model, *, dropout: float = 0.4) -> keras.Model:
    """Build a reader in the shape of a language model and copy the shared layers, or copy a whole reader.

    Args:
        base: From `build_language_model`, e.g. `load_pretrained("slm-base-en").model`, or from `build_reader`.
        dropout: Share of activations dropped in training.
    """
    recipe = json.loads(base.recipe)
    if recipe["builder"] == "build_reader":
        model = build_reader(**recipe["arguments"] | {"dropout": dropout})
        model.set_weights(base.get_weights())
        return model
    model = build_reader(**shared_shape(base), num_features=NUM_FEATURES, dropout=dropout)
    start_from(model, base)
    return model


def best_spans(starts: np.ndarray, ends: np.ndarray, *, max_words: int = MAX_ANSWER) -> tuple[int, int, float, float]:
    """Return the first and last word of the likeliest span, its score, and log of the summed powers of the scores of all spans.

    A span's score is that of its start plus that of its end; a legal one has at most `max_words` words, of one at least.

    Args:
        starts: Score of each word as the first, shape (num_words,).
        ends: Score of each word as the last, shape (num_words,).
        max_words: Words of the longest span.
    """
    width = min(max_words, len(starts))
    padded = np.concatenate([ends, np.full(width - 1, -np.inf)]).astype("float64")
    scores = starts[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)
    first, more = np.unravel_index(scores.argmax(), scores.shape)
    best = float(scores[first, more])
    return int(first), int(first + more), best, best + float(np.log(np.exp(scores - best).sum()))


def find_answer(context: str, answer: str, start: int) -> int:
    """Return where an answer stands in its passage: at `start` if it does, else the nearest place (the first for -1), or -1."""
    if start >= 0 and context.startswith(answer, start):
        return start
    places = [match.start() for match in re.finditer(re.escape(answer), context)]
    return min(places, key=lambda place: abs(place - start) if start >= 0 else place) if places else -1


def make_cloze(contexts: Sequence[str], *, num_rows: int, none_share: float = 0.0, seed: int = 42) -> pd.DataFrame:
    """Make questions out of passages: a sentence that lacks some words asks for them; columns context, question, answer, answer_start.

    A span of one to six words becomes the answer; of the rest of its sentence half the words are kept, in their order, after a
    question word that suits a number, a name or something else.

    Args:
        contexts: Passages.
        num_rows: Questions at most; sentences of fewer than six words give none.
        none_share: Share of the questions that are put to another passage, which does not hold the answer.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    cut = {context: split_words(context) for context in contexts}
    rows = []
    for _ in range(30 * num_rows):  # most draws are no phrase
        if len(rows) == num_rows:
            break
        context = contexts[rng.integers(len(contexts))]
        words = cut[context]
        sentence = np.flatnonzero(words.sentences == rng.integers(words.sentences[-1] + 1)) if len(words.forms) else []
        found = _draw_span(words, sentence, rng) if len(sentence) >= 6 else None
        if found is None:
            continue
        first, last = found
        kept = [words.forms[i] for i in sentence if not first <= i <= last and words.forms[i].isalnum() and rng.random() < 0.5]
        inside = words.forms[first : last + 1]
        kind = "number" if any(form[0].isdigit() for form in inside) else "name" if inside[0][0].isupper() else "other"
        question = " ".join([str(rng.choice(_QUESTION_FORMS[kind])), *kept]) + "?"
        start, end = int(words.places[first, 0]), int(words.places[last, 1])
        row = {"context": context, "question": question, "answer": context[start:end], "answer_start": start}
        if rng.random() < none_share and len(contexts) > 1:
            row |= {"context": contexts[rng.integers(len(contexts))], "answer": "", "answer_start": -1}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Piece:
    """A run of words of a passage with a question to it, as the network reads it."""

    row: int
    offset: int  # of its first word in the passage
    inputs: dict[str, np.ndarray]


class _Reading:
    """Turns rows into what the network reads; keeps what it has found out about passages and words."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.kept: dict[str, tuple[Words, np.ndarray, np.ndarray]] = {}
        self.rarities: dict[str, float] = {}

    def text(self, text: str) -> tuple[Words, np.ndarray, np.ndarray]:
        """Return the words of a text, its token ids, and the place of each word's last token among them."""
        if text not in self.kept:
            self.add([text])
        return self.kept[text]

    def add(self, texts: Sequence[str]) -> None:
        """Look at many texts together."""
        new = [text for text in dict.fromkeys(texts) if text not in self.kept]
        for text, (ids, places) in zip(new, self.tokenizer.encode_with_places(new), strict=True):
            words = split_words(text)
            # The last token that begins before the word ends.
            ends = np.searchsorted(places[:, 0], words.places[:, 1], side="left") - 1
            self.kept[text] = (words, ids, ends)
        forms = list({form.lower() for text in new for form in self.kept[text][0].forms} - self.rarities.keys())
        size = self.tokenizer.vocab_size
        for form, ids in zip(forms, self.tokenizer.encode_batch([f" {form}" for form in forms]), strict=True):
            # BPE joins the commonest pairs first, so that a word of one token is the rarer, the higher its id.
            self.rarities[form] = 1.0 if len(ids) > 1 else float(np.log(max(ids[0] / 260, 1.0)) / np.log(max(size / 260, 1.1)))

    def pieces(self, rows: Sequence[dict[str, Any]]) -> list[_Piece]:
        """Return the pieces of all rows, one at least for each."""
        self.add([text for row in rows for text in (row["context"], row["question"])])
        made = []
        for number, row in enumerate(rows):
            words, ids, ends = self.text(row["context"])
            asked, asked_ids, asked_ends = self.text(row["question"])
            features = _features(words, asked, self.rarities)
            question, question_ends = self._with_start(asked_ids[: 4 * PIECE], asked_ends[asked_ends < 4 * PIECE])
            for first, last in _piece_bounds(len(words.forms)):
                begin = ends[first - 1] + 1 if first else 0
                # A word of hundreds of tokens (an address, a picture written as text) is cut.
                inside = np.minimum(ends[first:last] - begin, 8 * PIECE)
                passage, passage_ends = self._with_start(ids[begin : begin + inside.max(initial=-1) + 1], inside)
                inputs = {"question": question, "question_ends": question_ends, "passage": passage, "passage_ends": passage_ends}
                made.append(_Piece(number, first, inputs | {"features": features[first:last]}))
        return made

    def _with_start(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put an <end> before the tokens, as a document begins in pretraining."""
        return np.concatenate([[self.tokenizer.end_id], ids]).astype("int32"), (ends + 1).astype("int32")


def _train_reader(
    parts: dict[str, pd.DataFrame], *, base: SavedModel | None, config: FinetuneConfig, dropout: float, num_cloze: int
) -> tuple[SavedModel, pd.DataFrame]:
    """Train a network that finds spans."""
    contexts = list(dict.fromkeys(parts["train"]["context"]))
    tokenizer = starting_tokenizer(base, [*contexts, *parts["train"]["question"]])
    if base is None:
        model = build_reader(tokenizer.vocab_size, num_features=NUM_FEATURES, dropout=dropout, **SCRATCH)
    else:
        model = reader_from_base(base.model, dropout=dropout)
    reading = _Reading(tokenizer)
    has_none = bool((parts["train"]["answer"] == "").any())
    train = _examples(reading, parts["train"], name="train")
    valid = _examples(reading, parts["valid"], name="valid", same_length=True) if "valid" in parts else None
    histories = []
    if num_cloze and (base is None or base.task != "answer"):
        none_share = float((parts["train"]["answer"] == "").mean())
        cloze = _examples(reading, make_cloze(contexts, num_rows=num_cloze, none_share=none_share, seed=config.seed), name="cloze")
        first = replace(config, epochs=2, patience=0, max_seconds=config.max_seconds / 3, frozen=())
        histories.append(fit_examples(model, cloze, None, config=first))
    second = replace(config, max_seconds=config.max_seconds * 2 / 3) if histories else config
    histories.append(fit_examples(model, train, valid, config=second))
    saved = SavedModel(model=model, tokenizer=tokenizer, task="answer", settings={"form": "span", "no_answer": has_none})
    return saved, histories[-1]


def _train_facts(
    parts: dict[str, pd.DataFrame], *, base: SavedModel | None, config: FinetuneConfig, dropout: float
) -> tuple[SavedModel, pd.DataFrame]:
    """Train a classifier of questions whose classes are the training answers."""
    rows = {split: part[part["answer"] != ""] for split, part in parts.items()}
    _warn_of(len(parts["train"]) - len(rows["train"]), "train", "without an answer")
    labels = sorted(rows["train"]["answer"].unique())
    if len(labels) < 2:
        raise ValueError(f"train has {len(labels)} different answer(s), but without passages two at least are needed to choose from.")
    tokenizer = starting_tokenizer(base, rows["train"]["question"])
    if base is None:
        model = build_text_classifier(tokenizer.vocab_size, num_classes=len(labels), dropout=dropout, **SCRATCH)
    else:
        model = classifier_from_base(base.model, num_classes=len(labels), dropout=dropout)
    if "valid" in rows:  # what nobody can know says nothing about when to stop
        rows["valid"] = rows["valid"][rows["valid"]["answer"].isin(labels)]
    ids = {split: encode_texts(tokenizer, part["question"].tolist()) for split, part in rows.items() if len(part)}
    codes = {split: part["answer"].map({label: i for i, label in enumerate(labels)}).to_numpy() for split, part in rows.items()}
    valid = (ids["valid"], codes["valid"]) if "valid" in ids else (None, None)
    history = fit_classifier(model, ids["train"], codes["train"], *valid, config=config)
    return SavedModel(model=model, tokenizer=tokenizer, task="answer", labels=labels, settings={"form": "facts"}), history


def _answers(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the likeliest answer to each question and its probability, not yet calibrated."""
    facts = saved.settings["form"] == "facts"
    does, cure = ("answers from memory", "Leave its context empty") if facts else ("reads the answer in a passage", "Give its context")
    for number, row in enumerate(rows, 1):
        if facts == bool(row["context"]):
            raise ValueError(
                f"row {number}: the question {row['question'][:60]!r} comes with{'' if facts else 'out'} a context, but this model "
                f"{does}. {cure}, or use a model trained on such rows."
            )
    if not len(rows):
        return [], np.zeros(0)
    if facts:
        ids = encode_texts(saved.tokenizer, [row["question"] for row in rows])
        probs = softmax(np.stack(run_rows(saved.model, {"token_ids": ids})).astype("float64"))
        return [saved.labels[best] for best in probs.argmax(axis=1)], probs.max(axis=1)
    return _spans(saved, rows)


def _spans(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the best span of each row's passage or "", and its share of the probability of all spans and of none."""
    reading = _Reading(saved.tokenizer)
    pieces = reading.pieces(rows)
    inputs = {name: [piece.inputs[name] for piece in pieces] for name in pieces[0].inputs}
    scores = _run(saved.model, inputs)
    best: list[tuple[float, int, int]] = [(0.0 if saved.settings["no_answer"] else -np.inf, 0, 0)] * len(rows)
    totals = np.full(len(rows), 0.0 if saved.settings["no_answer"] else -np.inf)
    for piece, piece_scores in zip(pieces, scores, strict=True):
        num_words = len(piece.inputs["passage_ends"])
        if not num_words:
            continue
        # Against "no answer" in the same piece, which makes pieces comparable.
        none = float(piece_scores[:, 0].sum())
        first, last, score, total = best_spans(*piece_scores[:, 1 : 1 + num_words])
        places = reading.text(rows[piece.row]["context"])[0].places
        found = (score - none, int(places[piece.offset + first, 0]), int(places[piece.offset + last, 1]))
        best[piece.row] = max(best[piece.row], found)
        totals[piece.row] = np.logaddexp(totals[piece.row], total - none)
    answers = [row["context"][start:end] for row, (_, start, end) in zip(rows, best, strict=True)]
    known = np.isfinite(totals)  # not so for a passage without a word
    return answers, np.where(known, np.exp(np.array([score for score, _, _ in best]) - np.where(known, totals, 0.0)), 0.0)


def _run(model: keras.Model, inputs: dict[str, list[np.ndarray]], *, batch_size: int = 64) -> list[np.ndarray]:
    """Run a reader over rows sorted by the length of their passage, which costs most; returns its scores in the order of the rows."""
    order = np.argsort([len(ids) for ids in inputs["passage"]], kind="stable")
    scores: list[np.ndarray] = [np.empty(0)] * len(order)
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        found = run_rows(model, {name: [rows[i] for i in picked] for name, rows in inputs.items()}, batch_size=batch_size)
        for i, row in zip(picked, found, strict=True):
            scores[i] = row
    return scores


def _examples(reading: _Reading, rows: pd.DataFrame, *, name: str, same_length: bool = False) -> Examples:
    """Return the pieces of rows with their first and last word as targets; rows whose answer is not in the passage are left out."""
    records = rows.to_dict("records")
    starts = [find_answer(row["context"], row["answer"], int(row["answer_start"])) if row["answer"] else 0 for row in records]
    usable = [row | {"answer_start": start} for row, start in zip(records, starts, strict=True) if start >= 0]
    _warn_of(len(records) - len(usable), name, "whose answer does not stand in the context")
    if not usable:
        raise ValueError(
            f"{name} has no row whose answer stands in its context. Give the answer as it is written there, or leave it empty."
        )
    pieces = reading.pieces(usable)
    targets = []
    for piece in pieces:
        row, num_words = usable[piece.row], len(piece.inputs["passage_ends"])
        places = reading.text(row["context"])[0].places
        first = int(np.searchsorted(places[:, 1], row["answer_start"], side="right")) - piece.offset
        last = int(np.searchsorted(places[:, 0], row["answer_start"] + len(row["answer"]), side="left")) - 1 - piece.offset
        inside = row["answer"] and 0 <= first <= last < num_words
        targets.append(np.array([first + 1, last + 1] if inside else [0, 0], dtype="int32"))
    inputs = {name: [piece.inputs[name] for piece in pieces] for name in pieces[0].inputs}
    lengths = np.array([len(ids) for ids in inputs["passage"]])
    if same_length:  # scores of places can only be joined where all rows have as many
        longest = max(len(ends) for ends in inputs["passage_ends"])
        for key in ("passage_ends", "features"):
            inputs[key] = [np.pad(part, [(0, longest - len(part)), *[(0, 0)] * (part.ndim - 1)]) for part in inputs[key]]
    return Examples(inputs, targets, lengths=lengths)


def _features(words: Words, asked: Words, rarities: dict[str, float]) -> np.ndarray:
    """Return what is counted of each word of a passage, in hundredths: int32, shape (num_words, NUM_FEATURES).

    What it shares with the question (six features of `overlap_features`), how rare it is, and whether it has a digit, a capital
    within a sentence, is a sign, begins a sentence, and stands before a sign.
    """
    overlap = overlap_features(words, asked, lambda form: rarities.get(form, 1.0))
    opens = np.diff(words.sentences, prepend=-1) > 0
    signs = np.array([not form[0].isalnum() for form in words.forms], dtype=bool)
    others = [
        [rarities.get(form.lower(), 1.0) for form in words.forms],
        [any(sign.isdigit() for sign in form) for form in words.forms],
        [form[0].isupper() for form in words.forms] & ~opens,
        signs,
        opens,
        np.append(signs[1:], True)[: len(signs)],
    ]
    return np.rint(100 * np.column_stack([overlap, *np.array(others, dtype="float64")])).astype("int32")


def _piece_bounds(num_words: int) -> list[tuple[int, int]]:
    """Return first word and end of overlapping pieces that together hold all words."""
    starts = range(0, max(num_words - OVERLAP, 1), PIECE - OVERLAP)
    return [(start, min(start + PIECE, num_words)) for start in starts]


def _draw_span(words: Words, sentence: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """Draw first and last word of a span within a sentence that looks like a phrase: between signs, small words or the sentence's ends."""
    edge = [not form.isalnum() or form.lower() in SMALL_WORDS for form in words.forms]
    first = int(rng.choice(sentence))
    last = min(first + int(rng.integers(1, 7)) - 1, int(sentence[-1]))
    inside = words.forms[first : last + 1]
    begins = first == sentence[0] or edge[first - 1]
    ends = not edge[last] and (last == sentence[-1] or edge[last + 1])
    # Three words at least have to be left to ask with.
    whole = all(form.isalnum() for form in inside) and len(sentence) - len(inside) >= 4
    return (first, last) if begins and ends and whole else None


def _check_one_form(frame: pd.DataFrame) -> None:
    empty = (frame["context"] == "").to_numpy()
    if empty.any() and not empty.all():
        raise ValueError(
            f"{empty.sum()} of {len(frame)} rows have no context, e.g. row {int(np.flatnonzero(empty)[0]) + 1} "
            f"({frame['question'].iloc[int(np.flatnonzero(empty)[0])]!r:.60}). One model either reads passages or answers from memory: "
            "put the rows with an empty context into a file of their own and train a model on each file."
        )


def _warn_of(count: int, name: str, why: str) -> None:
    if count:
        warnings.warn(f"{name}: {count} row(s) {why} were left out.", stacklevel=4)


def _logit(probs: np.ndarray) -> np.ndarray:
    probs = np.clip(np.asarray(probs, dtype="float64"), 1e-6, 1 - 1e-6)
    return np.log(probs / (1 - probs))
