"""Every notebook and every solution runs from top to bottom in a fresh kernel, and shows again what cells marked for it have shown.

They run in the quick sizes that their metadata names; SLM_QUICK=0 runs them as they stand, with every claim checked.
"""

import os
from pathlib import Path

from slm_helpers._paths import NOTEBOOKS_DIR
from slm_helpers.reports.execute import FULL_SIZE, execute_notebook

import nbformat
import pytest

QUICK = os.environ.get("SLM_QUICK", "1") not in ("", "0")


NOTEBOOKS = {str(path.relative_to(NOTEBOOKS_DIR).with_suffix("")): path for path in sorted(NOTEBOOKS_DIR.glob("**/[0-9][0-9]_*.ipynb"))}


def shown_text(cell) -> str:
    """Return what a cell shows as text, in one line."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs if output.get("name") != "stderr"
    ]
    return " ".join(" ".join(texts).split())


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_notebook_runs(path: Path, tmp_path, monkeypatch):
    monkeypatch.setenv("SLM_PROGRESS", "off")
    monkeypatch.setenv("SLM_QUICK", "1" if QUICK else "0")
    assert execute_notebook(path, tmp_path / path.name, quick=QUICK) == ""
    before = nbformat.read(path, as_version=4).cells
    after = nbformat.read(tmp_path / path.name, as_version=4).cells
    after = [cell for cell in after if "injected-parameters" not in cell.metadata.get("tags", [])]
    for old, new in zip(before, after, strict=True):
        if "# NBVAL_CHECK_OUTPUT" in old.source and not (QUICK and FULL_SIZE in old.metadata.get("tags", [])):
            assert shown_text(new) == shown_text(old), old.source
