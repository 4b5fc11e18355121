"""`slm report` on tasks other than classes: scores that agree, rivals that were run, rows worth a look."""

import json

from slm_helpers.apps.task_report import COMBINED, NETWORK, report_on_task
from slm_helpers.cli import main
from slm_helpers.metrics.tagging import tag_table

import numpy as np
import pandas as pd
import pytest

NAMES, VERBS = ["Ann", "Bob", "Cleo", "Dan", "Eva", "Finn"], ["ran", "sang", "slept", "read", "wrote", "left"]


def sentences(num: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = [(f"{rng.choice(NAMES)} {rng.choice(VERBS)} in the town of number {n}", "B-PER O O O O O O O") for n in range(num)]
    return pd.DataFrame(rows, columns=["tokens", "tags"]).assign(split=["train"] * (num - 20) + ["valid"] * 10 + ["test"] * 10)


def pairs(num: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    words = dict(zip(NAMES + VERBS, map(str.upper, NAMES + VERBS), strict=True))
    rows = [[rng.choice(NAMES), rng.choice(VERBS)] for _ in range(num)]
    table = [(" ".join(row), " ".join(words[word] for word in row)) for row in rows]
    return pd.DataFrame(table, columns=["source", "target"]).assign(split=["train"] * (num - 20) + ["valid"] * 10 + ["test"] * 10)


@pytest.fixture(scope="module")
def report():
    frame = sentences()
    frame.loc[frame.index[-1], "tags"] = "O O O O O O O O"  # a name without its tag
    return report_on_task("tag", frame, base=None, max_minutes=30)


def test_rivals_are_scored_on_the_same_rows_and_the_difference_is_theirs(report):
    assert [rival.name for rival in report.rivals] == ["linear tagger", NETWORK, COMBINED] and report.metric == "entity_f1"
    values = report.models[report.models["metric"] == "entity_f1"].set_index("model")["value"]
    gold = [["B-PER", *["O"] * 7]] * 9 + [["O"] * 8]
    for rival in report.rivals:
        assert values[rival.name] == tag_table(gold, rival.predictions["test"]).set_index("metric").loc["entity_f1", "value"]
    points = report.differences.set_index("model")["points"]
    assert report.chosen.name not in points and points["linear tagger"] == pytest.approx(
        100 * (values[report.chosen.name] - values["linear tagger"])
    )


def test_a_row_that_two_kinds_of_models_contradict_is_to_be_checked(report):
    last = report.rows_to_check.iloc[-1]
    assert (last["split"], last["row"], last["suggested"].split()[0], last["tags"].split()[0]) == ("test", 10, "B-PER", "O")


def test_the_command_guesses_the_task_and_its_files_agree(tmp_path, capsys):
    pairs().drop(columns="split").to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    options = ["--out", str(tmp_path / "out"), "--max-minutes", "0.5", "--json"]
    assert main(["report", "--data", str(tmp_path / "mine.jsonl"), *options]) == 0
    printed, err = capsys.readouterr()
    found = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert json.loads(printed) == found and found["task"] == "translate" and "guessed: task translate" in err
    assert {one["name"] for one in found["models"]} == {"source as it is", "translation memory", "phrases", NETWORK}
    assert found["verdict"] in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == found["data"]["rows"]["test"]
    assert (tmp_path / "out" / "model" / "config.json").is_file()


def test_a_task_without_a_report_says_what_trains_it():
    with pytest.raises(ValueError, match=r"no report on the task 'trace'.*`slm finetune trace`"):
        report_on_task("trace", pd.DataFrame({"student": []}))


def test_several_labels_a_text_have_a_report_of_their_own(tmp_path, capsys):
    rng = np.random.default_rng(5)
    names = [sorted(rng.choice(["sun", "rain", "wind"], rng.integers(1, 3), replace=False)) for _ in range(150)]
    towns = ["".join(rng.choice(list("aeioubdklmnprst"), 6)) for _ in names]
    rows = [(f"{town} had {' and '.join(row)} all day", json.dumps(row)) for town, row in zip(towns, names, strict=True)]
    pd.DataFrame(rows, columns=["comment", "weather"]).to_csv(tmp_path / "mine.csv", index=False)
    options = ["--label", "weather", "--out", str(tmp_path / "out"), "--base", "none", "--max-minutes", "30", "--json"]
    assert main(["report", "--data", str(tmp_path / "mine.csv"), *options]) == 0
    printed, err = capsys.readouterr()
    found = json.loads(printed)
    assert found["task"] == "multilabel" and "have several labels" in err
    models = {one["name"]: one["metrics"]["micro_f1"]["value"] for one in found["models"]}
    assert list(models) == ["most frequent label", "TF-IDF, linear", "network", "n-gram model", "network and features"]
    assert 0 < models["most frequent label"] < 0.7 and models[found["chosen"]] > 0.95
    assert [row["label"] for row in found["tables"]["labels"]] == ["rain", "sun", "wind"]
    assert set(pd.read_csv(tmp_path / "out" / "predictions.csv")) == {"text", "labels", "prediction"}
    (tmp_path / "new.csv").write_text("comment\nwind and rain\n")
    paths = ["--model", str(tmp_path / "out" / "model"), "--input", str(tmp_path / "new.csv"), "--output", str(tmp_path / "said.csv")]
    assert main(["predict", *paths, "--text", "comment"]) == 0
    assert pd.read_csv(tmp_path / "said.csv")["prediction"].tolist() == ["rain, wind"]
