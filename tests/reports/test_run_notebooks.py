import html
import json
import re
from datetime import date

from slm_helpers.reports import run_notebooks as reports
from slm_helpers.reports.run_notebooks import (
    PageResult,
    find_pages,
    hide_math,
    notebook_to_html,
    page_headline,
    page_title,
    run_pages,
    show_math,
    update_readme,
    write_index,
)

import nbformat
import pytest

TITLE = "# 97 · A page\nIt shows a sum.\n\n**You will learn** to add"


def write_page(folder, name, cells, *, metadata=None):
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}} | (metadata or {})
    )
    for source, tags in cells:
        new = nbformat.v4.new_markdown_cell if tags == "markdown" else nbformat.v4.new_code_cell
        cell = new(source)
        cell.metadata["tags"] = [tags] if tags and tags != "markdown" else []
        notebook.cells.append(cell)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.mark.slow
def test_pages_run_into_html_and_a_failing_one_is_named_while_the_others_run(tmp_path):
    good = write_page(
        tmp_path,
        "97_good",
        [
            (TITLE, "markdown"),
            ('DATASET = "bundled"', "parameters"),
            ('from IPython.display import Markdown\nMarkdown(f"**{1 + 1}** on {DATASET}, $x^2$")', "headline"),
            ("big = bytearray(150_000_000)\nimport time; time.sleep(0.6)", None),
        ],
        metadata={"slm": {"public": {"DATASET": "sst2"}}},
    )
    bad = write_page(
        tmp_path, "98_bad", [("# 98 · Bad\nIt fails.", "markdown"), ("1", None), ("raise KeyError('gone')", None), ("2", None)]
    )
    lines = []
    out = tmp_path / "out"
    results = run_pages([bad, good], jobs=2, out_dir=out, on_line=lines.append)
    by_name = {result.name: result for result in results}
    assert [result.name for result in results] == ["97_good", "98_bad"]
    assert by_name["97_good"].status == "ok"
    assert by_name["97_good"].headline == "**2** on bundled, $x^2$"
    assert by_name["97_good"].peak_memory_mb > 150
    assert by_name["98_bad"].status == "failed"
    assert by_name["98_bad"].error == "cell 2: KeyError: 'gone'"
    assert len(lines) == 2 and any("KeyError" in line for line in lines)
    index = (out / "index.html").read_text(encoding="utf-8")
    assert "<strong>2</strong> on bundled" in index and "cell 2: KeyError" in index and 'href="97_good.html"' in index
    page = (out / "97_good.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<math" in page
    # The source notebook stays as it was.
    assert all(not cell.get("outputs") for cell in nbformat.read(good, as_version=4).cells)

    run_pages([good], data="public", out_dir=out, on_line=lines.append)
    after = {row["name"]: row for row in json.loads((out / "results.json").read_text(encoding="utf-8"))}
    assert after["97_good"]["headline"].startswith("**2** on sst2") and after["97_good"]["data"] == "public"
    assert after["98_bad"]["status"] == "failed"  # an earlier run of another page stays on the index


def test_find_pages_by_number_and_says_which_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "NOTEBOOKS_DIR", tmp_path)
    with pytest.raises(FileNotFoundError, match="no numbered notebook"):
        find_pages()
    for name in ("00_a.ipynb", "03_b.ipynb", "notes.ipynb"):
        (tmp_path / name).write_text("{}")
    assert [page.name for page in find_pages()] == ["00_a.ipynb", "03_b.ipynb"]
    assert [page.name for page in find_pages(["3"])] == ["03_b.ipynb"]
    with pytest.raises(ValueError, match=r"no page 07.*00, 03"):
        find_pages(["07"])


def test_math_becomes_mathml_but_code_and_prices_stay():
    formulas = []
    text = hide_math("The rate $\\alpha$ is `$x$`, costs $5 or $6.\n```\n$y$\n```\n$$\\sum_i x_i$$", formulas)
    assert len(formulas) == 2 and 'display="block"' in formulas[1]
    assert "`$x$`" in text and "$5 or $6" in text and "\n$y$\n" in text
    assert show_math(text, formulas).count("<math") == 2


def test_html_holds_formulas_figures_and_no_script(tmp_path):
    path = write_page(tmp_path, "97_x", [("# T\nS $a_b$", "markdown"), ("1", None)])
    page = notebook_to_html(path, title="T")
    assert re.search(r"<math[^>]*><mrow><msub><mi>a</mi><mi>b</mi></msub></mrow></math>", page), "the formula was torn apart"
    assert "<script" not in page and "<title>T</title>" in page


def test_html_keeps_what_a_figure_says_to_those_who_cannot_see_it(tmp_path):
    path = write_page(tmp_path, "97_figure", [(TITLE, "markdown"), ("show()", None)])
    notebook = nbformat.read(path, 4)
    about = {"image/png": {"alt": 'Loss "falls" from 3 to 1, below <floor> & all'}}
    notebook.cells[1].outputs = [
        nbformat.v4.new_output("display_data", {"image/png": "iVBORw0K\nGgo=\n", "text/plain": "x"}, metadata=about)
    ]
    nbformat.write(notebook, path)
    (figure,) = re.findall(r"<img[^>]*/?>", notebook_to_html(path, title="T"))
    assert html.unescape(re.search(r'alt="([^"]*)"|alt=\'([^\']*)\'', figure).group(0)[5:-1]) == about["image/png"]["alt"]
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in figure


def test_title_and_headline_are_read_from_the_cells():
    headline = {"cell_type": "code", "metadata": {"tags": ["headline"]}, "outputs": [{"data": {"text/markdown": ["**a**", " b"]}}]}
    notebook = {"cells": [{"source": [*TITLE]}, headline]}
    notebook["cells"][0]["metadata"] = {}
    assert page_title(notebook) == ("97 · A page", "It shows a sum.")
    assert page_headline(notebook) == "**a** b"
    assert page_headline({"cells": notebook["cells"][:1]}) == ""


def result(name, **changes):
    return PageResult(
        **({"name": name, "title": name, "shows": "s", "status": "ok", "seconds": 3.2, "peak_memory_mb": 700, "headline": "h"} | changes)
    )


def test_index_escapes_text_and_counts_failures(tmp_path):
    (tmp_path / "01_a.html").write_text("")
    (tmp_path / "02_b.html").write_text("")
    write_index([result("01_a", title="<b>"), result("02_b", status="failed", error="cell 1: X: <i>", headline="")], tmp_path)
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in index and "&lt;i&gt;" in index and "1 failed" in index


def test_readme_table_is_written_between_its_marks_from_good_results_only(tmp_path):
    readme = tmp_path / "README.md"
    kept, gone = (f"| [a page](notebooks/{name}.ipynb) | s | f | 1 | 0.1 GB |" for name in ("00_quickstart", "00_gone"))
    readme.write_text(f"before\n{reports._README_START}\n{kept}\n{gone}\nold\n{reports._README_END}\nafter\n")
    (tmp_path / "01_a.html").write_text("")
    write_index([result("01_a", headline="a | b")], tmp_path)
    (tmp_path / "00_quickstart.ipynb").write_text("")
    page = tmp_path / "01_a.ipynb"
    page.write_text('"**Budget** 45 s, 1.2 GB memory, 2 CPU cores, no GPU (measured 2020-11 elsewhere) · **Data** é"')
    update_readme(tmp_path, readme, tmp_path)
    today = f"{date.today():%Y-%m}"
    assert page.read_text() == f'"**Budget** 3 s, 0.7 GB memory, 2 CPU cores, no GPU (measured {today}) · **Data** é"'
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert kept in text and gone not in text and text.index(kept) < text.index("01_a")
    assert "| [01_a](notebooks/01_a.ipynb) | s | a \\| b | 3 | 0.7 GB |" in text
    write_index([result("01_a", status="failed", error="x")], tmp_path)
    with pytest.raises(ValueError, match="01_a did not run well"):
        update_readme(tmp_path, readme, tmp_path)
