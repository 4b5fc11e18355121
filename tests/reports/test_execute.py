from slm_helpers.reports.execute import execute_notebook, parameters_of, without_asserts
from tests.reports.notebooks import TITLE, write_notebook

import nbformat
import pytest


def test_asserts_go_and_everything_else_stays():
    source = 'x = 1\nassert x > 2, (\n    "zu klein: é"\n)\nfor y in "ab":\n    assert y; print(y)\nif x: assert x == 2\nx'
    quick = without_asserts(source)
    assert quick == 'x = 1\npass\nfor y in "ab":\n    pass; print(y)\nif x: pass\nx'
    exec(quick, {})
    assert without_asserts("print('assert')") == "print('assert')"


def test_quick_parameters_stand_above_public_ones():
    metadata = {"slm": {"public": {"DATASET": "sst2", "EPOCHS": 9}, "quick": {"EPOCHS": 1}}}
    assert parameters_of(metadata) == {}
    assert parameters_of(metadata, quick=True) == {"EPOCHS": 1}
    assert parameters_of(metadata, data="public", quick=True) == {"DATASET": "sst2", "EPOCHS": 1}
    assert parameters_of({}, data="public", quick=True) == {}


@pytest.mark.slow
def test_a_quick_run_shrinks_the_parameters_and_leaves_claims_at_full_size_out(tmp_path):
    cells = [
        (TITLE, "markdown"),
        ("EPOCHS = 20\nUNITS = 8", "parameters"),
        ("assert EPOCHS == 1 and UNITS == 8", None),
        ("assert EPOCHS == 20\nfinding = 7", "full-size"),
        ("finding", None),
    ]
    path = write_notebook(tmp_path, "97_quick", cells, metadata={"slm": {"quick": {"EPOCHS": 1}}})
    told = []
    assert execute_notebook(path, tmp_path / "out.ipynb", quick=True, on_cell=lambda n, total: told.append((n, total))) == ""
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs[0].data["text/plain"] == "7"
    assert told and told[-1] == (6, 6)  # with the cell of quick parameters
    assert "1" not in nbformat.read(path, 4).cells[1].source  # the notebook itself stays as it was
    assert execute_notebook(path, tmp_path / "full.ipynb") == "cell 2: AssertionError: "
