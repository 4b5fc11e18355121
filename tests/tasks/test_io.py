"""From files to files: what is remembered, refused, warned of and resumed, whatever the task."""

import csv
import json
import subprocess
import sys

from slm_helpers import TextClassifier, load_model
from slm_helpers.cli import main
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import save_model
from slm_helpers.tasks import io
from slm_helpers.tasks.base import Task
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import numpy as np
import pandas as pd
import pytest

TEXTS, MOODS = [f"{word} day {i}" for i in range(12) for word in ("good", "bad")], ["praise", "blame"] * 12
LINES = [
    f"Today {one} saw {two} and wrote it down." for one in ("Ada", "Ben", "Cleo", "Dan", "Eve") for two in ("rain", "snow", "sun", "fog")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier that was trained on the columns comment and mood."""
    classifier = TextClassifier(base=None, epochs=1).fit(TEXTS, MOODS)
    frame = pd.DataFrame({"text": TEXTS, "label": MOODS})
    hashes = io._pack(io._row_hashes(frame, ["text"]))
    classifier.saved_.settings |= {"columns": {"text": "comment", "label": "mood"}, "train_rows": hashes}
    return classifier.save(tmp_path_factory.mktemp("io") / "model")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    tokenizer = train_bpe_tokenizer(TEXTS, vocab_size=280)
    network = build_language_model(tokenizer.vocab_size, embedding_dim=8, units=8)
    return save_model(tmp_path_factory.mktemp("base") / "base", network, tokenizer=tokenizer)


def run(capsys, *arguments):
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_predict_and_evaluate_remember_the_columns_of_training(model, tmp_path, capsys):
    pd.DataFrame({"comment": ["good night", "bad night"], "mood": ["praise", "blame"]}).to_csv(tmp_path / "new.csv", index=False)
    code, _, err = run(capsys, "predict", "--model", model, "--input", tmp_path / "new.csv", "--output", tmp_path / "out.csv")
    assert code == 0 and err == ""
    assert list(pd.read_csv(tmp_path / "out.csv")) == ["comment", "mood", "prediction", "confidence"]
    assert run(capsys, "evaluate", "--model", model, "--test", tmp_path / "new.csv")[0] == 0
    # A file with our own names needs none, and a name that is given counts.
    write_rows(tmp_path / "own.jsonl", [{"text": "good day", "other": "bad day"}])
    for options, prediction in (((), "praise"), (("--text", "other"), "blame")):
        arguments = ("--model", model, "--input", tmp_path / "own.jsonl", "--output", tmp_path / "o.jsonl", *options)
        assert run(capsys, "predict", *arguments)[0] == 0
        assert json.loads((tmp_path / "o.jsonl").read_text())["prediction"] == prediction


def test_the_column_to_name_is_the_one_with_text(model, tmp_path, capsys):
    write_rows(tmp_path / "rows.jsonl", [{"id": 17, "said": "a long sentence", "n": 3}])
    code, _, err = run(capsys, "predict", "--model", model, "--input", tmp_path / "rows.jsonl", "--output", tmp_path / "out.csv")
    assert code == 2 and "there is no column 'text'" in err and "e.g. --text said" in err


def test_keys_of_later_rows_are_never_dropped_or_overwritten(model, tmp_path, capsys):
    rows = write_rows(tmp_path / "late.jsonl", [{"text": "good day"}, {"text": "bad day", "note": "kept?"}])
    code, _, err = run(capsys, "predict", "--model", model, "--input", rows, "--output", tmp_path / "out.csv")
    assert code == 2 and "line 2" in err and "'note'" in err and not (tmp_path / "out.csv").exists()
    assert run(capsys, "predict", "--model", model, "--input", rows, "--output", tmp_path / "out.jsonl")[0] == 0
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])["note"] == "kept?"
    taken = write_rows(tmp_path / "taken.jsonl", [{"text": "good day"}, {"text": "bad day", "prediction": "mine"}])
    for ending in ("csv", "jsonl"):
        code, _, err = run(capsys, "predict", "--model", model, "--input", taken, "--output", tmp_path / f"taken_out.{ending}")
        assert code == 2 and "line 2" in err and "'prediction'" in err and not (tmp_path / f"taken_out.{ending}").exists()


def test_safe_csv_disarms_formulas_and_leaves_numbers(model, tmp_path, capsys):
    cells = ["=1+1", "+cmd", "-2.5", "-x", "@sum", " =2", "plain", "'=3"]
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "good day", "cell": cell} for cell in cells])
    arguments = ("predict", "--model", model, "--input", rows, "--output", tmp_path / "out.csv")
    assert run(capsys, *arguments)[0] == 0
    assert [row["cell"] for row in csv.DictReader((tmp_path / "out.csv").open())] == cells
    assert run(capsys, *arguments, "--safe-csv")[0] == 0
    safe = [row["cell"] for row in csv.DictReader((tmp_path / "out.csv").open())]
    assert safe == ["'=1+1", "'+cmd", "-2.5", "'-x", "'@sum", "' =2", "plain", "'=3"]


def test_evaluate_warns_of_rows_that_were_learned_from(model, tmp_path, capsys):
    rows = [{"text": "Good day, 3!", "label": "praise"}, {"text": "bad day 5", "label": "blame"}, {"text": "bad night", "label": "blame"}]
    write_rows(tmp_path / "mixed.jsonl", rows)
    code, _, err = run(capsys, "evaluate", "--model", model, "--test", tmp_path / "mixed.jsonl")
    assert code == 0 and "2 of 3 rows were learned from" in err and err.count("\n") == 1
    write_rows(tmp_path / "new.jsonl", rows[2:])
    assert run(capsys, "evaluate", "--model", model, "--test", tmp_path / "new.jsonl")[2] == ""


def test_of_many_training_rows_a_sample_is_kept(monkeypatch):
    monkeypatch.setattr(io, "_MAX_HASHES", 100)
    frame = pd.DataFrame({"text": [f"row {i}" for i in range(2000)]})
    packed = io._pack(io._row_hashes(frame, ["text"]))
    assert packed["rows"] == 2000 and len(packed["hashes"]) < 1100
    note = io._trained_on({"train_rows": packed}, pd.concat([frame, frame.replace("row", "other", regex=True)]), ["text"])
    number = int(note.removeprefix("about ").split()[0].replace(",", ""))
    assert 1500 < number < 2500 and "of 4,000" in note
    assert io._trained_on({"train_rows": packed}, frame.replace("row", "other", regex=True), ["text"]) == ""
    assert io._trained_on({}, frame, ["text"]) == ""


def test_what_is_wrong_with_files_and_folders_is_told_before_keras_is_loaded(model, base, tmp_path):
    (tmp_path / "good.csv").write_text("text,label\n" + "fine day,praise\nbad day,blame\n" * 10)
    (tmp_path / "latin.csv").write_bytes("text,label\nfine,praise\ncaf\xe9,blame\n".encode("latin-1"))
    (tmp_path / "empty.csv").write_text("text,n\nfine,1\n,2\n")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.txt").write_text("mine")
    train = ["finetune", "classify", "--out", "m", "--base", str(base)]
    cases = [
        ([*train, "--train", "none.csv"], "no such file"),
        ([*train, "--train", "latin.csv"], "encoding"),
        ([*train, "--train", "good.csv", "--text", "comment"], "no column 'comment'"),
        ([*train, "--train", "good.csv", "--epochs", "0"], "epochs is 0"),
        ([*train, "--train", "good.csv", "--base", "nosuch"], "pretrained model"),
        ([*train, "--train", "good.csv", "--base", str(model)], "for the task 'classify'"),
        ([*train, "--train", "good.csv", "--out", "kept"], "is no model folder; it is left alone"),
        (["predict", "--model", str(model), "--input", "empty.csv", "--output", "out.csv"], "line 3, column 'text': empty"),
        (["predict", "--model", str(model), "--input", "good.csv", "--output", "out.csv", "--text", "id"], "no column 'id'"),
        (["predict", "--model", str(base), "--input", "good.csv", "--output", "out.csv"], "slm generate"),
        (["evaluate", "--model", str(model), "--test", "empty.csv"], "label"),
    ]
    code = (
        "import contextlib, io, json, sys\nfrom slm_helpers.cli import main\nfound = []\n"
        "for arguments in json.loads(sys.argv[1]):\n    err = io.StringIO()\n"
        "    with contextlib.redirect_stderr(err):\n        code = main(arguments)\n    found.append((code, err.getvalue()))\n"
        "print(json.dumps([found, 'keras' in sys.modules]))"
    )
    argument = json.dumps([arguments for arguments, _ in cases])
    process = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, cwd=tmp_path, check=True)
    found, keras = json.loads(process.stdout)
    assert not keras
    for (arguments, part), (code, err) in zip(cases, found, strict=True):
        assert code == 2 and part in err and err.count("\n") == 1, (arguments, err)
    assert (tmp_path / "kept" / "thesis.txt").read_text() == "mine" and not (tmp_path / "m").exists()


def train_writer(capsys, folder, base, *options):
    write_rows(folder / "diary.jsonl", [{"text": text} for text in LINES])
    arguments = ("--train", folder / "diary.jsonl", "--base", base, "--epochs", 2, "--out", folder / "writer")
    return run(capsys, "finetune", "lm", *arguments, *options)


def test_a_broken_run_is_resumed_and_ends_equal_to_an_unbroken_one(base, tmp_path, capsys, monkeypatch):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    assert train_writer(capsys, tmp_path / "whole", base)[0] == 0

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Task, "save", full_disk)
        code, _, err = train_writer(capsys, tmp_path / "broken", base)
    assert code == 2 and "No space left" in err and err.count("\n") == 1
    assert (tmp_path / "broken" / "writer.checkpoints" / "run.json").is_file() and not (tmp_path / "broken" / "writer").exists()
    code, _, err = train_writer(capsys, tmp_path / "broken", base, "--resume", "--seed", 7)
    assert code == 2 and "belongs to a run with other settings" in err
    assert train_writer(capsys, tmp_path / "broken", base, "--resume")[0] == 0
    assert not (tmp_path / "broken" / "writer.checkpoints").exists()
    weights = [load_model(tmp_path / name / "writer").saved_.model.get_weights() for name in ("whole", "broken")]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_folder_that_is_no_checkpoint_is_left_alone(base, tmp_path, capsys):
    (tmp_path / "writer.checkpoints").mkdir()
    code, _, err = train_writer(capsys, tmp_path, base)
    assert code == 2 and "something else does" in err and (tmp_path / "writer.checkpoints").is_dir()


def test_a_training_that_diverges_keeps_nothing(base, tmp_path, capsys):
    code, _, err = train_writer(capsys, tmp_path, base, "--learning-rate", 1e4)
    assert code == 2 and "diverged" in err and "Lower the learning rate" in err and not (tmp_path / "writer").exists()


def test_a_full_disk_is_told_first(tmp_path, monkeypatch, capsys, base):
    monkeypatch.setattr(io.shutil, "disk_usage", lambda folder: io.shutil._ntuple_diskusage(10, 9, 5 << 20))
    code, _, err = train_writer(capsys, tmp_path, base)
    assert code == 2 and "5 MB free" in err


def test_time_for_reading_and_scoring_is_taken_off_that_of_training(tmp_path, monkeypatch, base):
    write_rows(tmp_path / "diary.jsonl", [{"text": text} for text in LINES])
    seen = []

    def fit(self, frame, **options):
        seen.append(self.max_seconds)
        raise ValueError("stop here")

    monkeypatch.setattr(Task, "fit_frame", fit)
    estimator = io.new_estimator("lm", base=str(base), max_seconds=1000.0)
    with pytest.raises(ValueError, match="stop here"):
        io.finetune(estimator, train=[str(tmp_path / "diary.jsonl")], out=tmp_path / "m", started=io.time.perf_counter() - 500)
    assert 300 < seen[0] <= 350


def test_less_time_than_a_start_takes_is_refused_at_once(tmp_path, base):
    write_rows(tmp_path / "diary.jsonl", [{"text": text} for text in LINES])
    with pytest.raises(ValueError, match=r"max_seconds is 3, but .* takes 15"):
        io.finetune(io.new_estimator("lm", base=str(base), max_seconds=3.0), train=[str(tmp_path / "diary.jsonl")], out=tmp_path / "m")


def test_a_setting_that_a_task_has_not_is_refused_by_its_option():
    for settings, option in (({"ngrams": False}, "--no-ngrams"), ({"class_weight": "balanced"}, "--balanced")):
        with pytest.raises(ValueError, match=rf"task lm has no setting .*leave {option} out"):
            io.new_estimator("lm", **settings)


def test_rows_in_memory_are_sent_to_the_estimator(model):
    for call in (io.evaluate, io.predict):
        with pytest.raises(TypeError, match=r"slm_helpers.load\(folder\)"):
            call(model, pd.DataFrame({"text": ["good"]}))
    with pytest.raises(TypeError, match=r"load\(folder\).predict\(texts\)"):
        io.predict(model, "rows.csv")


def test_a_valid_part_is_dealt_where_a_file_has_train_and_test_only():
    frame = pd.DataFrame({"text": [f"text {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"], "label": ["x", "y"] * 13})
    frame["split"] = ["train"] * 20 + ["test"] * 6
    dealt = io.with_valid(frame)
    assert dealt["split"].value_counts().to_dict() == {"train": 18, "test": 6, "valid": 2}
    assert io.with_valid(dealt) is dealt and (frame["split"] != "valid").all()
