"""What a reader sees: passages cut into pieces of whole words, what is counted of each word, and where an answer stands."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.text.words import Words, overlap_features, split_words

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers._backend import keras
    from slm_helpers.training.batches import Examples

PIECE, OVERLAP = 300, 100  # words of a passage read at once, and words that two pieces of a longer one share
NUM_FEATURES = 12  # of a word, see `match_features`


@dataclass(frozen=True)
class Piece:
    """A run of words of a passage with a question to it, as the network reads it."""

    row: int
    offset: int  # of its first word in the passage
    inputs: dict[str, np.ndarray]


class Reading:
    """Turns rows into what the network reads; keeps what it has found out about passages and words."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.cached: dict[str, tuple[Words, np.ndarray, np.ndarray]] = {}
        self.rarities: dict[str, float] = {}

    def text(self, text: str) -> tuple[Words, np.ndarray, np.ndarray]:
        """Return the words of a text, its token ids, and the place of each word's last token among them."""
        if text not in self.cached:
            self.add([text])
        return self.cached[text]

    def add(self, texts: Sequence[str]) -> None:
        """Look at many texts together."""
        new = [text for text in dict.fromkeys(texts) if text not in self.cached]
        for text, (ids, places) in zip(new, self.tokenizer.encode_with_places(new), strict=True):
            words = split_words(text)
            # The last token that begins before the word ends.
            ends = np.searchsorted(places[:, 0], words.places[:, 1], side="left") - 1
            self.cached[text] = (words, ids, ends)
        forms = list({form.lower() for text in new for form in self.cached[text][0].forms} - self.rarities.keys())
        size = self.tokenizer.vocab_size
        for form, ids in zip(forms, self.tokenizer.encode_batch([f" {form}" for form in forms]), strict=True):
            # BPE joins the commonest pairs first, so that a word of one token is the rarer, the higher its id.
            self.rarities[form] = 1.0 if len(ids) > 1 else float(np.log(max(ids[0] / 260, 1.0)) / np.log(max(size / 260, 1.1)))

    def rarity(self, form: str) -> float:
        """Return how rare a lower-case word is, in 0-1; a word that was never looked at counts as rare."""
        return self.rarities.get(form, 1.0)

    def pieces(self, rows: Sequence[dict[str, Any]]) -> list[Piece]:
        """Return the pieces of all rows, one at least for each."""
        self.add([text for row in rows for text in (row["context"], row["question"])])
        made = []
        for number, row in enumerate(rows):
            words, ids, ends = self.text(row["context"])
            asked, asked_ids, asked_ends = self.text(row["question"])
            features = match_features(words, asked, self.rarity)
            question, question_ends = self._with_start(asked_ids[: 4 * PIECE], asked_ends[asked_ends < 4 * PIECE])
            for first, last in piece_bounds(len(words.forms)):
                begin = ends[first - 1] + 1 if first else 0
                # A word of hundreds of tokens (an address, a picture written as text) is cut.
                inside = np.minimum(ends[first:last] - begin, 8 * PIECE)
                passage, passage_ends = self._with_start(ids[begin : begin + inside.max(initial=-1) + 1], inside)
                inputs = {"question": question, "question_ends": question_ends, "passage": passage, "passage_ends": passage_ends}
                made.append(Piece(number, first, inputs | {"features": features[first:last]}))
        return made

    def _with_start(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put an <end> before the tokens, as a document begins in pretraining."""
        return np.concatenate([[self.tokenizer.end_id], ids]).astype("int32"), (ends + 1).astype("int32")


def answer_examples(reading: Reading, rows: pd.DataFrame, *, name: str, same_length: bool = False) -> Examples:
    """Return the pieces of rows with their first and last word as targets; rows whose answer is not in the passage are left out."""
    from slm_helpers.training.batches import Examples

    records = rows.to_dict("records")
    starts = [find_answer(row["context"], row["answer"], int(row["answer_start"])) if row["answer"] else 0 for row in records]
    usable = [row | {"answer_start": start} for row, start in zip(records, starts, strict=True) if start >= 0]
    warn_of(len(records) - len(usable), name, "whose answer does not stand in the context")
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


def describe_examples(reader: keras.Model, examples: Examples, cached: dict[bytes, tuple[np.ndarray, np.ndarray]]) -> Examples:
    """Return what `make_span_head` reads for these examples: each text goes through the language model's layers once.

    Args:
        reader: From `build_span_extractor`.
        examples: From `answer_examples`.
        cached: What was computed for texts before, with the same weights; new ones are added.
    """
    from slm_helpers._backend import cached_on
    from slm_helpers.models.reader import make_word_encoders
    from slm_helpers.models.rows import run_rows
    from slm_helpers.training.batches import Examples

    columns = {}
    views = cached_on(reader, "word_views", lambda: make_word_encoders(reader))  # compiled once, not for each call
    for text in ("question", "passage"):
        pairs = list(zip(examples.inputs[text], examples.inputs[f"{text}_ends"], strict=True))
        # Ends may be padded, see `answer_examples`.
        keys = [ids.tobytes() + ends.tobytes() for ids, ends in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in cached}
        if new:
            inputs = {name: [pair[i] for pair in new.values()] for i, name in enumerate(("ids", "ends"))}
            found = [run_rows(view, inputs, along="ends", batch_size=64) for view in views]
            cached |= {key: (states.astype("float16"), means.astype("float16")) for key, states, means in zip(new, *found, strict=True)}
        for i, kind in enumerate(("states", "means")):
            columns[f"{text}_{kind}"] = [cached[key][i] for key in keys]
        columns[f"{text}_ends"] = [ends for _, ends in pairs]
    return Examples(columns | {"features": examples.inputs["features"]}, examples.targets, lengths=examples.lengths)


def match_features(words: Words, asked: Words, rarity: Callable[[str], float]) -> np.ndarray:
    """Return what is counted of each word of a passage, in hundredths: int32, shape (num_words, NUM_FEATURES).

    What it shares with the question (six features of `overlap_features`), how rare it is, and whether it has a digit, a capital
    within a sentence, is a sign, begins a sentence, and stands before a sign.
    """
    overlap = overlap_features(words, asked, rarity)
    opens = np.diff(words.sentences, prepend=-1) > 0
    signs = np.array([not form[0].isalnum() for form in words.forms], dtype=bool)
    others = [
        [rarity(form.lower()) for form in words.forms],
        [any(sign.isdigit() for sign in form) for form in words.forms],
        [form[0].isupper() for form in words.forms] & ~opens,
        signs,
        opens,
        np.append(signs[1:], True)[: len(signs)],
    ]
    return np.rint(100 * np.column_stack([overlap, *np.array(others, dtype="float64")])).astype("int32")


def piece_bounds(num_words: int) -> list[tuple[int, int]]:
    """Return first word and end of overlapping pieces that together hold all words."""
    starts = range(0, max(num_words - OVERLAP, 1), PIECE - OVERLAP)
    return [(start, min(start + PIECE, num_words)) for start in starts]


def find_answer(context: str, answer: str, start: int) -> int:
    """Return where an answer stands in its passage: at `start` if it does, else the nearest place (the first for -1), or -1.

    Places where it is a piece of a longer word ("12" in "1284") count only if there is no other.
    """
    if start >= 0 and context.startswith(answer, start):
        return start
    piece = re.escape(answer)
    places = [match.start() for match in re.finditer(rf"(?<!\w){piece}(?!\w)", context)]
    places = places or [match.start() for match in re.finditer(piece, context)]
    return min(places, key=lambda place: abs(place - start) if start >= 0 else place) if places else -1


def warn_of(count: int, name: str, why: str) -> None:
    """Warn that rows were left out, if there are any."""
    if count:
        warnings.warn(f"{name}: {count} row(s) {why} were left out.", stacklevel=4)
