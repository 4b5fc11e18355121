"""`slm finetune TASK --resume`, for every task: stopped in the middle of a training, it ends with the weights of an unbroken run."""

import os
import signal

from slm_helpers.cli import main
from slm_helpers.data.audio import write_wav
from slm_helpers.data.simulated import simulate_students
from slm_helpers.models.saved import load_model
from slm_helpers.tasks import TASKS, data_to_text
from slm_helpers.training.loop import TrainingRun
from tests.toys import passages, toy_pairs, toy_rows

import numpy as np
import pandas as pd
import pytest


def rows_of(task, folder):
    """Return few rows that a task can learn from."""
    rng = np.random.default_rng(0)
    if task in ("classify", "lm"):
        words = ["".join(rng.choice(list("aeioubdklmnprst"), 5)) for _ in range(60)]
        texts = [" ".join([*rng.choice(words, 6), word]) for _ in range(24) for word in ("good", "bad")]
        frame = pd.DataFrame({"text": texts, "label": ["praise", "blame"] * 24})
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


@pytest.mark.parametrize("task", TASKS)
def test_a_stopped_training_goes_on_and_ends_as_an_unbroken_one(task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data_to_text, "SCRATCH", {"cell": "gru", "embedding_dim": 16, "units": 24, "num_layers": 1})
    monkeypatch.setattr(data_to_text, "SCRATCH_VOCAB_SIZE", 300)
    frame = rows_of(task, tmp_path)
    frame.to_csv(tmp_path / "rows.csv", index=False)

    def finetune(out, *more):
        base = () if task in ("trace", "listen") else ("--base", "none")
        columns = ("--sound", "path", "--label", "label") if task == "listen" else ()
        options = (*columns, *base, "--epochs", "1", "--batch-size", "2" if task == "lm" else "8", "--seed", "3", *more)
        code = main([*("finetune", task, "--train", str(tmp_path / "rows.csv"), "--out", str(tmp_path / out)), *options])
        return code, capsys.readouterr().err

    code, err = finetune("whole")
    assert code == 0, err
    steps, step = [], TrainingRun.train_step

    def stop_after_third(run, num_steps):
        step(run, num_steps)
        steps.append(run.step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingRun, "train_step", stop_after_third)
        code, err = finetune("broken")
    assert code == 130 and "--resume" in err and not (tmp_path / "broken").exists(), err
    steps.clear()
    monkeypatch.setattr(TrainingRun, "train_step", lambda run, num_steps: (step(run, num_steps), steps.append(run.step)))
    code, err = finetune("broken", "--resume")
    assert code == 0 and steps and steps[0] == 4, (steps[:1], err)
    weights = [load_model(tmp_path / name).model.get_weights() for name in ("whole", "broken")]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
