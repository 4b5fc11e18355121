"""Leader's notes and their quizzes."""

import re

from slm_helpers._paths import NOTEBOOKS_DIR
from slm_helpers.apps.workshop_quiz import read_quiz
from slm_helpers.cli import main
from slm_helpers.reports.quiz_page import write_quiz

import pytest

NOTES = sorted((NOTEBOOKS_DIR / "workshop").glob("*.md"))


@pytest.mark.parametrize("path", NOTES, ids=lambda path: path.stem)
def test_notes_have_their_parts_and_ten_questions(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.stem} · ") and list(NOTEBOOKS_DIR.glob(f"{path.stem}_*.ipynb"))
    for part in ("**Objectives.**", "**Before.**", "**Points to make**", "**Common wrong answers**", "**Ask**"):
        assert part in text
    questions = read_quiz(path)
    assert len(questions) == 10 and len({question.text for question in questions}) == 10
    assert all(len(set(question.options)) == len(question.options) == 3 for question in questions)


def test_every_notebook_has_notes_and_leads_to_them():
    notebooks = {path.stem[:2]: path for path in NOTEBOOKS_DIR.glob("[0-9][0-9]_*.ipynb")}
    assert {path.stem for path in NOTES} == set(notebooks)
    assert all(f"(workshop/{number}.md)" in path.read_text(encoding="utf-8") for number, path in notebooks.items())


def test_the_letter_of_an_answer_is_that_of_the_right_option(tmp_path):
    assert write_quiz("02", tmp_path / "quiz.html") == 10
    page = (tmp_path / "quiz.html").read_text(encoding="utf-8")
    assert "<script" not in page and page.count("<details>") == 10
    letters = []
    for question, block in zip(read_quiz(NOTEBOOKS_DIR / "workshop" / "02.md"), page.split("<h2>")[1:], strict=True):
        options = re.findall("<li>(.*?)</li>", block)
        letter = re.search(r"<strong>([A-C])\.</strong> (.*?)\. ", block)
        assert options["ABC".index(letter[1])] == letter[2] == question.options[question.answer].replace("&", "&amp;")
        letters.append(letter[1])
    assert len(set(letters)) == 3  # where the answer stands tells nothing


def test_a_quiz_that_cannot_be_meant_is_refused(tmp_path):
    for text, message in [
        ("1. q\n   - [x] a\n   - [x] b\n   - why\n", "question 1 needs"),
        ("1. q\n   - [x] a\n   - [ ] b\n", "question 1 needs"),
        ("1. q\nwhat is this\n", "no question, option or reason"),
    ]:
        path = tmp_path / "a.md"
        path.write_text(f"# a\n\n## Quiz\n{text}", encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_quiz(path)


def test_the_command_writes_a_page_or_says_which_notebooks_have_notes(tmp_path, capsys):
    assert main(["workshop", "quiz", "00", "--out", str(tmp_path / "a.html")]) == 0 and (tmp_path / "a.html").stat().st_size < 100_000
    assert main(["workshop", "quiz", "99", "--out", str(tmp_path / "b.html")]) == 2
    assert "only for 00, 01" in capsys.readouterr().err
