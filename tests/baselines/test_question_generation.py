"""Questions by a template, and answers to ask for."""

from slm_helpers.baselines.question_generation import MAX_WORDS, asked_sentence, candidate_answers, template_question

import pytest

CONTEXT = "The mill stands by the Orr. In 1284 the monks of Wendle built a wooden bridge. It had 12 arches. Mr Finch mends it."


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("The mill", "What stands by the Orr?"),
        ("1284", "When the monks of Wendle built a wooden bridge?"),
        ("a wooden bridge", "In 1284 the monks of Wendle built what?"),
        ("12 arches", "It had how many arches?"),
        ("Mr Finch", "Who mends it?"),
    ],
)
def test_a_template_puts_a_question_word_in_the_answers_place(answer, question):
    assert template_question(CONTEXT, answer, CONTEXT.index(answer)) == question


def test_a_template_wants_the_answer_at_its_place():
    with pytest.raises(ValueError, match="'mill' does not stand at character 0"):
        template_question(CONTEXT, "mill", 0)
    with pytest.raises(ValueError, match="does not stand"):
        template_question(CONTEXT, "", 0)


def test_answers_worth_asking_for_are_numbers_then_names():
    found = candidate_answers(CONTEXT, num_answers=4)
    assert [answer for answer, _ in found[:2]] == ["1284", "12"]
    assert {"Orr", "Wendle"} & {answer for answer, _ in found}
    assert all(CONTEXT[start : start + len(answer)] == answer for answer, start in found)


def test_a_question_is_asked_of_the_sentence_of_its_answer_and_of_the_words_around_it_where_that_is_long():
    row = {"context": CONTEXT, "answer": "12", "answer_start": CONTEXT.index("12 arches")}
    assert asked_sentence(row) == "It had 12 arches."
    assert asked_sentence({"context": CONTEXT, "answer": ""}) == CONTEXT
    words = [f"w{i}" for i in range(5000)]
    for place in (0, 2500, 4999):
        long = {"context": " ".join(words), "answer": words[place], "answer_start": " ".join(words).index(words[place])}
        cut = asked_sentence(long).split()
        assert len(cut) == MAX_WORDS and words[place] in cut
    assert asked_sentence({"context": " ".join(words), "answer": ""}).split() == words[:MAX_WORDS]
