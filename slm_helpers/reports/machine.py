"""Is this machine ready? Versions, cores, memory, disk, backend, bundled files, and five seconds of training."""

import importlib.metadata
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass

from slm_helpers._paths import REPO_DIR

import numpy as np

MIN_MEMORY_GB, MIN_DISK_GB = 3.0, 1.0
MIN_TOKENS_PER_SECOND = 2000  # half of what two slow cores reach; below it the pages overrun their budgets


@dataclass
class Check:
    """One line of `slm check`."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def check_machine() -> list[Check]:
    """Run all checks; the training step comes last and takes about ten seconds with its start."""
    checks = [_python(), _versions(), _cores(), _memory(), _disk(), _files()]
    return [*checks, *_training()]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", (3, 11) <= sys.version_info[:2] <= (3, 13), version, "Use Python 3.11, 3.12 or 3.13, then `make setup`.")


def _versions() -> Check:
    """Compare what is installed with the pins of requirements.lock."""
    lock = REPO_DIR / "requirements.lock"
    if not lock.exists():
        return Check("packages", True, "no requirements.lock here, nothing to compare with")
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    wrong = []
    for name in (
        "keras",
        "tensorflow-cpu",
        "numpy",
        "pandas",
        "scikit-learn",
        "tokenizers",
        "seaborn",
        "jupyterlab",
        "papermill",
        "nbconvert",
    ):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found not in pins.get(name, {found}) and not (name == "tensorflow-cpu" and sys.platform == "darwin"):
            wrong.append(f"{name} {found} (pinned {', '.join(sorted(pins[name]))})")
    return Check("packages", not wrong, "; ".join(wrong) or "as pinned", "Run `make setup`, or pip install -r requirements.lock.")


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", cores >= 2, str(cores), "One core works, but the pages take about twice their budget.")


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / 1e9
    return Check(
        "memory",
        free >= MIN_MEMORY_GB,
        f"{free:.1f} GB free",
        f"Close programs until {MIN_MEMORY_GB:.0f} GB are free; a page needs up to 2 GB.",
    )


def _disk() -> Check:
    free = shutil.disk_usage(REPO_DIR).free / 1e9
    return Check("disk", free >= MIN_DISK_GB, f"{free:.1f} GB free", f"Free {MIN_DISK_GB:.0f} GB for models and reports.")


def _files() -> Check:
    from slm_helpers.data.bundled import check_bundled

    try:
        table = check_bundled()
    except FileNotFoundError as error:
        return Check("bundled texts", False, "none", str(error))
    bad = table.loc[~table["ok"], "file"].tolist()
    return Check(
        "bundled texts",
        not bad,
        f"{len(table)} files intact" if not bad else f"changed or missing: {', '.join(bad)}",
        "Restore data/corpora with `git checkout -- data/corpora`.",
    )


def _training() -> list[Check]:
    started = time.perf_counter()
    try:
        from slm_helpers._backend import keras
        from slm_helpers.models.language_model import build_language_model
        from slm_helpers.training.config import TrainConfig
        from slm_helpers.training.streams import fit_model
    except ImportError as error:
        return [Check("backend", False, str(error), "Run `make setup`, or set KERAS_BACKEND to an installed backend (tensorflow, jax).")]
    name = keras.backend.backend()
    loaded = time.perf_counter() - started
    backend = Check(
        "backend",
        name == "tensorflow",
        f"{name}, Keras {keras.__version__}, loaded in {loaded:.1f} s",
        "Unset KERAS_BACKEND: TensorFlow is fastest here.",
    )
    model = build_language_model(2048, embedding_dim=128, units=256)
    token_ids = np.random.default_rng(0).integers(3, 2048, 200_000)
    config = TrainConfig(epochs=100, batch_size=32, window=64, eval_steps=10, max_seconds=5.0)
    history = fit_model(model, token_ids, config=config)
    # The first steps compile; the later ones tell the speed.
    steps, seconds = np.diff(history["step"].iloc[[0, -1]])[0], np.diff(history["seconds"].iloc[[0, -1]])[0]
    speed = steps * 32 * 64 / seconds
    found = f"{speed:,.0f} tokens per second (GRU, 256 units)"
    return [
        backend,
        Check(
            "training step",
            bool(speed >= MIN_TOKENS_PER_SECOND),
            found,
            "Close other programs; use a machine with AVX2 and two free cores.",
        ),
    ]
