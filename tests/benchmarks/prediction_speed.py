"""How many short texts a second `slm predict` classifies, and whether a longer file takes more memory.

Each measurement is a fresh process that reads a CSV file and writes another one. The clock starts with the file, after the imports;
loading and compiling the model count. The model is the base with a head and n-grams beside it; how good it is does not matter here.
"""

import argparse
import csv
import json
import statistics
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tests.benchmarks.results import Parser, in_fresh_process, median_row, peak_memory_mb, report, row, run_script


def main(arguments: list[str] | None = None) -> None:
    """Measure and report."""
    options = parse(arguments)
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model, size = make_model(Path(folder) / "model", options)
        for num_words in options.words:
            for multiple in options.multiples if num_words == options.words[0] else [1]:
                num_rows = multiple * options.rows
                path = write_texts(Path(folder) / f"{num_words}_{num_rows}.csv", num_words=num_words, num_rows=num_rows)
                found = [in_fresh_process("prediction_speed", {"model": str(model), "source": str(path)}) for _ in range(options.rounds)]
                name = f"{num_rows:,} texts of {num_words} words"
                rows.append(median_row(name, "rows_per_second", [one["rows_per_second"] for one in found], num_parameters=size))
                rows.append(row(name, "peak_memory_mb", statistics.median(one["peak_memory_mb"] for one in found), num_parameters=size))
    report(options, "prediction_speed", rows, dataset="bundled sentiment")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = Parser("prediction_speed", __doc__.split("\n")[0])
    parser.add_argument("--random", action="store_true", help="a small network without a base")
    parser.add_argument("--rows", type=int, default=12_000, help="texts in the smaller file")
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 4], help="sizes of the file, at the first number of words")
    parser.add_argument("--words", type=int, nargs="+", default=[10, 20], help="words in a text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # settings of one measurement, in its own process
    return parser.parse_args(arguments)


def make_model(folder: Path, options: argparse.Namespace) -> tuple[Path, int]:
    """Save a classifier that has learned a little from the bundled opinions; returns its folder and number of weights."""

    from slm_helpers.data.loading import load_dataset
    from slm_helpers.models.saved import load_pretrained, save_model
    from slm_helpers.tasks.text_classification import TextClassifier

    frame = load_dataset("sentiment").groupby("split").head(64)
    base = None if options.random else load_pretrained("slm-base-en")
    saved = TextClassifier(base, epochs=1, seed=options.seed).fit_frame(frame).saved_
    save_model(folder, saved.model, tokenizer=saved.tokenizer, task="classify", labels=saved.labels, settings=saved.settings)
    return folder, saved.model.count_params()


def write_texts(path: Path, *, num_words: int, num_rows: int) -> Path:
    """Write the words of the bundled opinions, one after the other, as texts of so many words."""
    from slm_helpers.data.loading import load_dataset

    words = cycle(" ".join(load_dataset("sentiment")["text"]).split())
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([" ".join(islice(words, num_words))] for _ in range(num_rows))
    return path


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Predict one file."""
    from slm_helpers.tasks.io import predict

    found = predict(settings["model"], settings["source"], settings["source"].replace(".csv", ".out.csv"))
    return {"rows_per_second": found["rows_per_second"], "peak_memory_mb": peak_memory_mb()}


if __name__ == "__main__":
    run_script(main)
