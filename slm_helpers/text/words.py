"""Cut a text into words and sentences, and count what the words of a passage have in common with a question."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Words, or single signs: punctuation, and the characters of scripts that write no spaces. Marks belong to the letter before them.
CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0dff\u0e00-\u0eff\u200d\ufe0f"
WORD_UNIT = re.compile(rf"[{CJK}]|(?:[^\W{CJK}]|[{_MARKS}])+|[^\w\s]")
_ENDING = re.compile(r"(?<=\w{3})(ments?|ions?|ings?|ers?|ed|es|ly|s|e|y)$")
QUESTION_WORDS = ("who", "when", "where", "why", "which", "what", "many", "much", "how")  # how many and how much before how
SMALL_WORDS = (
    "a", "an", "the", "in", "on", "at", "of", "by", "to", "for", "from", "with", "as", "because", "and", "or", "is", "was", "were", "are",
    "that", "which", "who", "it", "its", "his", "her", "their", "into", "than", "when", "so", "but", "had", "has",
)  # fmt: skip


@dataclass(frozen=True)
class Words:
    """The words and signs of a text: where they stand, as written, their stems, and the sentence that each belongs to."""

    places: np.ndarray  # first character and end, shape (num_words, 2)
    forms: list[str]
    stems: list[str]
    sentences: np.ndarray  # from 0, shape (num_words,)


def split_words(text: str) -> Words:
    """Cut a text into words and signs. Stems are rough: the lower-case word without a common English ending."""
    found = list(WORD_UNIT.finditer(text))
    forms = [match.group() for match in found]
    places = np.array([match.span() for match in found], dtype="int64").reshape(-1, 2)
    stems = [_ENDING.sub("", form.lower()) for form in forms]
    sentences, number = [], 0
    for place, form in enumerate(forms):
        sentences.append(number)
        if form in ".!?。？！" and place + 1 < len(forms):
            gap, following = text[places[place, 1] : places[place + 1, 0]], forms[place + 1]
            number += bool(form in "。？！" or (gap and not following[0].islower()) or "\n" in gap)
    return Words(places, forms, stems, np.array(sentences, dtype="int64"))


def overlap_features(passage: Words, question: Words, rarity: Callable[[str], float]) -> np.ndarray:
    """Say of each word of a passage how much it and its surroundings share with a question.

    Args:
        passage: From `split_words`.
        question: From `split_words`.
        rarity: Tells from a lower-case word how much it says, in 0-1: near 0 for "the".

    Returns:
        Numbers in 0-1, shape (num_words, 6): is this word asked for, its stem; how much of the question its sentence covers,
        that compared with the best sentence, how much its sentence and the one before cover; how near words of the question stand.
    """
    asked_forms = {form.lower() for form in question.forms}
    asked: dict[str, float] = {}
    for form, stem in zip(question.forms, question.stems, strict=True):
        if form[0].isalnum() and form.lower() not in QUESTION_WORDS:
            asked[stem] = max(asked.get(stem, 0.0), rarity(form.lower()))
    total = max(sum(asked.values()), 1e-9)
    shared = np.array([asked.get(stem, 0.0) for stem in passage.stems])
    exact = shared * [form.lower() in asked_forms for form in passage.forms]
    num_sentences = int(passage.sentences[-1]) + 1 if len(passage.forms) else 0
    found: list[set[str]] = [set() for _ in range(num_sentences)]
    for stem, sentence in zip(passage.stems, passage.sentences, strict=True):
        if stem in asked:
            found[sentence].add(stem)
    covered = np.array([sum(asked[stem] for stem in stems) / total for stems in found])
    pairs = np.array([sum(asked[s] for s in found[i] | found[max(i - 1, 0)]) / total for i in range(num_sentences)])
    best = covered / max(covered.max(initial=0.0), 1e-9)
    by_sentence = np.stack([covered, best, pairs], axis=1) if num_sentences else np.zeros((0, 3))
    near = _spread(shared) + _spread(shared[::-1])[::-1]
    return np.column_stack([exact, shared, by_sentence[passage.sentences], 1 - np.exp(-near)])


def _spread(values: np.ndarray, *, reach: float = 5.0) -> np.ndarray:
    """Return at each place what stood before it, less the further back it stood."""
    spread, carried = np.zeros(len(values)), 0.0
    for place, value in enumerate(values):
        spread[place] = carried
        carried = (carried + value) * np.exp(-1 / reach)
    return spread
