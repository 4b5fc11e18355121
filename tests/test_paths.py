"""What a user is told whose installation holds the code alone."""

import os
import shutil
import subprocess
import sys

from slm_helpers import _paths
from slm_helpers._paths import check_checkout, is_quick

import pytest


def test_folders_of_the_checkout_are_there():
    for folder in (_paths.NOTEBOOKS_DIR, _paths.CORPORA_DIR, _paths.PRETRAINED_DIR, _paths.RESULTS_DIR):
        assert check_checkout(folder) == folder


def test_a_missing_folder_names_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds the code alone.*clone it and run `pip install --no-deps --editable \.`"):
        check_checkout(tmp_path / "data")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package alone, as a wheel puts it among other packages."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(_paths.REPO_DIR / "slm_helpers", folder / "slm_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(
    "code",
    [
        "from slm_helpers.data.loading import load_dataset; load_dataset('stories')",
        "from slm_helpers.models.saved import load_pretrained; load_pretrained('slm-base-en')",
        "from slm_helpers.reports.run_notebooks import find_notebooks; find_notebooks(['00'])",
    ],
)
def test_an_installation_without_data_says_that_a_clone_is_needed(installed, code):
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, cwd=installed, env=os.environ | {"PYTHONPATH": str(installed)})
    last = process.stderr.strip().splitlines()[-1]
    assert process.returncode == 1 and "clone it" in last and "slm-helpers" not in last, process.stderr


@pytest.mark.parametrize(("value", "quick"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_environment_asks_for_quick_sizes(monkeypatch, value, quick):
    monkeypatch.setenv("SLM_QUICK", value)
    assert is_quick() is quick
    monkeypatch.delenv("SLM_QUICK")
    assert not is_quick()
