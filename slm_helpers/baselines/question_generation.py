"""Questions on a passage without a network: a template fills the sentence of an answer, and rules choose answers to ask for.

What a network learns to ask is in `slm_helpers.tasks.question_generation`.
"""

import re

from slm_helpers.text.sentences import enclosing_sentence
from slm_helpers.text.words import FUNCTION_WORDS, split_words

_MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"]
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_PLACE_WORDS = {"in", "at", "near", "from", "on", "to"}
_PERSON = re.compile(r"^(mr|mrs|miss|ms|dr|captain|king|queen|professor|uncle|aunt|old)\b", re.IGNORECASE)


def template_question(context: str, answer: str, answer_start: int) -> str:
    """Return a question for an answer in a passage: its sentence with a question word in the answer's place.

    Where the sentence begins with the answer this is plain English ("Who built the bridge?"); elsewhere it is the question of
    somebody who did not catch the words ("In 1284 the monks built what?").

    Raises:
        ValueError: If the answer is empty or does not stand at its place.
    """
    if not answer or context[answer_start : answer_start + len(answer)] != answer:
        raise ValueError(f"The answer {answer!r:.60} does not stand at character {answer_start} of its passage.")
    sentence, begin = enclosing_sentence(context, answer_start, answer_start + len(answer))
    before = sentence[: answer_start - begin].rstrip()
    after = sentence[answer_start - begin + len(answer) :].rstrip(" .!?;:\"'")
    question_word = _question_word(answer, before)
    if question_word in ("when", "where") and before.split()[-1:] and before.split()[-1].lower() in _PLACE_WORDS:
        before = before[: -len(before.split()[-1])].rstrip()  # "in when" is no English
    question = " ".join(part for part in (before, question_word, after.lstrip()) if part)
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
        elif form[0].isupper() and not starts_sentence and form.lower() not in FUNCTION_WORDS and len(form) > 1:
            while last + 1 < len(words.forms) and words.forms[last + 1][:1].isupper() and last - first + 1 < max_words:
                last += 1
            score = 2.0
        else:
            score = len(form) / 20 if form.isalpha() and form.lower() not in FUNCTION_WORDS else 0.0
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
