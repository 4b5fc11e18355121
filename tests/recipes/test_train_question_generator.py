"""The public question generator: its data, and how questions are measured."""

from slm_helpers.recipes import public_questions
from slm_helpers.recipes import train_question_generator as recipe

import pandas as pd
import pytest


def passages() -> pd.DataFrame:
    rows = []
    for number, (who, what) in enumerate(
        (who, what) for who in ("cat", "owl", "dog", "hen") for what in ("mat", "wall", "bed", "box", "hill")
    ):
        context = f"It rained. The {who} sat on the {what}. It was late."
        split = "test" if number % 5 == 4 else "valid" if number % 5 == 3 else "train"
        rows.append({"context": context, "question": f"What did the {who} sit on?", "answer": what, "split": split})
    return pd.DataFrame(rows).assign(answer_start=-1)


@pytest.mark.parametrize(
    ("cut", "written"),
    [
        ("the bowl of hygieia is used .", "The bowl of hygieia is used."),
        ("`` markets , by themselves , fail . ''", '"Markets, by themselves, fail."'),
        ("it is n't the church 's -lrb- 1890 -rrb- , is it ?", "It isn't the church's (1890), is it?"),
    ],
)
def test_words_that_were_cut_apart_are_put_together_as_written(cut, written):
    assert recipe.as_written(cut) == written


def test_questions_are_measured_once_on_passages_and_on_sentences(monkeypatch):
    rows = [
        {
            "context": f"It rained. The {animal} sat on the {thing}.",
            "question": f"What did the {animal} sit on?",
            "answer": thing,
            "split": split,
        }
        for split, number in (("train", 4), ("valid", 1), ("test", 2))
        for animal, thing in list(zip(("cat", "owl", "dog", "hen"), ("mat", "wall", "bed", "box"), strict=True))[:number]
    ]
    passages = pd.DataFrame(rows).assign(answer_start=[row["context"].rindex(row["answer"]) for row in rows])
    unanswered = passages.tail(1).assign(answer="", answer_start=-1)
    sets = {
        "tales": pd.concat([passages, unanswered], ignore_index=True),
        "pairs": passages.rename(columns={"context": "source", "question": "target"})[["source", "target", "split"]],
    }
    monkeypatch.setattr(public_questions, "load_dataset", sets.__getitem__)
    options = {"seeds": (1,), "changes": {"epochs": 1}}
    for name, baselines in {
        "tales_questions": ["the sentence", "nearest question", "template"],
        "pairs": ["the sentence", "nearest question"],
    }.items():
        found = list(public_questions.measure_questions(name, known=set(), **options))
        assert [about["model"] for _, about in found] == [*baselines, public_questions.BASE]
        values = {about["model"]: scores.set_index("metric")["value"] for scores, about in found}
        assert values["nearest question"]["chrf"] == pytest.approx(100)  # train has the same animals
        assert all(
            0 <= score["bleu"] < 100.1 and about["train_rows"] == 4 for score, (_, about) in zip(values.values(), found, strict=True)
        )
        known = {(about["model"], str(about["seed"])) for _, about in found}
        assert list(public_questions.measure_questions(name, known=known, **options)) == []
