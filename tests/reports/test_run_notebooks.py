import json
import os
import signal
import subprocess
import sys
import time

from slm_helpers._paths import REPO_DIR
from slm_helpers.reports import run_notebooks as module
from slm_helpers.reports.run_notebooks import find_notebooks, run_notebooks
from tests.reports.notebooks import TITLE, write_notebook

import nbformat
import psutil
import pytest


@pytest.mark.slow
def test_notebooks_run_into_html_and_a_failing_one_is_named_while_the_others_run(tmp_path):
    good = write_notebook(
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
    bad = write_notebook(
        tmp_path, "98_bad", [("# 98 · Bad\nIt fails.", "markdown"), ("1", None), ("raise KeyError('gone')", None), ("2", None)]
    )
    lines = []
    out = tmp_path / "out"
    results = run_notebooks([bad, good], jobs=2, out_dir=out, on_line=lines.append)
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
    assert "<script" not in page and "<math" in page and 'href="98_bad.html"' in page
    # The source notebook stays as it was.
    assert all(not cell.get("outputs") for cell in nbformat.read(good, as_version=4).cells)

    run_notebooks([good], data="public", out_dir=out, on_line=lines.append)
    after = {row["name"]: row for row in json.loads((out / "results.json").read_text(encoding="utf-8"))}
    assert after["97_good"]["headline"].startswith("**2** on sst2") and after["97_good"]["data"] == "public"
    assert after["98_bad"]["status"] == "failed"  # an earlier run of another notebook stays on the index


@pytest.mark.slow
def test_a_run_that_is_told_to_end_takes_its_kernel_along_and_leaves_no_parts(tmp_path):
    endless = write_notebook(
        tmp_path,
        "97_endless",
        [(TITLE, "markdown"), (f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)", None)],
    )
    code = (
        "from pathlib import Path; from slm_helpers._signals import exit_on_sigterm; from slm_helpers.reports.run_notebooks import *\n"
        f"with exit_on_sigterm(): run_notebooks([Path({str(endless)!r})], out_dir=Path({str(tmp_path / 'out')!r}))"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(REPO_DIR)}
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    kernel = psutil.Process(int(pid.read_text()))
    family = psutil.Process(process.pid).children(recursive=True)
    assert kernel in family
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert list((tmp_path / "out").glob("*.part")) == [] and not list((tmp_path / "tmp").glob("tmp*/*.ipynb"))


def test_find_notebooks_by_number_and_says_which_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NOTEBOOKS_DIR", tmp_path)
    with pytest.raises(FileNotFoundError, match="no numbered notebook"):
        find_notebooks()
    for name in ("00_a.ipynb", "03_b.ipynb", "notes.ipynb"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in find_notebooks()] == ["00_a.ipynb", "03_b.ipynb"]
    assert [path.name for path in find_notebooks(["3"])] == ["03_b.ipynb"]
    with pytest.raises(ValueError, match=r"no notebook 07.*00, 03"):
        find_notebooks(["07"])
