"""Run pages in fresh kernels and make HTML of them: one file a page and an index, readable with the network off."""

import html
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from slm_helpers._checks import check_choice, check_positive
from slm_helpers._paths import NOTEBOOKS_DIR, REPO_DIR, REPORTS_DIR, check_checkout
from slm_helpers.data.files import atomic_write

_README_START, _README_END = "<!-- pages: written by slm run --update-readme -->", "<!-- end of pages -->"


@dataclass
class PageResult:
    """What came of running one page."""

    name: str  # file name without ending
    title: str
    shows: str  # the sentence under the title
    status: str  # "ok" or "failed"
    seconds: float
    peak_memory_mb: float
    headline: str = ""  # Markdown of the cell tagged "headline"
    error: str = ""  # which cell, and its error
    data: str = "bundled"


def find_pages(numbers: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks with these two-digit numbers, in the order of their names; all of them if none is given."""
    pages = sorted(check_checkout(NOTEBOOKS_DIR).glob("[0-9][0-9]_*.ipynb"))
    if not pages:
        raise FileNotFoundError(f"{NOTEBOOKS_DIR} holds no numbered notebook.")
    wanted = {n.zfill(2) for n in numbers}
    unknown = sorted(wanted - {page.name[:2] for page in pages})
    if unknown:
        raise ValueError(f"There is no page {unknown[0]}. Pages: {', '.join(page.name[:2] for page in pages)}.")
    return [page for page in pages if not wanted or page.name[:2] in wanted]


def run_pages(
    pages: Sequence[Path],
    *,
    data: str = "bundled",
    jobs: int = 1,
    out_dir: Path = REPORTS_DIR,
    on_line: Callable[[str], None] = print,
) -> list[PageResult]:
    """Execute each page in its own process and write `NN_name.html` and `index.html` to `out_dir`.

    A page that fails does not stop the others. The index also lists pages of earlier runs.

    Args:
        pages: Notebooks.
        data: "bundled", or "public": then each page's parameters are set to the public counterpart that its metadata names.
        jobs: Pages run side by side.
        out_dir: Where the HTML goes.
        on_line: Told one line a page when it is done.
    """
    check_choice(("bundled", "public"), data=data)
    check_positive(jobs=jobs)
    out_dir.mkdir(parents=True, exist_ok=True)
    done: list[PageResult] = []
    lock = threading.Lock()

    def one(page: Path) -> None:
        if jobs == 1 and sys.stderr.isatty():
            print(f"\r\033[K{page.stem} ...", end="", file=sys.stderr, flush=True)
        result = _run_in_process(page, data, out_dir)
        with lock:
            done.append(result)
            if jobs == 1 and sys.stderr.isatty():
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            line = (
                f"[{len(done)}/{len(pages)}] {result.name:<28} {result.status:<6} {result.seconds:6.1f} s {result.peak_memory_mb:6.0f} MB"
            )
            on_line(line + (f"  {result.error}" if result.error else ""))

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, pages))
    done.sort(key=lambda result: result.name)
    write_index(done, out_dir)
    return done


def write_index(results: Sequence[PageResult], out_dir: Path) -> Path:
    """Write index.html (and results.json beside it) from these results and those of earlier runs of other pages."""
    record = out_dir / "results.json"
    known = {}
    if record.exists():
        known = {row["name"]: PageResult(**row) for row in json.loads(record.read_text(encoding="utf-8"))}
    known |= {result.name: result for result in results}
    known = {name: known[name] for name in sorted(known) if (out_dir / f"{name}.html").exists()}
    with atomic_write(record) as file:
        json.dump([asdict(result) for result in known.values()], file, indent=1)
    with atomic_write(out_dir / "index.html") as file:
        file.write(_index_html(list(known.values())))
    return out_dir / "index.html"


def update_readme(out_dir: Path = REPORTS_DIR, readme: Path = REPO_DIR / "README.md", notebooks: Path = NOTEBOOKS_DIR) -> None:
    """Write the page table of the README, between its two marks, and the budgets in the pages' title cells, from a run on bundled data."""
    rows = json.loads((out_dir / "results.json").read_text(encoding="utf-8"))
    wrong = [row["name"] for row in rows if row["status"] != "ok" or row["data"] != "bundled"]
    if wrong:
        raise ValueError(
            f"{out_dir}: {', '.join(wrong)} did not run well on bundled data, so the README is left alone. Run `slm run` first."
        )
    table = {}
    for line in readme.read_text(encoding="utf-8").splitlines():  # a page that was not run keeps its row
        page = re.match(r"\| \[.*?\]\(notebooks/(\w+)\.ipynb\) \|", line)
        if page and (notebooks / f"{page[1]}.ipynb").exists():
            table[page[1]] = line
    measured = {row["name"]: (f"{row['seconds']:.0f}", f"{row['peak_memory_mb'] / 1000:.1f} GB") for row in rows}
    for row in rows:
        cells = [row["shows"], row["headline"], *measured[row["name"]]]
        cells = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
        table[row["name"]] = f"| [{row['title']}](notebooks/{row['name']}.ipynb) | {' | '.join(cells)} |"
    head = ["| page | shows | finding | seconds | memory |", "| --- | --- | --- | --- | --- |"]
    write_between(readme, _README_START, _README_END, head + [table[name] for name in sorted(table)])
    for name, (seconds, memory) in measured.items():
        page = notebooks / f"{name}.ipynb"
        text = page.read_text(encoding="utf-8")
        budget = f"{seconds} s, {memory} memory, 2 CPU cores, no GPU (measured {date.today():%Y-%m})"
        with atomic_write(page) as file:
            file.write(re.sub(r"(?<=\*\*Budget\*\* )\d+ s, [\d.]+ GB memory, [^()]*\(measured [^()]*\)", budget, text, count=1))


def write_between(path: Path, start: str, end: str, lines: Sequence[str]) -> None:
    """Put `lines` between the two marks in a text file, in the place of what stood there."""
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(start)
    _, mark, tail = rest.partition(end)
    if not mark:
        raise ValueError(f"{path} has no lines {start} and {end} to write the table between.")
    with atomic_write(path) as file:
        file.write(f"{head}{start}\n" + "\n".join(lines) + f"\n{end}{tail}")


def execute_page(page: Path, executed: Path, *, data: str = "bundled") -> str:
    """Execute a notebook in a fresh kernel into `executed`; returns "" or which cell failed and how."""
    import papermill

    notebook = json.loads(page.read_text(encoding="utf-8"))
    parameters = notebook["metadata"].get("slm", {}).get("public", {}) if data == "public" else {}
    try:
        papermill.execute_notebook(
            page,
            executed,
            parameters=parameters,
            kernel_name="python3",
            cwd=page.parent,
            progress_bar=False,
            log_output=False,
        )
    except papermill.PapermillExecutionError as error:
        return f"cell {error.exec_count}: {error.ename}: {error.evalue}".replace("\n", " ")[:500]
    return ""


def notebook_to_html(notebook_path: Path, *, title: str) -> str:
    """Return a notebook as one HTML page without scripts: figures inside, formulas as MathML."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(notebook_path, as_version=4)
    formulas: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = hide_math(cell.source, formulas)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = hide_math(data["text/markdown"], formulas)
            # The exporter's template forgets the alternative text of a figure, so the figure is handed to it as HTML.
            if "image/png" in data and (alt := output.get("metadata", {}).get("image/png", {}).get("alt")):
                picture = "".join(data["image/png"].split())
                output["data"] = {"text/html": f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'}
    exporter = HTMLExporter(template_name="lab", embed_images=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return show_math(re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL), formulas)


def hide_math(markdown: str, formulas: list[str]) -> str:
    """Replace $...$ and $$...$$ by marks and append their MathML to `formulas`; code and prices are left alone.

    Markdown renderers tear MathML apart, so it comes back after them, by `show_math`.
    """

    def hide(display: str) -> Callable[[re.Match], str]:
        def mark(match: re.Match) -> str:
            formulas.append(_mathml(match.group(1), display))
            return f"xFORMULA{len(formulas) - 1}x"

        return mark

    parts = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.DOTALL)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"\$\$(.+?)\$\$", hide("block"), parts[i], flags=re.DOTALL)
        parts[i] = re.sub(r"(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\w)", hide("inline"), parts[i])
    return "".join(parts)


def show_math(page: str, formulas: list[str]) -> str:
    """Put the MathML that `hide_math` took out back in place of its marks; browsers draw it by themselves."""
    return re.sub(r"xFORMULA(\d+)x", lambda match: formulas[int(match.group(1))], page)


def page_title(notebook: dict) -> tuple[str, str]:
    """Return the title and the sentence under it from a page's first cell."""
    lines = [line.strip() for line in "".join(notebook["cells"][0]["source"]).split("\n") if line.strip()]
    return lines[0].lstrip("# "), lines[1] if len(lines) > 1 else ""


def page_headline(notebook: dict) -> str:
    """Return the Markdown that the cell tagged `headline` has displayed, or ""."""
    for cell in notebook["cells"]:
        if "headline" in cell["metadata"].get("tags", []):
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                return "".join(data.get("text/markdown") or data.get("text/plain") or "")
    return ""


def _mathml(latex: str, display: str) -> str:
    from latex2mathml.converter import convert

    return convert(latex.strip(), display=display)


def _run_in_process(page: Path, data: str, out_dir: Path) -> PageResult:
    """Run one page in a process of its own, watching the memory of its kernel."""
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / page.name
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "slm_helpers.reports.run_notebooks", str(page), str(executed), data],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"SLM_PROGRESS": "off"},
            cwd=REPO_DIR,
        )
        watch = _MemoryWatch(process.pid)
        out, err = process.communicate()
        peak = watch.stop()
        seconds = time.perf_counter() - started
        error = out.strip()
        if process.returncode != 0 or not executed.exists():
            error = error or (err.strip().splitlines() or ["the process ended without a word"])[-1]
        source = executed if executed.exists() else page
        notebook = json.loads(source.read_text(encoding="utf-8"))
        notebook["cells"] = [c for c in notebook["cells"] if "papermill-error-cell-tag" not in c["metadata"].get("tags", [])]
        title, shows = page_title(notebook)
        result = PageResult(
            name=page.stem,
            title=title,
            shows=shows,
            status="failed" if error else "ok",
            seconds=round(seconds, 1),
            peak_memory_mb=round(peak),
            headline="" if error else page_headline(notebook),
            error=error,
            data=data,
        )
        with atomic_write(out_dir / f"{page.stem}.html") as file:
            file.write(notebook_to_html(source, title=title))
    return result


class _MemoryWatch:
    """Note the highest resident memory of a process' children (the kernel and what it starts), in megabytes."""

    def __init__(self, pid: int):
        self._pid, self._peak, self._stop = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._stop.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        import psutil

        while not self._stop.wait(0.1):
            try:
                children = psutil.Process(self._pid).children(recursive=True)
                self._peak = max(self._peak, sum(child.memory_info().rss for child in children) / 1e6)
            except psutil.Error:
                continue  # it ended between two looks


def _inline_html(markdown: str) -> str:
    from nbconvert.filters import markdown2html

    formulas: list[str] = []
    return show_math(re.sub(r"^<p>|</p>\s*$", "", markdown2html(hide_math(markdown, formulas)).strip()), formulas)


def _index_html(results: list[PageResult]) -> str:
    rows = []
    for r in results:
        finding = f'<strong class="failed">{html.escape(r.error)}</strong>' if r.error else _inline_html(r.headline)
        status = "ran" if r.status == "ok" else '<strong class="failed">failed</strong>'
        rows.append(
            f'<tr><td><a href="{r.name}.html">{html.escape(r.title)}</a></td><td>{_inline_html(r.shows)}</td><td>{finding}</td>'
            f"<td>{status}</td><td>{r.data}</td>"
            f"<td class=number>{r.seconds:.0f}</td><td class=number>{r.peak_memory_mb / 1000:.1f}</td></tr>"
        )
    failed = sum(r.status != "ok" for r in results)
    total = sum(r.seconds for r in results)
    outcome = f"<strong class=failed>{failed} failed</strong>" if failed else "all ran"
    summary = f"{len(results)} pages, {total / 60:.1f} minutes in all, {outcome}."
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Small language models: reports</title>
<style>
body {{ font-family: system-ui, sans-serif; line-height: 1.45; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }}
body {{ color: #1a1a1a; background: #fff; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.5rem 0.6rem; border-bottom: 1px solid #ccc; }}
th {{ border-bottom: 2px solid #555; }}
.number {{ text-align: right; white-space: nowrap; }}
.failed {{ color: #a00000; }}
a {{ color: #0b4f9c; }}
</style>
</head>
<body>
<main>
<h1>Small language models: reports</h1>
<p>{summary} Each page was executed from top to bottom in a fresh kernel.</p>
<table>
<thead><tr><th>Page</th><th>What it shows</th><th>Finding of this run</th><th>Status</th><th>Data</th>
<th class=number>Seconds</th><th class=number>Memory (GB)</th></tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody>
</table>
</main>
</body>
</html>
"""


if __name__ == "__main__":
    print(execute_page(Path(sys.argv[1]), Path(sys.argv[2]), data=sys.argv[3]))
