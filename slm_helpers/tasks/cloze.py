"""Questions made of plain passages, for a reader to practise on before it meets real ones."""

from collections.abc import Sequence

from slm_helpers.text.words import FUNCTION_WORDS, Words, split_words

import numpy as np
import pandas as pd

_QUESTION_FORMS = {
    "number": ("When", "How many", "How much", "Which"),
    "name": ("Who", "Where", "What", "Which"),
    "other": ("What", "How", "Why"),
}


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
    return pd.DataFrame(rows, columns=["context", "question", "answer", "answer_start"])


def _draw_span(words: Words, sentence: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """Draw first and last word of a span within a sentence that looks like a phrase: between signs, small words or the sentence's ends."""
    edge = [not form.isalnum() or form.lower() in FUNCTION_WORDS for form in words.forms]
    first = int(rng.choice(sentence))
    last = min(first + int(rng.integers(1, 7)) - 1, int(sentence[-1]))
    inside = words.forms[first : last + 1]
    begins = first == sentence[0] or edge[first - 1]
    ends = not edge[last] and (last == sentence[-1] or edge[last + 1])
    # Three words at least have to be left to ask with.
    whole = all(form.isalnum() for form in inside) and len(sentence) - len(inside) >= 4
    return (first, last) if begins and ends and whole else None
