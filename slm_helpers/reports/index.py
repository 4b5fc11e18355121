"""What runs of notebooks came to: a line in each report's head, from them index.html and results.json, and README's table.

The reports themselves are the record. The index can be made again from them at any time, whatever became of the files beside them.
"""

import html
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

from slm_helpers._paths import NOTEBOOKS_DIR, REPO_DIR, REPORTS_DIR
from slm_helpers.data.files import atomic_write
from slm_helpers.reports.html import html_page, markdown_to_html, notebook_to_html

_README_START, _README_END = "<!-- notebooks: written by slm run --update-readme -->", "<!-- end of notebooks -->"
_NAVIGATION = re.compile(r"<nav>.*?</nav>\n", re.DOTALL)


@dataclass
class NotebookResult:
    """What came of running one notebook."""

    name: str  # file name without ending
    title: str
    shows: str  # the sentence under the title
    status: str  # "ok" or "failed"
    seconds: float
    peak_memory_mb: float
    headline: str = ""  # Markdown of the cell tagged "headline"
    error: str = ""  # which cell, and its error
    data: str = "bundled"


def write_report(result: NotebookResult, notebook: Any, out_dir: Path) -> Path:
    """Write `out_dir`/<name>.html, a notebook with its outputs, and bring the index and the links between the reports up to date."""
    from filelock import FileLock

    record = html.escape(json.dumps(asdict(result), ensure_ascii=False))
    page = notebook_to_html(notebook, title=result.title, navigation="<nav></nav>\n", meta=f'<meta name="slm-result" content="{record}">\n')
    path = out_dir / f"{result.name}.html"
    with FileLock(out_dir / ".lock"):  # another `slm run` may write there too
        with atomic_write(path) as file:
            file.write(page)
        write_index(out_dir)
    return path


def read_results(out_dir: Path) -> list[NotebookResult]:
    """Return the results that the reports in a folder carry, by name; files that are no reports of this form are left out."""
    results = []
    for path in sorted(out_dir.glob("[0-9][0-9]_*.html")):
        with open(path, encoding="utf-8", errors="replace") as file:
            match = re.search(r'<meta name="slm-result" content="([^"]*)">', file.read(20_000))
        try:
            values = json.loads(html.unescape(match[1])) if match else {}
            result = NotebookResult(**{field.name: field.type(values[field.name]) for field in fields(NotebookResult)})
        except (ValueError, TypeError, KeyError):
            continue
        if result.name == path.stem:
            results.append(result)
    return results


def write_index(out_dir: Path) -> Path:
    """Write index.html and results.json for the reports in a folder, and link each report with its neighbours."""
    results = read_results(out_dir)
    for before, result, after in zip([None, *results], results, [*results[1:], None], strict=False):
        _write_navigation(out_dir / f"{result.name}.html", before, after)
    with atomic_write(out_dir / "results.json") as file:
        json.dump([asdict(result) for result in results], file, indent=1)
    with atomic_write(out_dir / "index.html") as file:
        file.write(_index_html(results))
    return out_dir / "index.html"


def notebook_title(notebook: dict[str, Any]) -> tuple[str, str]:
    """Return the title and the sentence under it from a notebook's first cell."""
    lines = [line.strip() for line in "".join(notebook["cells"][0]["source"]).split("\n") if line.strip()]
    return lines[0].lstrip("# "), lines[1] if len(lines) > 1 else ""


def notebook_headline(notebook: dict[str, Any]) -> str:
    """Return the Markdown that the cell tagged `headline` has displayed, or ""."""
    for cell in notebook["cells"]:
        if "headline" in cell["metadata"].get("tags", []):
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                return "".join(data.get("text/markdown") or data.get("text/plain") or "")
    return ""


def update_readme(out_dir: Path = REPORTS_DIR, readme: Path = REPO_DIR / "README.md", notebooks: Path = NOTEBOOKS_DIR) -> None:
    """Write README's table of notebooks and the budgets in their title cells from a run at full size on bundled data."""
    results = read_results(out_dir)
    unfit = [result.name for result in results if result.status != "ok" or result.data != "bundled"]
    if unfit or not results:
        names = ", ".join(unfit) or "no notebook"
        raise ValueError(f"{out_dir}: {names} did not run well at full size on bundled data, so README is left alone. Use `slm run` first.")
    table = {}
    for line in readme.read_text(encoding="utf-8").splitlines():  # a notebook that was not run keeps its row
        named = re.match(r"\| \[.*?\]\(notebooks/(\w+)\.ipynb\) \|", line)
        if named and (notebooks / f"{named[1]}.ipynb").exists():
            table[named[1]] = line
    for result in results:
        seconds, memory = f"{result.seconds:.0f}", f"{result.peak_memory_mb / 1000:.1f} GB"
        cells = [" ".join(cell.split()).replace("|", "\\|") for cell in (result.shows, result.headline, seconds, memory)]
        table[result.name] = f"| [{result.title}](notebooks/{result.name}.ipynb) | {' | '.join(cells)} |"
        path = notebooks / f"{result.name}.ipynb"
        text = path.read_text(encoding="utf-8")
        budget = f"{seconds} s, {memory} memory, 2 CPU cores, no GPU (measured {date.today():%Y-%m})"
        with atomic_write(path) as file:
            file.write(re.sub(r"(?<=\*\*Budget\*\* )\d+ s, [\d.]+ GB memory, [^()]*\(measured [^()]*\)", budget, text, count=1))
    head = ["| notebook | shows | finding | seconds | memory |", "| --- | --- | --- | --- | --- |"]
    write_between(readme, _README_START, _README_END, head + [table[name] for name in sorted(table)])


def write_between(path: Path, start: str, end: str, lines: Sequence[str]) -> None:
    """Put `lines` between the two marks in a text file, in the place of what stood there."""
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(start)
    _, mark, tail = rest.partition(end)
    if not mark:
        raise ValueError(f"{path} has no lines {start} and {end} to write the table between.")
    with atomic_write(path) as file:
        file.write(f"{head}{start}\n" + "\n".join(lines) + f"\n{end}{tail}")


def _write_navigation(path: Path, before: NotebookResult | None, after: NotebookResult | None) -> None:
    links = ['<a href="index.html">All notebooks</a>']
    links += [f'<a href="{quote(before.name)}.html">← {html.escape(before.title)}</a>'] if before else []
    links += [f'<a href="{quote(after.name)}.html">{html.escape(after.title)} →</a>'] if after else []
    navigation = f"<nav>{' '.join(links)}</nav>\n"
    page = path.read_text(encoding="utf-8")
    changed = _NAVIGATION.sub(lambda _: navigation, page)
    if changed != page:
        with atomic_write(path) as file:
            file.write(changed)


def _index_html(results: Sequence[NotebookResult]) -> str:
    failed, minutes = sum(r.status != "ok" for r in results), sum(r.seconds for r in results) / 60
    outcome = f'<strong class="failed">{failed} failed</strong>' if failed else "all ran"
    quick = " Notebooks marked quick ran with less data and training: their figures are no findings." * any(
        "quick" in r.data for r in results
    )
    names = ("Notebook", "What it shows", "Finding of this run", "Status", "Data", "Seconds", "Memory (GB)")
    head = "".join(f"<th{' class=number' if name in names[-2:] else ''}>{name}</th>" for name in names)
    body = f"""<main>
<h1>Small language models: reports</h1>
<p>{len(results)} notebooks, {minutes:.1f} minutes in all, {outcome}. Each was executed from top to bottom in a fresh kernel.{quick}</p>
<table class="cards">
<thead><tr>{head}</tr></thead>
<tbody>
{chr(10).join(map(_index_row, results))}
</tbody>
</table>
</main>"""
    return html_page(body, title="Small language models: reports")


def _index_row(result: NotebookResult) -> str:
    finding = f'<strong class="failed">{html.escape(result.error)}</strong>' if result.error else markdown_to_html(result.headline)
    status = "ran" if result.status == "ok" else '<strong class="failed">failed</strong>'
    return (
        f'<tr><td><a href="{quote(result.name)}.html">{html.escape(result.title)}</a></td><td>{markdown_to_html(result.shows)}</td>'
        f'<td>{finding}</td><td data-name="Status">{status}</td><td data-name="Data">{html.escape(result.data)}</td>'
        f'<td class="number" data-name="Seconds">{result.seconds:.0f}</td>'
        f'<td class="number" data-name="Memory (GB)">{result.peak_memory_mb / 1000:.1f}</td></tr>'
    )
