"""Questions by a template, and answers to ask for."""

from slm_helpers.baselines.question_generation import candidate_answers, template_question

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
