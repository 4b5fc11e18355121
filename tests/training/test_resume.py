"""A run of any kind that is cut off ends with the weights of an unbroken one."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from slm_helpers.training.loop import TrainingInterrupted
from tests.training.resume_run import CHECKPOINT_STEPS, KINDS, NUM_STEPS, SendSignal, run

import keras
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from safetensors import safe_open

REPO_DIR = Path(__file__).parents[2]


def step_of_checkpoint(folder: Path) -> int:
    with safe_open(folder / "checkpoint.safetensors", framework="numpy") as file:
        return json.loads(file.metadata()["state"])["step"]


def start(kind: str, folder: Path, name: str, step: int) -> subprocess.Popen:
    paths = os.pathsep.join([str(REPO_DIR), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tests.training.resume_run", kind, str(folder), name, str(step)]
    return subprocess.Popen(command, cwd=REPO_DIR, env=os.environ | {"PYTHONPATH": paths})


@functools.cache
def unbroken(kind: str) -> tuple[keras.Model, pd.DataFrame]:
    return run(kind)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[str, Path]:
    """Folders of runs that SIGKILL ended after step 10, two steps after a checkpoint and in the middle of an epoch."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    processes = [start(kind, folder, "SIGKILL", 10) for kind, folder in folders.items()]
    assert [process.wait(900) for process in processes] == [-signal.SIGKILL] * 3
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_kill_the_weights_are_those_of_an_unbroken_run(killed, kind):
    assert step_of_checkpoint(killed[kind]) == 8
    model, history = run(kind, killed[kind], seed=99)  # other first weights, other dropout: all comes from the checkpoint
    whole, whole_history = unbroken(kind)
    for ours, theirs in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert whole_history["step"].max() == NUM_STEPS[kind]
    assert history[["step", "split"]].equals(whole_history[["step", "split"]])
    np.testing.assert_allclose(history["loss_nats"], whole_history["loss_nats"], atol=1e-6)


def test_ctrl_c_says_where_it_stopped_and_goes_on_exactly(tmp_path):
    message = r"stopped after step 7 of 15; its weights are kept\. Run it again to go on exactly there"
    with pytest.raises(TrainingInterrupted, match=message) as stop:
        run("rows", tmp_path, callbacks=[SendSignal(signal.SIGINT, 7)])
    assert step_of_checkpoint(tmp_path) == 7
    assert stop.value._render_traceback_() == [str(stop.value)]
    assert stop.value.history["step"].tolist() == [5, 5]
    model, _ = run("rows", tmp_path, seed=99)
    for ours, theirs in zip(model.get_weights(), unbroken("rows")[0].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_sigterm_ends_the_process_after_the_step_and_a_checkpoint(tmp_path):
    assert start("rows", tmp_path, "SIGTERM", 6).wait(900) == -signal.SIGTERM
    assert step_of_checkpoint(tmp_path) == 6 != CHECKPOINT_STEPS
    assert run("rows", tmp_path)[1]["step"].max() == NUM_STEPS["rows"]


def test_a_notebook_shows_one_line_and_no_traceback(capsys):
    shell = InteractiveShell()
    code = "from slm_helpers.training.loop import TrainingInterrupted\nraise TrainingInterrupted('Training stopped after step 7.', None)"
    assert shell.run_cell(code).error_in_exec.args == ("Training stopped after step 7.",)
    assert capsys.readouterr().out.strip() == "Training stopped after step 7."
