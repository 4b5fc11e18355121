"""Cut a text into words and sentences, and count what the words of a passage have in common with a question."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Words, or single signs: punctuation, and the characters of scripts that write no spaces. Marks belong to the letter before them.
CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
MARKS = r"\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0dff\u0e00-\u0eff\u200d\ufe0f"
WORD_UNIT = re.compile(rf"[{CJK}]|(?:[^\W{CJK}]|[{MARKS}])+|[^\w\s]")
_ENDING = re.compile(r"(?<=\w{3})(ments?|ions?|ings?|ers?|ed|es|ly|s|e|y)$")
QUESTION_WORDS = ("who", "when", "where", "why", "which", "what", "many", "much", "how")  # how many and how much before how
FUNCTION_WORDS = (
    "a", "an", "the", "in", "on", "at", "of", "by", "to", "for", "from", "with", "as", "because", "and", "or", "is", "was", "were", "are",
    "that", "which", "who", "it", "its", "his", "her", "their", "into", "than", "when", "so", "but", "had", "has",
)  # fmt: skip


_ABBREVIATIONS = frozenset((
    "Mr", "Mrs", "Ms", "Dr", "Prof", "Rev", "Fr", "Msgr", "Hon", "St", "Mt", "Ft", "Gen", "Col", "Maj", "Capt", "Lt", "Sgt", "Cpl",
    "Gov", "Pres", "Sen", "Rep", "Mme", "Mlle", "Messrs", "Sr", "Jr", "Sra", "Srta", "Ud", "Inc", "Ltd", "Co", "Corp", "Bros", "Dept",
    "Ave", "Blvd", "Rd", "Nr", "vs", "etc", "cf", "ca", "approx", "bzw", "usw",
))  # fmt: skip
_BEFORE_NUMBERS = frozenset((
    "No", "Nos", "Vol", "vol", "p", "pp", "Fig", "fig", "Ch", "Sec", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept",
    "Oct", "Nov", "Dec",
))  # fmt: skip
# Words that stand at the beginning of a sentence more often than they are part of a name.
_STARTERS = frozenset((
    "the", "he", "she", "it", "they", "we", "you", "this", "that", "these", "those", "there", "his", "her", "their", "its", "my", "our",
    "in", "on", "at", "when", "then", "but", "and", "so", "as", "if", "what", "who", "where", "why", "how", "after", "before", "while",
))  # fmt: skip
_CLOSING = frozenset("\"'”’»)]")


@dataclass(frozen=True)
class Words:
    """The words and signs of a text: where they stand, as written, their stems, and the sentence that each belongs to."""

    places: np.ndarray  # first character and end, shape (num_words, 2)
    forms: list[str]
    stems: list[str]
    sentences: np.ndarray  # from 0, shape (num_words,)


def split_words(text: str) -> Words:
    """Cut a text into words and signs. Stems are rough: the lower-case word without a common English ending.

    A sentence ends behind ., ! or ? and a closing quotation mark, where a space and no small letter follow; not behind "Mrs.", "e.g.",
    "No." before a number or an initial, unless a word such as "The" begins the next one: "at 5 p.m. The shop".

    Example:
        >>> words = split_words('"Stop!" Mrs. Fox said so.')
        >>> words.forms[4:7], words.sentences.tolist()
        (['Mrs', '.', 'Fox'], [0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    """
    found = list(WORD_UNIT.finditer(text))
    forms = [match.group() for match in found]
    places = np.array([match.span() for match in found], dtype="int64").reshape(-1, 2)
    stems = [_ENDING.sub("", form.lower()) for form in forms]
    starts = np.zeros(len(forms), dtype="int64")
    for i, form in enumerate(forms):
        if form in ".!?。？！":
            following = i + 1
            while following < len(forms) and forms[following] in _CLOSING and places[following, 0] == places[following - 1, 1]:
                following += 1
            if following < len(forms):
                gap = text[places[following - 1, 1] : places[following, 0]]
                shortened = form == "." and following == i + 1 and i and places[i, 0] == places[i - 1, 1] and _is_short(forms, i)
                starts[following] = _is_end(form, gap, forms[following], forms[i - 1] if shortened else "")
    return Words(places, forms, stems, np.cumsum(starts))


def _is_short(forms: list[str], i: int) -> bool:
    """Whether the full stop at `i`, right behind a word, may belong to it: to an abbreviation, an initial, or the "m" of "p.m."."""
    word = forms[i - 1]
    initial = len(word) == 1 and word.isascii() and word.isalpha() and (word.isupper() or (i > 1 and forms[i - 2] == "."))
    return initial or word in _ABBREVIATIONS or word in _BEFORE_NUMBERS


def _is_end(sign: str, gap: str, following: str, abbreviation: str) -> bool:
    """Whether a sentence ends with a sign before a gap and a word; `abbreviation` is what the sign may belong to."""
    if sign in "。？！" or gap.count("\n") > 1:
        return True
    if not gap:
        return False
    if abbreviation in _BEFORE_NUMBERS:
        return not following[0].isdigit() and not following[0].islower()
    if abbreviation:
        return following[0].isupper() and following.lower() in _STARTERS
    return "\n" in gap or not following[0].islower()


def overlap_features(passage: Words, question: Words, idf: Callable[[str], float]) -> np.ndarray:
    """Say of each word of a passage how much it and its surroundings share with a question.

    Args:
        passage: From `split_words`.
        question: From `split_words`.
        idf: Inverse document frequency of a lower-case word, scaled to 0-1: near 0 for "the".

    Returns:
        Numbers in 0-1, shape (num_words, 6): is this word asked for, its stem; how much of the question its sentence covers,
        that compared with the best sentence, how much its sentence and the one before cover; how near words of the question stand.
    """
    asked_forms = {form.lower() for form in question.forms}
    asked: dict[str, float] = {}
    for form, stem in zip(question.forms, question.stems, strict=True):
        if form[0].isalnum() and form.lower() not in QUESTION_WORDS:
            asked[stem] = max(asked.get(stem, 0.0), idf(form.lower()))
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
