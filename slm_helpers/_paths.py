"""Where the checkout keeps its data."""

from pathlib import Path

DATA_DIR = Path(__file__).resolve().parents[1] / "data"


RUNS_DIR = DATA_DIR.parent / "runs"  # models and checkpoints that pages leave behind; not committed
