"""`slm report`: a verdict that fits the scores, files that agree, hostile texts that stay text, the same numbers again."""

import json
import re

from slm_helpers.apps.text_report import BOTH, LINEAR, MAJORITY, NETWORK, NGRAMS, choose, foreign_texts, report_on_texts
from slm_helpers.cli import main
from slm_helpers.reports.text_report_page import write_report

import numpy as np
import pandas as pd
import pytest

HOSTILE = "<script>alert(1)</script> [x](javascript:alert(1)) | *good*"


def opinions(num: int = 240, *, noise: int = 0) -> pd.DataFrame:
    """Return texts whose class is told by one word; the first `noise` rows have the wrong label."""
    rng = np.random.default_rng(1)
    fill = ["".join(rng.choice(list("abcdefghij"), 5)) for _ in range(60)]
    rows = [(" ".join([*rng.choice(fill, 5), word, *rng.choice(fill, 3)]), word) for _ in range(num // 2) for word in ("good", "bad")]
    frame = pd.DataFrame(rows, columns=["text", "label"])
    frame.loc[: noise - 1, "label"] = frame.loc[: noise - 1, "label"].map({"good": "bad", "bad": "good"})
    return frame.assign(split=["train"] * (num - 80) + ["valid"] * 40 + ["test"] * 40)


@pytest.fixture(scope="module")
def report():
    return report_on_texts(opinions(noise=6), base=None, max_minutes=30)


def test_the_best_on_valid_is_chosen_and_scores_agree(report):
    assert [rival.name for rival in report.rivals] == [MAJORITY, LINEAR, NGRAMS, NETWORK, BOTH]
    accuracy = report.models[report.models["metric"] == "accuracy"].set_index("model")
    chosen, valid = report.chosen.name, accuracy["accuracy_valid"][[NGRAMS, NETWORK, BOTH]]
    rows = opinions(noise=6).query("split == 'valid'")
    probs = report.chosen.estimator.predict_proba(rows["text"])[np.arange(40), (rows["label"] == "good").astype(int)]
    assert report.chosen.valid_loss == pytest.approx(-np.log(probs).sum(), rel=1e-4)
    assert valid[chosen] > 0.9 and report.verdict.startswith("Use ")
    assert accuracy["value"][chosen] == (report.predictions["prediction"] == report.predictions["label"]).mean()
    points = report.differences.set_index("model")["points"]
    assert points[MAJORITY] == pytest.approx(100 * (accuracy["value"][chosen] - accuracy["value"][MAJORITY])) and chosen not in points
    assert report.abstention["answered"].iloc[-1] == 1.0 and report.advice["accuracy"] >= 0.9
    assert set(report.words["words"].str.split(", ").str[0]) == {"good", "bad"}


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ({NGRAMS: 40.0, NETWORK: 60.0, BOTH: 39.0}, NGRAMS),  # what one more weight gains by luck
        ({NGRAMS: 40.0, NETWORK: 38.0, BOTH: 37.0}, NETWORK),
        ({NGRAMS: 40.0, NETWORK: 60.0, BOTH: 38.0}, BOTH),
        ({NGRAMS: 40.0, NETWORK: 30.0, BOTH: 25.0}, BOTH),
    ],
)
def test_the_combined_model_is_chosen_if_its_likelihood_is_no_luck(losses, chosen):
    assert choose(losses) == chosen


def test_wrong_labels_are_found(report):
    assert set(report.rows_to_check["row"].head(6)) == set(range(1, 7))
    first = report.rows_to_check.iloc[0]
    assert first["suggested"] in first["text"] and first["suggested"] != first["label"]


def test_labels_that_say_nothing_give_no_model():
    frame = opinions()
    frame["label"] = np.random.default_rng(2).permutation(frame["label"])
    found = report_on_texts(frame, base=None, max_minutes=30)
    assert found.verdict.startswith("Use none yet")


def test_rows_with_several_labels_are_left_out_and_counted():
    frame = opinions(120)
    frame.loc[[0, 1, 118], "label"] = "good,bad"
    found = report_on_texts(frame, base=None, max_minutes=30)
    assert found.labels == ["bad", "good"] and sum(found.rows.values()) == 117
    assert found.warnings[0].startswith("3 of 120 rows have several labels in one cell, e.g. 'good,bad'")


def test_the_command_writes_files_that_agree_and_repeat(tmp_path, capsys):
    frame = opinions(160)
    frame.loc[0, "text"] = f"{HOSTILE} {frame.loc[0, 'text']}"
    frame.drop(columns="split").rename(columns={"text": "comment", "label": "mood"}).to_csv(tmp_path / "mine.csv", index=False)
    found = []
    for name in ("a", "b"):
        arguments = ["--text", "comment", "--label", "mood", "--base", "none", "--max-minutes", "30", "--json", "--show-rows"]
        assert main(["report", "--data", str(tmp_path / "mine.csv"), "--out", str(tmp_path / name), *arguments]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8"))
        found.append(re.sub(r'"seconds": [0-9.e-]+', "", json.dumps(printed)))
    assert found[0] == found[1]
    assert set(printed) >= {"task", "data", "chosen", "verdict", "models", "warnings", "files"} and printed["data"]["file"] == "mine.csv"
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert (
        printed["verdict"].split(" (")[0] in page and "<script" not in page and "javascript:alert" not in re.findall(r'href="([^"]*)', page)
    )
    wrong = pd.read_csv(tmp_path / "a" / "mistakes.csv", keep_default_na=False)
    assert (wrong["label"] != wrong["prediction"]).all() and wrong["confidence"].is_monotonic_decreasing
    assert all(re.fullmatch(r"(\S+:[+-]\d\.\d{3} ?)+", words) for words in wrong["words"])
    assert page.count("<img alt=") == 4 and len(page) < 2_000_000
    # The model predicts what the report has predicted.
    rows = pd.read_csv(tmp_path / "a" / "predictions.csv")
    rows[["text"]].rename(columns={"text": "comment"}).to_csv(tmp_path / "new.csv", index=False)
    options = ["--input", str(tmp_path / "new.csv"), "--output", str(tmp_path / "out.csv"), "--text", "comment"]
    assert main(["predict", "--model", str(tmp_path / "a" / "model"), *options]) == 0
    assert pd.read_csv(tmp_path / "out.csv")["prediction"].tolist() == rows["prediction"].tolist()


def test_texts_of_the_data_stand_on_the_page_only_if_asked_for(report, tmp_path):
    for show in (False, True):
        write_report(report, tmp_path / str(show), file="mine.csv", show_rows=show)
    text = report.rows_to_check["text"].iloc[0]
    assert [text in (tmp_path / str(show) / "report.html").read_text(encoding="utf-8") for show in (False, True)] == [False, True]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (pd.DataFrame({"text": ["a", "b", "c"], "label": ["x", "y", "x"]}), [], "3 rows are too few"),
        (pd.DataFrame({"text": [f"t {i}" for i in range(30)], "label": "x"}), [], "two at least"),
        (pd.DataFrame({"text": [f"t {i}" for i in range(30)], "label": ["x", "y"] * 15}), ["--max-minutes", "0.1"], "max_minutes is 0.1"),
    ],
)
def test_what_cannot_be_reported_on_is_one_line(tmp_path, capsys, rows, options, message):
    rows.to_csv(tmp_path / "mine.csv", index=False)
    assert main(["report", "--data", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out"), *options]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_texts_that_the_base_cannot_read_are_told():
    german = pd.DataFrame({"text": ["Das Essen war nicht gut und der Raum war kalt.", "Wir kommen gern wieder, es war sehr schön."] * 10})
    assert foreign_texts(german, "slm-base-en")[0].startswith("By their words the texts are 100% German; the base model has read English")
    english = pd.DataFrame({"text": ["The food was not good and the room was cold."] * 10})
    assert foreign_texts(english, "slm-base-en") == [] == foreign_texts(german, None)
