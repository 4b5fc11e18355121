"""Questions written from a passage, for an answer that stands in it: by templates, and by a language model taught with examples."""

import re
from collections.abc import Sequence
from dataclasses import replace

from slm_helpers.backend import keras
from slm_helpers.finetune import Examples, FinetuneConfig, fit_examples
from slm_helpers.generation import TextGenerator
from slm_helpers.models import SavedModel, build_language_model, shared_shape, start_from
from slm_helpers.words import SMALL_WORDS, split_words

import numpy as np
import pandas as pd

DEFAULT = FinetuneConfig(epochs=4, batch_size=16, learning_rate=1e-3, layer_decay=1.0, patience=2)
MAX_QUESTION_TOKENS = 40
_MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"]
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_PLACE_WORDS = {"in", "at", "near", "from", "on", "to"}
_PERSON = re.compile(r"^(mr|mrs|miss|ms|dr|captain|king|queen|professor|uncle|aunt|old)\b", re.IGNORECASE)


def sentence_of(context: str, start: int, end: int) -> tuple[str, int]:
    """Return the sentence of a passage in which the characters from `start` to `end` stand, and where it begins."""
    words = split_words(context)
    if not len(words.forms):
        return context, 0
    first = int(np.searchsorted(words.places[:, 1], start, side="right"))
    last = max(first, int(np.searchsorted(words.places[:, 0], end, side="left")) - 1)
    inside = np.flatnonzero((words.sentences >= words.sentences[first]) & (words.sentences <= words.sentences[last]))
    begin = int(words.places[inside[0], 0])
    return context[begin : int(words.places[inside[-1], 1])], begin


def template_question(context: str, answer: str, answer_start: int) -> str:
    """Return a question for an answer in a passage: its sentence with a question word in the answer's place.

    Where the sentence begins with the answer this is plain English ("Who built the bridge?"); elsewhere it is the question of
    somebody who did not catch the words ("In 1284 the monks built what?").

    Raises:
        ValueError: If the answer is empty or does not stand at its place.
    """
    if not answer or context[answer_start : answer_start + len(answer)] != answer:
        raise ValueError(f"The answer {answer!r:.60} does not stand at character {answer_start} of its passage.")
    sentence, begin = sentence_of(context, answer_start, answer_start + len(answer))
    before = sentence[: answer_start - begin].rstrip()
    after = sentence[answer_start - begin + len(answer) :].rstrip(" .!?;:\"'")
    asked = _question_word(answer, before)
    if asked in ("when", "where") and before.split()[-1:] and before.split()[-1].lower() in _PLACE_WORDS:
        before = before[: -len(before.split()[-1])].rstrip()  # "in when" is no English
    question = " ".join(part for part in (before, asked, after.lstrip()) if part)
    question = re.sub(r"\s+([,;:])", r"\1", question)
    return question[:1].upper() + question[1:] + "?"


def candidate_answers(context: str, *, num_answers: int = 5, max_words: int = 4) -> list[tuple[str, int]]:
    """Return spans of a passage worth asking for, best first, as (answer, answer_start): numbers, names in a sentence, then long words."""
    words = split_words(context)
    found: list[tuple[float, int, int]] = []
    first = 0
    while first < len(words.forms):
        last, form = first, words.forms[first]
        starts_sentence = first == 0 or words.sentences[first] != words.sentences[first - 1]
        if form[0].isdigit():
            score = 3.0
        elif form[0].isupper() and not starts_sentence and form.lower() not in SMALL_WORDS and len(form) > 1:
            while last + 1 < len(words.forms) and words.forms[last + 1][:1].isupper() and last - first + 1 < max_words:
                last += 1
            score = 2.0
        else:
            score = len(form) / 20 if form.isalpha() and form.lower() not in SMALL_WORDS else 0.0
        if score > 0.3:
            found.append((score, first, last))
        first = last + 1
    best, taken = [], set()
    for _, first, last in sorted(found, key=lambda row: (-row[0], row[1])):
        start, end = int(words.places[first, 0]), int(words.places[last, 1])
        if context[start:end].lower() not in taken:
            taken.add(context[start:end].lower())
            best.append((context[start:end], start))
    return best[:num_answers]


def train_question_writer(frame: pd.DataFrame, *, base: SavedModel, config: FinetuneConfig = DEFAULT) -> tuple[SavedModel, pd.DataFrame]:
    """Teach a language model to write questions: it goes on reading after a sentence and its answer, and learns the question alone.

    Args:
        frame: Columns context, question, answer, answer_start and split. Rows without an answer are left out, but if no row has
            one, questions are written from the context alone.
        base: A language model.
        config: Settings of the training.

    Returns:
        A language model of its own, and the history of its training.

    Reference:
        Du, Shao and Cardie (2017), "Learning to Ask: Neural Question Generation for Reading Comprehension", arXiv:1705.00106.
    """
    answered = frame[frame["answer"] != ""] if (frame["answer"] != "").any() else frame
    if not (answered["split"] == "train").any():
        raise ValueError("train has no question with an answer to learn from.")
    keras.utils.set_random_seed(config.seed)
    model = build_language_model(**shared_shape(base.model), dropout=0.2)
    start_from(model, base.model)
    parts = {split: _examples(base, rows) for split, rows in answered.groupby("split") if split in ("train", "valid")}
    history = fit_examples(model, parts["train"], parts.get("valid"), config=config)
    return replace(base, model=model, folder=None), history


def write_questions(saved: SavedModel, rows: Sequence[dict]) -> list[str]:
    """Return a question for each row with context, answer ("" for none) and answer_start: always the likeliest next token, to the end."""
    writer = TextGenerator(saved.model, saved.tokenizer)
    found = []
    for row in rows:
        text = writer.generate(_prompt(row), max_tokens=MAX_QUESTION_TOKENS, temperature=0.0, stop="\n", no_repeat_ngram=4).samples[0]
        found.append(" ".join(text.split()))
    return found


def asked_sentence(row: dict) -> str:
    """Return the sentence that a question is asked of: the one in which the answer stands or, without an answer, the context."""
    if not row["answer"]:
        return row["context"]
    start = int(row["answer_start"])
    return sentence_of(row["context"], start, start + len(row["answer"]))[0]


def _prompt(row: dict) -> str:
    answer = f"Answer: {row['answer']}\n" if row["answer"] else ""
    return f"{' '.join(asked_sentence(row).split())}\n{answer}Question:"


def _examples(base: SavedModel, frame: pd.DataFrame) -> Examples:
    """Return token ids and, at each place, the next token if it belongs to the question."""
    inputs, targets = [], []
    for row in frame.to_dict("records"):
        prompt = np.concatenate([[base.tokenizer.end_id], base.tokenizer.encode(_prompt(row))])
        written = base.tokenizer.encode(f" {row['question']}\n")
        ids = np.concatenate([prompt, written])
        inputs.append(ids[:-1].astype("int32"))
        targets.append(np.where(np.arange(1, len(ids)) >= len(prompt), ids[1:], -1))
    return Examples({"token_ids": inputs}, targets, along="token_ids")


def _question_word(answer: str, before: str) -> str:
    """Return what to ask with, from the answer and the words before it."""
    lower, previous = answer.lower(), (before.split() or [""])[-1].lower()
    first = lower.split()[0]
    if re.fullmatch(r"(1[0-9]|20)\d\d", answer) or first in _MONTHS or first in _DAYS:
        return "when"
    if re.match(r"\d", answer):
        rest = answer.split()[1:]
        return " ".join(["how many", *rest]) if rest else "how many"
    if answer[0].isupper() and before:
        return "who" if _PERSON.match(answer) else "where" if previous in _PLACE_WORDS else "who or what"
    return "who" if _PERSON.match(answer) else "what"
