"""The folders of the checkout. An installed wheel holds the code alone: `check_checkout` says so where data is asked for."""

import os
import tempfile
from pathlib import Path


def is_quick() -> bool:
    """Return whether the environment asks for notebooks in their quick sizes (SLM_QUICK=1)."""
    return os.environ.get("SLM_QUICK", "") not in ("", "0")


REPO_DIR = Path(__file__).resolve().parents[1]
NOTEBOOKS_DIR = REPO_DIR / "notebooks"
DATA_DIR = REPO_DIR / "data"
CORPORA_DIR = DATA_DIR / "corpora"  # the bundled texts
PRETRAINED_DIR = DATA_DIR / "pretrained"  # one model folder a model
RESULTS_DIR = DATA_DIR / "results"  # measured figures, one CSV a subject
RUNS_DIR = REPO_DIR / "runs"  # models and checkpoints that notebooks leave behind; not committed
if is_quick():
    RUNS_DIR /= "quick"  # these models are worth nothing, and must not stand in for others
REPORTS_DIR = REPO_DIR / "reports"  # HTML of executed notebooks; not committed


def cache_dir() -> Path:
    """Return the folder for what can be made anew: SLM_CACHE_DIR, else ~/.cache/slm_helpers."""
    try:
        return Path(os.environ.get("SLM_CACHE_DIR") or Path.home() / ".cache" / "slm_helpers")
    except RuntimeError:  # no HOME, and a user that the system does not know
        return Path(tempfile.gettempdir()) / ".cache" / "slm_helpers"


def check_checkout(folder: Path) -> Path:
    """Return `folder`, one of the checkout's; raises FileNotFoundError, with the way out, if the package was installed without it."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing: this installation of slm_helpers holds the code alone. Data, pretrained models and notebooks are in "
            "the repository: clone it and run `pip install --no-deps --editable .` in the clone. A model folder can also be named by path."
        )
    return folder
