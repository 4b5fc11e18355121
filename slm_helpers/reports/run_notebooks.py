"""Run notebooks, each in a process of its own, and write a report of each as soon as it is done."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from slm_helpers._checks import check_choice, check_positive, printable
from slm_helpers._paths import NOTEBOOKS_DIR, REPO_DIR, REPORTS_DIR, check_checkout, is_quick
from slm_helpers._progress import ProgressLine
from slm_helpers.reports.index import NotebookResult, notebook_headline, notebook_title, write_report


def find_notebooks(numbers: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks with these two-digit numbers, in the order of their names; all of them if none is given."""
    paths = sorted(check_checkout(NOTEBOOKS_DIR).glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"{NOTEBOOKS_DIR} holds no numbered notebook.")
    chosen = {number.zfill(2) for number in numbers}
    unknown = sorted(chosen - {path.name[:2] for path in paths})
    if unknown:
        raise ValueError(f"There is no notebook {unknown[0]}. Notebooks: {', '.join(path.name[:2] for path in paths)}.")
    return [path for path in paths if not chosen or path.name[:2] in chosen]


def run_notebooks(
    notebooks: Sequence[Path],
    *,
    data: str = "bundled",
    jobs: int = 1,
    out_dir: Path = REPORTS_DIR,
    on_line: Callable[[str], None] = print,
) -> list[NotebookResult]:
    """Execute each notebook in its own process and write `NN_name.html` and `index.html` to `out_dir`.

    A notebook that fails does not stop the others. The index also lists reports of earlier runs. With SLM_QUICK=1 in the environment
    the notebooks run in their quick sizes. When the run is broken off, its processes end with it and the reports so far stay.

    Args:
        notebooks: Paths.
        data: "bundled", or "public": then each notebook's parameters are set to the public counterpart that its metadata names.
        jobs: Notebooks run side by side.
        out_dir: Where the HTML goes.
        on_line: Told one line a notebook when it is done.
    """
    check_choice(("bundled", "public"), data=data)
    check_positive(jobs=jobs)
    out_dir.mkdir(parents=True, exist_ok=True)
    results: list[NotebookResult] = []
    running: dict[subprocess.Popen, str] = {}  # what each is doing
    with ProgressLine(after_seconds=0) as line, ThreadPoolExecutor(jobs) as pool:

        def tell(process: subprocess.Popen, doing: str) -> None:
            running[process] = doing
            line.update(printable("; ".join(running.values())))

        futures = [pool.submit(_run_one, path, data, out_dir, tell, running.pop) for path in notebooks]
        try:
            for future in as_completed(futures):
                results.append(result := future.result())
                line.close()
                told = f"[{len(results)}/{len(notebooks)}] {result.name:<28} {result.status:<6} {result.seconds:6.1f} s"
                on_line(printable(f"{told} {result.peak_memory_mb:6.0f} MB" + (f"  {result.error}" if result.error else "")))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                _end(process)
            raise
    return sorted(results, key=lambda result: result.name)


def _run_one(
    path: Path, data: str, out_dir: Path, tell: Callable[[subprocess.Popen, str], None], forget: Callable[[subprocess.Popen], object]
) -> NotebookResult:
    """Run one notebook in a process of its own and write its report; `tell` hears what the process does, until `forget`."""
    import nbformat

    quick = is_quick()
    with tempfile.TemporaryDirectory() as folder:
        executed, log = Path(folder) / path.name, Path(folder) / "stderr"
        started = time.perf_counter()
        command = [sys.executable, "-m", "slm_helpers.reports.execute", str(path), str(executed), "--data", data, *["--quick"] * quick]
        with open(log, "w", encoding="utf-8") as stderr:
            environment = os.environ | {"SLM_PROGRESS": "off"}
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, cwd=REPO_DIR)
        tell(process, f"{path.stem} starts")
        watch = _Watch(process, lambda cell: tell(process, f"{path.stem}: cell {cell}, {time.perf_counter() - started:.0f} s"))
        error = watch.follow()
        forget(process)
        seconds = time.perf_counter() - started
        if error is None:  # it had no time to say why it ended
            lines = log.read_text(encoding="utf-8").strip().splitlines()
            error = lines[-1] if lines else f"the process ended with code {process.returncode}"
        notebook = nbformat.read(executed if executed.exists() else path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
    title, shows = notebook_title(notebook)
    result = NotebookResult(
        name=path.stem,
        title=title,
        shows=shows,
        status="failed" if error else "ok",
        seconds=round(seconds, 1),
        peak_memory_mb=round(watch.peak_memory_mb),
        headline="" if error else notebook_headline(notebook),
        error=error,
        data=f"{data}, quick" if quick else data,
    )
    write_report(result, notebook, out_dir)
    return result


def _end(process: subprocess.Popen) -> None:
    """End a process and all that it has started: a kernel would live on without it."""
    import psutil

    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.terminate()
        except psutil.NoSuchProcess:
            continue
    for one in psutil.wait_procs(family, timeout=3)[1]:
        one.kill()


class _Watch:
    """Follow a process that executes a notebook: at which cell it is, and the highest resident memory of its children."""

    def __init__(self, process: subprocess.Popen, on_tick: Callable[[str], None]):
        self.peak_memory_mb = 0.0  # of the kernel and what it starts
        self._process, self._on_tick, self._cell, self._stop = process, on_tick, "0", threading.Event()

    def follow(self) -> str | None:
        """Read what the process says until it ends; returns which cell failed and how, "" if none did, None if it did not say."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        verdict = None
        for line in self._process.stdout:
            kind, *values = json.loads(line)
            if kind == "cell":
                self._cell = "{} of {}".format(*values)
            else:
                verdict = values[0]
        self._process.wait()
        self._stop.set()
        thread.join()
        return verdict

    def _look(self) -> None:
        import psutil

        while not self._stop.wait(0.1):
            self._on_tick(self._cell)
            try:
                children = psutil.Process(self._process.pid).children(recursive=True)
                self.peak_memory_mb = max(self.peak_memory_mb, sum(child.memory_info().rss for child in children) / 1e6)
            except psutil.Error:
                continue  # it ended between two measurements
