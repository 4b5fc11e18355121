"""What holds for every task from the shell: a stopped training goes on and ends the same, and the model is used without Keras."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from slm_helpers.cli import main
from slm_helpers.data.audio import write_wav
from slm_helpers.data.simulated import simulate_students
from slm_helpers.models.saved import load_model
from slm_helpers.tasks import TASKS, data_to_text, task_class
from slm_helpers.training.loop import TrainingRun
from tests.toys import passages, toy_pairs, toy_rows

import numpy as np
import pandas as pd
import pytest

COLUMNS = {"listen": ("--sound", "path", "--label", "label")}


def rows_of(task, folder):
    """Return few rows that a task can learn from."""
    rng = np.random.default_rng(0)
    if task in ("classify", "multilabel", "lm"):
        words = ["".join(rng.choice(list("aeioubdklmnprst"), 5)) for _ in range(60)]
        texts = [" ".join([*rng.choice(words, 6), word]) for _ in range(24) for word in ("good", "bad")]
        frame = pd.DataFrame({"text": texts, "label": ["praise", "blame"] * 24})
        if task == "multilabel":
            return frame.assign(labels=frame["label"] + ["", ";odd"] * 24).drop(columns="label")
        return frame if task == "classify" else frame[["text"]]
    if task == "tag":
        return toy_rows(48)
    if task == "command":
        rows = toy_rows(48)
        return rows.assign(intent=["walk" if "walks" in tokens else "sleep" for tokens in rows["tokens"]])
    if task in ("answer", "ask"):
        return passages(40, none=task == "answer").drop(columns="answer_start")
    if task == "translate":
        return toy_pairs(("es",)).sample(frac=1, random_state=0)
    if task == "write":
        things = [(name, price) for name in ("Aurora", "Boreas", "Cleo", "Dune", "Eos") for price in range(20, 36)]
        rows = [(f"name: {name} | price: {price} euros", f"{name} costs {price} euros.") for name, price in things]
        return pd.DataFrame(rows, columns=["source", "target"])
    if task == "trace":
        return simulate_students(40, seed=5).drop(columns=["split", "mastered"])
    rows = []  # listen
    for i in range(40):
        wave = np.sin(2 * np.pi * (300, 1800)[i % 2] * np.arange(3200) / 16000) * rng.uniform(0.2, 0.6)
        write_wav(folder / f"{i}.wav", wave)
        rows.append((str(folder / f"{i}.wav"), ("low", "high")[i % 2]))
    return pd.DataFrame(rows, columns=["path", "label"])


def finetune(task, rows, out, *more):
    base = () if task in ("trace", "listen") else ("--base", "none")
    options = (*COLUMNS.get(task, ()), *base, "--epochs", "1", "--batch-size", "2" if task == "lm" else "8", "--seed", "3", *more)
    return main(["finetune", task, "--train", str(rows), "--out", str(out), *options])


@pytest.fixture(scope="module", params=TASKS)
def trained(request, tmp_path_factory):
    """Return a task, a file of rows, and the folder of a model that learned from them in one go."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_to_text, "SCRATCH", {"cell": "gru", "embedding_dim": 16, "units": 24, "num_layers": 1})
        patch.setattr(data_to_text, "SCRATCH_VOCAB_SIZE", 300)
        rows_of(request.param, folder).to_csv(folder / "rows.csv", index=False)
        assert finetune(request.param, folder / "rows.csv", folder / "whole") == 0
        yield request.param, folder / "rows.csv", folder / "whole"


def test_a_stopped_training_goes_on_and_ends_as_an_unbroken_one(trained, tmp_path, capsys, monkeypatch):
    task, rows, whole = trained
    steps, step = [], TrainingRun.train_step

    def stop_after_third(run, num_steps):
        step(run, num_steps)
        steps.append(run.step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingRun, "train_step", stop_after_third)
        code = finetune(task, rows, tmp_path / "broken")
    err = capsys.readouterr().err
    assert code == 130 and "--resume" in err and not (tmp_path / "broken").exists(), err
    steps.clear()
    monkeypatch.setattr(TrainingRun, "train_step", lambda run, num_steps: (step(run, num_steps), steps.append(run.step)))
    code = finetune(task, rows, tmp_path / "broken", "--resume")
    assert code == 0 and steps and steps[0] == 4, (steps[:1], capsys.readouterr().err)
    weights = [load_model(folder).model.get_weights() for folder in (whole, tmp_path / "broken")]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def commands(task: str, rows: Path, model: Path, engine: str, out: Path) -> list[list[str]]:
    """Return the commands that predict rows, where the task can, and score them."""
    columns = [*COLUMNS.get(task, ()), "--engine", engine]
    score = ["evaluate", "--model", str(model), "--test", str(rows), "--json", *columns]
    predict = ["predict", "--model", str(model), "--input", str(rows), "--output", str(out), *COLUMNS.get(task, ())[:2], "--engine", engine]
    return [score] if task_class(task).no_predict else [predict, score]


def test_a_trained_model_is_scored_and_predicts_without_keras_as_with_it(trained, tmp_path, capsys):
    found, expected = tmp_path / "found.csv", tmp_path / "expected.csv"
    code = f"""
import sys
missing = dict.fromkeys(["keras", "tensorflow", "scipy", "sklearn", "matplotlib", "sacrebleu", "pyarrow", "psutil"])
sys.modules |= missing  # an import of them fails
from slm_helpers.cli import main
codes = []
for command in {commands(*trained, "onnx", found)!r}:
    if command[0] == "evaluate":  # scores need the others again
        for name in [*missing][2:]:
            del sys.modules[name]
    codes.append(main(command))
sys.exit(max(codes))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ.copy())
    assert process.returncode == 0, process.stderr[-2000:]
    scores = json.loads(process.stdout.splitlines()[-1])["metrics"]
    capsys.readouterr()
    assert max(main(command) for command in commands(*trained, "keras", expected)) == 0
    for name, values in json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"].items():
        assert scores[name] == pytest.approx(values, abs=2e-3, nan_ok=True), name
    if expected.exists():
        ours, theirs = pd.read_csv(found).fillna(""), pd.read_csv(expected).fillna("")
        assert list(ours) == list(theirs) and (ours["prediction"] == theirs["prediction"]).mean() > 0.95
