import html
import json
import re
from dataclasses import asdict
from datetime import date
from threading import Thread

from slm_helpers.reports import index
from slm_helpers.reports.index import (
    NotebookResult,
    notebook_headline,
    notebook_title,
    read_results,
    update_readme,
    write_index,
    write_report,
)
from tests.reports.notebooks import TITLE

import nbformat
import pytest


def result(name, **changes):
    values = {"name": name, "title": name, "shows": "s", "status": "ok", "seconds": 3.2, "peak_memory_mb": 700.0, "headline": "h"}
    return NotebookResult(**(values | changes))


def report(folder, name, **changes):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(TITLE)])
    return write_report(result(name, **changes), notebook, folder)


def test_title_and_headline_are_read_from_the_cells():
    headline = {"cell_type": "code", "metadata": {"tags": ["headline"]}, "outputs": [{"data": {"text/markdown": ["**a**", " b"]}}]}
    notebook = {"cells": [{"source": [*TITLE], "metadata": {}}, headline]}
    assert notebook_title(notebook) == ("97 · A notebook", "It shows a sum.")
    assert notebook_headline(notebook) == "**a** b"
    assert notebook_headline({"cells": notebook["cells"][:1]}) == ""


def test_reports_are_linked_with_the_index_and_their_neighbours(tmp_path):
    report(tmp_path, "03_c", title="Third")
    assert "03_c.html" in (tmp_path / "index.html").read_text(encoding="utf-8")  # from the first one on
    report(tmp_path, "01_a", title="First <b>")
    report(tmp_path, "02_b", title="Second")
    pages = {name: (tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("01_a", "02_b", "03_c")}
    links = {name: re.findall(r'<a href="([^"]*)">', re.search(r"<nav>.*?</nav>", page).group()) for name, page in pages.items()}
    assert links["01_a"] == ["index.html", "02_b.html"]
    assert links["02_b"] == ["index.html", "01_a.html", "03_c.html"]
    assert links["03_c"] == ["index.html", "02_b.html"]
    assert "← First &lt;b&gt;" in pages["02_b"]
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("damage", ["", "[{", '{"a": 1}', '[{"name": "../x", "title": "<script>"}]', "\0" * 50])
def test_a_damaged_results_file_is_made_again_from_the_reports(tmp_path, damage):
    report(tmp_path, "01_a", headline="**one**")
    (tmp_path / "results.json").write_text(damage)
    report(tmp_path, "02_b")
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert rows == [asdict(result("01_a", headline="**one**")), asdict(result("02_b"))]
    assert "<strong>one</strong>" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_files_that_are_no_reports_are_left_out(tmp_path):
    report(tmp_path, "01_a")
    (tmp_path / "02_b.html").write_text("an older report")
    whole = (tmp_path / "01_a.html").read_text(encoding="utf-8")
    (tmp_path / "03_c.html").write_text(whole)  # a copy under another name
    (tmp_path / "04_d.html").write_text(
        whole.replace("01_a", "04_d").replace("&quot;seconds&quot;: 3.2", "&quot;seconds&quot;: &quot;x&quot;")
    )
    (tmp_path / "05_e.html").write_bytes(b"\xff\xfe" + b'<meta name="slm-result" content="{">')
    assert [row.name for row in read_results(tmp_path)] == ["01_a"]


def test_runs_at_the_same_time_lose_nothing(tmp_path):
    threads = [Thread(target=report, args=(tmp_path, f"{number:02}_x")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [f"{number:02}_x" for number in range(12)]
    assert [row["name"] for row in json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))] == names
    assert re.findall(r'<td><a href="(\w+)\.html">', (tmp_path / "index.html").read_text(encoding="utf-8")) == names


def test_index_escapes_what_results_say_and_counts_failures(tmp_path):
    bad = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    report(tmp_path, "01_a", title=bad, shows=bad, headline=f"**b** {bad} [l](javascript:alert(1))", data=bad)
    report(tmp_path, "02_b", status="failed", error=f"cell 1: X: {bad}", headline="")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    body = page.partition("<body>")[2]
    assert "<script" not in page and not re.search(r"<[^>]*(onerror|javascript:)", body)
    assert html.escape(f"cell 1: X: {bad}") in body and "1 failed" in body and "Content-Security-Policy" in page


def test_quick_runs_are_marked(tmp_path):
    report(tmp_path, "01_a", data="bundled, quick")
    assert "their figures are no findings" in (tmp_path / "index.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="01_a did not run well at full size"):
        update_readme(tmp_path, tmp_path / "README.md", tmp_path)


def test_readme_table_is_written_between_its_marks_from_good_results_only(tmp_path):
    readme = tmp_path / "README.md"
    cached, gone = (f"| [a notebook](notebooks/{name}.ipynb) | s | f | 1 | 0.1 GB |" for name in ("00_quickstart", "00_gone"))
    readme.write_text(f"before\n{index._README_START}\n{cached}\n{gone}\nold\n{index._README_END}\nafter\n")
    report(tmp_path, "01_a", headline="a | b")
    (tmp_path / "00_quickstart.ipynb").write_text("")
    notebook = tmp_path / "01_a.ipynb"
    notebook.write_text('"**Budget** 45 s, 1.2 GB memory, 2 CPU cores, no GPU (measured 2020-11 elsewhere) · **Data** é"')
    update_readme(tmp_path, readme, tmp_path)
    today = f"{date.today():%Y-%m}"
    assert notebook.read_text() == f'"**Budget** 3 s, 0.7 GB memory, 2 CPU cores, no GPU (measured {today}) · **Data** é"'
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert cached in text and gone not in text and text.index(cached) < text.index("01_a")
    assert "| [01_a](notebooks/01_a.ipynb) | s | a \\| b | 3 | 0.7 GB |" in text
    report(tmp_path, "01_a", status="failed", error="x")
    with pytest.raises(ValueError, match="01_a did not run well"):
        update_readme(tmp_path, readme, tmp_path)
    assert write_index(tmp_path) == tmp_path / "index.html"
