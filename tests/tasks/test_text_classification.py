"""From files to a model folder, its scores and predictions: the commands finetune, evaluate and predict, and what they refuse."""

import csv
import json
import shutil

from slm_helpers._paths import PRETRAINED_DIR
from slm_helpers.cli import main
from slm_helpers.metrics.classification import calibration_error, fit_temperature
from slm_helpers.models import saved as models
from slm_helpers.tasks import text_classification as classify
from slm_helpers.tasks.io import FileOptions, load_parts

import numpy as np
import pandas as pd
import pytest

GOOD, BAD = ["good", "fine", "lovely", "bright"], ["bad", "poor", "awful", "dull"]


def opinions(num_rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Rows that a few steps suffice to learn."""
    rng = np.random.default_rng(seed)
    labels = np.array(["praise", "blame"])[np.arange(num_rows) % 2]
    words = [rng.choice(GOOD if label == "praise" else BAD, 3) for label in labels]
    return pd.DataFrame({"comment": [f"The {a} day was {b}, {c} and number {i}." for i, (a, b, c) in enumerate(words)], "mood": labels})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with rows and a model fine-tuned on them from random weights."""
    folder = tmp_path_factory.mktemp("tasks")
    opinions(160).to_csv(folder / "train.csv", index=False)
    opinions(40, seed=1).to_csv(folder / "test.csv", index=False)
    columns = ["--text", "comment", "--label", "mood"]
    files = ["--train", str(folder / "train.csv"), "--test", str(folder / "test.csv")]
    assert main(["finetune", "classify", *files, *columns, "--base", "none", "--epochs", "4", "--out", str(folder / "model")]) == 0
    return folder


def run(capsys, *arguments):
    """Run a command; returns its exit code, what it printed and its message."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


COLUMNS = ("--text", "comment", "--label", "mood")


def test_a_trained_folder_holds_what_was_measured(trained):
    saved = models.load_model(trained / "model", task="classify")
    assert saved.labels == ["blame", "praise"]
    assert saved.metrics["accuracy"]["value"] > 0.9
    assert 0 <= saved.settings["ensemble_weights"][0] <= 10 and 0 < saved.settings["ensemble_weights"][1] <= 30
    card = (trained / "model" / "card.md").read_text()
    assert "random weights" in card and "142 train, 18 valid, 40 test" in card and "| accuracy |" in card


def test_evaluate_prints_one_object_with_intervals_and_tables(trained, capsys):
    code, out, _ = run(capsys, "evaluate", "--model", trained / "model", "--test", trained / "test.csv", *COLUMNS, "--json")
    found = json.loads(out)
    assert code == 0 and found["task"] == "classify" and found["rows"] == 40
    assert set(found["metrics"]) == {"accuracy", "macro_f1", "macro_recall"}
    assert found["metrics"] == models.load_model(trained / "model").metrics
    for values in found["metrics"].values():
        assert values["ci_low"] <= values["value"] <= values["ci_high"]
    assert sum(row["rows"] for row in found["confusion"]) == sum(row["rows"] for row in found["classes"]) == 40


@pytest.mark.parametrize("ending", ["csv", "jsonl", "tsv"])
def test_predict_keeps_every_row_and_column_and_adds_two(trained, tmp_path, capsys, ending):
    out = tmp_path / f"out.{ending}"
    code, printed, _ = run(
        capsys, "predict", "--model", trained / "model", "--input", trained / "test.csv", "--output", out, "--text", "comment", "--json"
    )
    assert code == 0 and json.loads(printed)["rows"] == 40
    if ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = list(csv.DictReader(out.open(), delimiter="," if ending == "csv" else "\t"))
    assert [row["comment"] for row in rows] == opinions(40, seed=1)["comment"].tolist()
    assert np.mean([row["prediction"] == row["mood"] for row in rows]) > 0.9
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in rows)


def test_a_row_without_text_stops_predict_or_stays_without_prediction(trained, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("comment,n\ngood day,1\n,2\nbad day,3\n")
    arguments = ["predict", "--model", trained / "model", "--input", tmp_path / "rows.csv", "--output", tmp_path / "out.csv", *COLUMNS[:2]]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "line 3" in err and "'comment'" in err and "--keep-bad" in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]  # no partial output
    code, _, err = run(capsys, *arguments, "--keep-bad")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert code == 0 and "1 rows" in err
    assert [bool(row["prediction"]) for row in rows] == [True, False, True] and [row["n"] for row in rows] == ["1", "2", "3"]


def test_without_parts_a_file_is_dealt_and_with_a_test_a_tenth_of_train_becomes_valid(trained):
    files = FileOptions(columns={"text": "comment", "label": "mood"})
    alone = load_parts("classify", train=[str(trained / "train.csv")], files=files)
    sizes = alone["split"].value_counts()
    assert sizes.sum() == 160 and all(14 <= sizes[split] <= 18 for split in ("valid", "test"))
    both = load_parts("classify", train=[str(trained / "train.csv")], test=str(trained / "test.csv"), files=files)
    assert both["split"].value_counts().to_dict() == {"train": 142, "test": 40, "valid": 18}
    assert both.loc[both["split"] == "valid", "label"].nunique() == 2
    shared = set(both.loc[both["split"] == "train", "text"]) & set(both.loc[both["split"] == "valid", "text"])
    assert not shared


def test_the_network_may_have_to_do_alone(trained, tmp_path, capsys):
    arguments = ["--train", trained / "train.csv", *COLUMNS, "--base", "none", "--epochs", "1", "--out", tmp_path / "model", "--no-ngrams"]
    code, _, _ = run(capsys, "finetune", "classify", *arguments)
    saved = models.load_model(tmp_path / "model")
    assert code == 0 and len(saved.model.inputs) == 1 and 0.04 < saved.settings["temperature"] < 21
    code, _, err = run(capsys, "finetune", "translate", *arguments)
    assert code == 2 and "--no-ngrams" in err


BAD_TRAINING = {
    "one class only": ("comment,mood\n" + "fine day,praise\n" * 20, ["1 class(es)", "two at least"]),
    "no such column": ("text,mood\n" + "fine day,praise\nbad day,blame\n" * 9, ["comment", "It has: text, mood"]),
    "empty file": ("", ["is empty"]),
    "no row": ("comment,mood\n", ["no row"]),
    "a cell that is too long": ("comment,mood\nfine,praise\n" + "x" * 1_000_001 + ",blame\n", ["line 3", "1,000,001 characters"]),
    "broken quote": ('comment,mood\n"fine day,praise\nbad day,blame\n', ["quote"]),
    "too few rows": ("comment,mood\nfine,praise\nbad,blame\n", ["2 rows are too few"]),
    "twice the same column": ("comment,comment,mood\na,b,praise\n", ["comment"]),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_training_files_are_refused_in_one_line_and_leave_nothing(tmp_path, capsys, case):
    text, parts = BAD_TRAINING[case]
    (tmp_path / "bad.csv").write_text(text)
    code, out, err = run(
        capsys, "finetune", "classify", "--train", tmp_path / "bad.csv", *COLUMNS, "--base", "none", "--out", tmp_path / "model"
    )
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("slm: ")
    for part in parts:
        assert part in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]


def test_a_wrong_encoding_is_named_with_its_line(tmp_path, capsys):
    (tmp_path / "latin.csv").write_bytes("comment,mood\nfine day,praise\ncafé,blame\n".encode("latin-1"))
    code, _, err = run(
        capsys, "finetune", "classify", "--train", tmp_path / "latin.csv", *COLUMNS, "--base", "none", "--out", tmp_path / "m"
    )
    assert code == 2 and "line 3" in err and "encoding" in err


def test_a_label_that_train_lacks_is_refused_before_and_after_training(trained, tmp_path, capsys, monkeypatch):
    (tmp_path / "odd.csv").write_text("comment,mood\ngood day,praise\nodd day,wonder\n")
    monkeypatch.setattr(classify.TextClassifier, "_train", None)  # no time is spent on training first
    code, _, err = run(
        capsys, "finetune", "classify", "--train", trained / "train.csv", "--test", tmp_path / "odd.csv", *COLUMNS, "--base", "none",
        "--out", tmp_path / "m",
    )  # fmt: skip
    assert code == 2 and "'wonder'" in err and not (tmp_path / "m").exists()
    code, _, err = run(capsys, "evaluate", "--model", trained / "model", "--test", tmp_path / "odd.csv", *COLUMNS)
    assert code == 2 and "row 2" in err and "'wonder'" in err and "blame, praise" in err


def test_a_changed_model_file_and_a_model_of_another_task_are_refused(trained, tmp_path, capsys):
    folder = tmp_path / "changed"
    shutil.copytree(trained / "model", folder)
    with open(folder / "weights.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    files = ["--input", trained / "test.csv", "--output", tmp_path / "out.csv", "--text", "comment"]
    code, _, err = run(capsys, "predict", "--model", folder, *files)
    assert code == 2 and "was changed or cut short" in err
    code, _, err = run(capsys, "predict", "--model", PRETRAINED_DIR / "slm-base-en", *files)
    assert code == 2 and "task lm" in err and "slm generate" in err
    code, _, err = run(capsys, "predict", "--model", "slm-reader-en", *files[:-2])
    assert code == 2 and "no column 'question', which a model for the task answer reads. It has: comment, mood" in err
    assert not (tmp_path / "out.csv").exists()
    (tmp_path / "reviews.csv").write_text("text,label\nfine day,praise\n")
    code, _, err = run(capsys, "evaluate", "--model", "slm-reader-en", "--test", tmp_path / "reviews.csv")
    assert code == 2 and "task answer needs the columns" in err and "question is missing" in err and err.count("\n") == 1


def test_wrong_calls_are_said_clearly(trained, tmp_path, capsys):
    model, rows = trained / "model", trained / "test.csv"
    cases = {
        ("predict", "--model", model, "--input", rows, "--output", tmp_path / "out.parquet", "--text", "comment"): "endings",
        ("predict", "--model", model, "--input", rows, "--output", tmp_path / "out.csv", "--question", "mood"): "does not use",
        ("predict", "--model", tmp_path, "--input", rows, "--output", tmp_path / "out.csv"): "not a model folder",
        (
            "predict",
            "--model",
            "slm-xx",
            "--input",
            rows,
            "--output",
            tmp_path / "out.csv",
        ): "slm-xx is neither a model folder nor",
        ("evaluate", "--model", model, "--test", tmp_path / "none.csv", *COLUMNS): "no such file",
        ("finetune", "classify", "--train", rows, *COLUMNS, "--out", trained, "--base", "none"): "left alone",
        ("finetune", "classify", "--train", rows, *COLUMNS, "--out", tmp_path / "m", "--base", "nosuch"): "pretrained model",
        ("finetune", "classify", "--train", rows, *COLUMNS, "--out", tmp_path / "m", "--epochs", "0"): "epochs is 0",
        ("finetune", "summarise", "--train", rows, "--out", tmp_path / "m"): "classify",
    }
    for arguments, part in cases.items():
        code, _, err = run(capsys, *arguments)
        assert code == 2 and part in err and err.count("\n") == 1, (arguments, err)
    assert not list(tmp_path.iterdir())


def test_the_same_seed_gives_the_same_model(trained, tmp_path, capsys):
    files = ["--train", trained / "train.csv", *COLUMNS, "--base", "none", "--epochs", "1", "--out"]
    for name in ("a", "b"):
        assert run(capsys, "finetune", "classify", *files, tmp_path / name)[0] == 0
    weights = [models.load_model(tmp_path / name).model.get_weights() for name in ("a", "b")]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


# Calibration


def test_the_temperature_undoes_scores_that_are_too_sharp():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 3))
    probs = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    targets = (rng.random(4000)[:, None] > probs.cumsum(axis=1)).sum(axis=1)
    assert fit_temperature(scores, targets) == pytest.approx(1, abs=0.1)
    assert fit_temperature(5 * scores, targets) == pytest.approx(5, rel=0.1)
    assert np.isfinite(fit_temperature(np.array([[3.0, 0.0]]), np.array([0])))


def test_calibration_error_is_the_distance_of_confidence_and_accuracy():
    assert calibration_error(np.full(100, 0.75), np.repeat([1, 1, 1, 0], 25)[np.random.default_rng(0).permutation(100)], num_bins=1) == 0
    assert calibration_error(np.full(100, 0.9), np.zeros(100)) == pytest.approx(0.9)
