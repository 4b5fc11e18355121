"""Training tokens per second: `fit_model` beside the same network in PyTorch, and the share of the processor's peak it reaches.

Both sides train embedding, one recurrent layer, projection, tied output, cross-entropy and Adam, with the gradients clipped by
their norm, on random tokens. Each side is a process of its own, and they take turns.

PyTorch is found where this runs (`pip install torch==2.13.0`; on Linux from PyTorch's CPU index, or gigabytes of GPU code come
along), or in the interpreter that --torch-python names; without it only our side is measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.results import REPO_DIR, Parser, median_row, report, row, run_script

OURS, TORCH = Path(__file__).with_name("keras_training.py"), Path(__file__).with_name("torch_training.py")


def main(arguments: list[str] | None = None) -> None:
    """Measure and report."""
    options = parse(arguments)
    torch = find_torch(options.torch_python)
    if torch is None:
        print("training_speed: PyTorch is not installed here, so only our side is measured (see --torch-python)", file=sys.stderr)
    sides = {"slm_helpers": [sys.executable, str(OURS)]} | ({"PyTorch": [torch, str(TORCH)]} if torch else {})
    rows, versions = [], {}
    peaks = measure_peaks(options)
    for name, values in peaks.items():
        rows.append(median_row(f"matrix product, {name}", "gflop_per_second", [value / 1e9 for value in values]))
    for cell in options.cells:
        for precision in options.precisions:
            found, facts = race(sides, settings_of(options, cell, precision), options)
            versions |= {side: fact["version"] for side, fact in facts.items()}
            rows += compare(f"{cell.upper()} {precision}", found, facts, peaks[f"TensorFlow {precision}"], options, cell)
    shape = f"{options.batch_size}x{options.window} random tokens of {options.vocab_size}"
    report(options, "training_speed", rows, dataset=shape, versions=versions, torch=torch is not None, threads=options.threads)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = Parser("training_speed", __doc__.split("\n")[0])
    parser.add_argument("--torch-python", help="a Python interpreter that has PyTorch (default: this one)")
    parser.add_argument("--cells", nargs="+", choices=("gru", "lstm"), default=["gru", "lstm"])
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side; the median counts")
    parser.add_argument("--steps", type=int, default=8, help="training steps in a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--embedding-dim", type=int, default=256)
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64, help="windows")
    parser.add_argument("--window", type=int, default=64, help="tokens")
    parser.add_argument("--peak-size", type=int, default=3072, help="rows of the square matrices that measure the peak")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace, cell: str, precision: str) -> dict[str, Any]:
    """Return what both sides are told."""
    names = ("steps", "threads", "vocab_size", "embedding_dim", "units", "batch_size", "window", "seed")
    settings = {name: getattr(options, name) for name in names}
    num_tokens = max(200_000, 4 * options.batch_size * options.window)
    return settings | {"cell": cell, "precision": precision, "num_tokens": num_tokens, "warm_up_steps": 3}


def find_torch(python: str | None) -> str | None:
    """Return an interpreter that has PyTorch: the given one (an error if it has none), else this one, else None."""
    found = subprocess.run([python or sys.executable, "-c", "import torch"], capture_output=True, text=True, check=False)
    if found.returncode and python:
        raise ValueError(
            f"{python} cannot import torch ({(found.stderr.splitlines() or ['no message'])[-1]}). Install torch==2.13.0 there."
        )
    return None if found.returncode else python or sys.executable


def race(sides: dict[str, list[str]], settings: dict[str, Any], options: argparse.Namespace) -> tuple[dict, dict]:
    """Let the sides take turns; returns by side the tokens per second of each turn, and what it says of itself."""
    workers = {side: Worker(command, settings) for side, command in sides.items()}
    try:
        facts = {side: worker.answer() for side, worker in workers.items()}
        tokens = options.steps * options.batch_size * options.window
        found: dict[str, list[float]] = {side: [] for side in workers}
        for _ in range(options.rounds):
            for side, worker in workers.items():
                found[side].append(tokens / worker.ask()["seconds"])
    finally:
        for worker in workers.values():
            worker.close()
    return found, facts


def measure_peaks(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return operations per second of large matrix products by library and precision, a value each round."""
    worker = Worker([sys.executable, str(OURS)], {"peak": True, "size": options.peak_size, "steps": 5, "threads": options.threads})
    try:
        worker.answer()
        rounds = [worker.ask() for _ in range(3)]
    finally:
        worker.close()
    return {name: [one[name] for one in rounds] for name in rounds[0]}


def compare(name: str, found: dict, facts: dict, peaks: list[float], options: argparse.Namespace, cell: str) -> list[dict[str, Any]]:
    """Return the rows of one cell in one precision."""
    rows = [
        median_row(f"{name}, {side}", "tokens_per_second", values, num_parameters=facts[side]["num_parameters"])
        for side, values in found.items()
    ]
    operations = operations_per_token(cell, options.vocab_size, options.embedding_dim, options.units)
    speed = statistics.median(found["slm_helpers"])
    rows.append(row(f"{name}, slm_helpers", "share_of_peak", speed * operations / max(peaks)))
    if "PyTorch" in found:
        # Turn by turn: what slows the machine down for a while slows both.
        ratios = [ours / theirs for ours, theirs in zip(found["slm_helpers"], found["PyTorch"], strict=True)]
        rows.append(median_row(f"{name}, slm_helpers", "times_as_fast_as_pytorch", ratios))
    return rows


def operations_per_token(cell: str, vocab_size: int, embedding_dim: int, units: int) -> int:
    """Return 6 times the weights in matrix products: a multiplication and an addition each, forward, and twice that backward."""
    gates = {"gru": 3, "lstm": 4}[cell]
    projection = units * embedding_dim if units != embedding_dim else 0
    return 6 * (gates * units * (embedding_dim + units) + projection + embedding_dim * vocab_size)


class Worker:
    """A process that answers each line with one JSON line."""

    def __init__(self, command: list[str], settings: dict[str, Any]):
        threads = str(settings["threads"])
        names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        paths = os.pathsep.join(path for path in (str(REPO_DIR), os.environ.get("PYTHONPATH", "")) if path)
        self.process = subprocess.Popen(
            [*command, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict.fromkeys(names, threads) | {"SLM_PROGRESS": "off", "PYTHONPATH": paths},
        )

    def ask(self) -> dict[str, Any]:
        """Ask for one round and wait for its answer."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for a line."""
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"{self.process.args[1]} ended with exit code {self.process.wait()}; its error stands above.")
        return json.loads(line)

    def close(self) -> None:
        """Let the process end by itself, or end it."""
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


if __name__ == "__main__":
    run_script(main)
