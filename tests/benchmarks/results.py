"""What the benchmarks have in common: options, rows, output; and the README's table of what data/results/benchmarks.csv holds.

`python -m tests.benchmarks.results` writes the table anew. The package is imported late: a benchmark whose clock starts with the
process must not wait for it twice.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

REPO_DIR = Path(__file__).resolve().parents[2]
TABLE = "benchmarks"  # its name in data/results
TASKS = ("training_speed", "layer_speed", "generation_speed", "prediction_speed", "time_to_quality", "scaling")
README_METRICS = {
    "gflop_per_second": "{} thousand million operations a second",
    "tokens_per_second": "{} tokens a second",
    "rows_per_second": "{} texts a second",
    "times_as_fast_as_pytorch": "{} times as fast as PyTorch",
    "times_as_fast": "{} times as fast",
    "times_as_fast_as_keras": "{} times as fast as Keras",
    "cpu_milliseconds": "{} ms of processor time",
    "share_of_peak": "{} of the processor's peak",
    "first_token_seconds": "{} s to the first token",
    "seconds_to_loaded_model": "{} s to the loaded model",
    "seconds_to_first_text": "{} s to the first text",
    "nats_per_character": "{} nats per character",
    "seconds_per_1000_tokens": "{} s per 1,000 tokens",
    "peak_memory_mb": "{} MB at most",
}
README_START, README_END = "<!-- benchmarks: written by make bench -->", "<!-- end of benchmarks -->"


class Parser(argparse.ArgumentParser):
    """Arguments of a benchmark; a mistake is one line on stderr and exit code 2."""

    def __init__(self, name: str, description: str):
        super().__init__(prog=f"python -m tests.benchmarks.{name}", description=description)
        self.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
        self.add_argument("--save", action="store_true", help="put the results into data/results/benchmarks.csv")
        self.add_argument("--seed", type=int, default=42)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong."""
        print(f"{self.prog}: {message} (--help lists the options)", file=sys.stderr)
        raise SystemExit(2)


def row(model: str, metric: str, value: float, **columns: Any) -> dict[str, Any]:
    """Return one result; `columns` are any others of the table."""
    return {"split": "", "model": model, "metric": metric, "value": value} | columns


def median_row(model: str, metric: str, values: Sequence[float], **columns: Any) -> dict[str, Any]:
    """Return the median of repeated measurements with their range, which holds the true median with 94 % at five of them."""
    return row(model, metric, statistics.median(values), ci_low=min(values), ci_high=max(values), **columns)


def report(options: argparse.Namespace, task: str, rows: list[dict[str, Any]], *, dataset: str = "synthetic", **facts: Any) -> None:
    """Print the rows of one benchmark, with `facts` in the JSON object, and save them if asked."""
    from slm_helpers._processor import describe_machine
    from slm_helpers.data.results import write_results

    rows = [{"task": task, "dataset": dataset, "seed": options.seed} | one for one in rows]
    if options.save:
        write_results(TABLE, rows)
    if options.json:
        print(json.dumps({"benchmark": task, "machine": describe_machine()} | facts | {"results": rows}))
        return
    print(f"{task} on {dataset}, {describe_machine()}")
    for one in rows:
        interval = f"  [{show(one['ci_low'])}, {show(one['ci_high'])}]" if "ci_low" in one else ""
        print(f"  {one['model']:<60} {one['metric']:<26} {show(one['value']):>10}{interval}")


def run_script(main: Callable[[list[str] | None], None]) -> None:
    """Run `main` as a script: mistakes come as one line on stderr with exit code 2."""
    try:
        main(None)
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(2) from None


def in_fresh_process(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure by `--one` of a benchmark, in a process of its own: memory that a process has taken is never seen to go down."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--one", json.dumps(settings)]
    found = subprocess.run(command, cwd=REPO_DIR, env=os.environ | {"SLM_PROGRESS": "off"}, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        raise ValueError(f"{name} with {settings} ended with exit code {found.returncode}; its error stands above.")
    return json.loads(found.stdout)


def peak_memory_mb() -> float:
    """Return the highest resident memory of this process so far, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux its peak is handed down from the process that started this one.
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    import psutil

    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


def readme_table(folder: Path | None = None) -> list[str]:
    """Return the lines of the README's table: a line for each network or way, with those results that README_METRICS names."""
    from slm_helpers.data.results import read_results

    table = read_results(TABLE, folder=folder)
    lines = ["| benchmark | data | what | result (range) | machine |", "| --- | --- | --- | --- | --- |"]
    for task in TASKS:
        mine = table[(table["task"] == task) & table["metric"].isin(README_METRICS)]
        for (dataset, model, machine), group in mine.groupby(["dataset", "model", "machine"], sort=False):
            # Of several seeds the last one measured.
            newest = group.drop_duplicates("metric", keep="last")
            found = "; ".join(map(_in_words, newest.to_dict("records")))
            lines.append(f"| {task.replace('_', ' ')} | {dataset} | {model} | {found} | {machine} |")
    return [*lines, "", "Medians and, in brackets, the range of the repeated measurements."]


def show(value: float) -> str:
    """Return a number as a reader wants it: 19,960 and 2.05 and 0.0132."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def update_readme(readme: Path = REPO_DIR / "README.md", folder: Path | None = None) -> None:
    """Write the table between its marks in the README."""
    from slm_helpers.reports.index import write_between

    write_between(readme, README_START, README_END, readme_table(folder))


def _in_words(one: dict[str, Any]) -> str:
    interval = "" if math.isnan(one["ci_low"]) else f" ({show(one['ci_low'])} to {show(one['ci_high'])})"
    # The nats of one text differ in the third decimal place, and that is much.
    value = f"{one['value']:.3f}" if one["metric"] == "nats_per_character" else show(one["value"])
    return README_METRICS[one["metric"]].format(value) + interval


if __name__ == "__main__":
    update_readme()
