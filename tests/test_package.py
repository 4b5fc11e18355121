"""What importing the package costs and changes, and that its modules build on one another in one direction."""

import ast
import graphlib
import os
import re
import subprocess
import sys

import slm_helpers
from tests.print_imports import FOLDERS, MODULES, PACKAGE, folder_of, import_counts, module_name, package_imports

import pytest

README = PACKAGE.parent / "README.md"


def in_subprocess(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | environment, check=True)
    return process.stdout.strip()


@pytest.mark.parametrize("module", ["slm_helpers", "slm_helpers.cli"])
def test_importing_brings_no_library(module):
    """Half a second of a person's time: everything outside the standard library waits until it is needed."""
    code = f"""
import sys
before = set(sys.modules)
import {module}
names = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(sorted(name for name in names if name not in sys.stdlib_module_names and not name.startswith("_") and name != "slm_helpers"))
"""
    assert in_subprocess(code) == "[]"


def test_the_lower_modules_do_without_keras():
    imports = "from slm_helpers import baselines, data, metrics, text; from slm_helpers.deploy import onnx_graph"
    assert in_subprocess(f"import sys; {imports}; print('keras' in sys.modules)") == "False"


def test_the_backend_is_tensorflow_unless_the_user_chose_another():
    code = "import os, slm_helpers; print(os.environ['KERAS_BACKEND'], os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    assert in_subprocess(code) == "tensorflow 3"
    assert in_subprocess(code, KERAS_BACKEND="jax", TF_CPP_MIN_LOG_LEVEL="0") == "jax 0"


def test_keras_comes_without_start_up_notes():
    code = "from slm_helpers._backend import keras; import numpy as np; print(float(keras.ops.sum(np.ones(3))))"
    kept = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept, check=True)
    assert (process.stdout, process.stderr) == ("3.0\n", "")


def test_importing_changes_nothing_else():
    code = """
import os, random, signal, sys
before = dict(os.environ), random.getstate(), os.getcwd(), signal.getsignal(signal.SIGINT), list(sys.path)
import slm_helpers
after = dict(os.environ), random.getstate(), os.getcwd(), signal.getsignal(signal.SIGINT), list(sys.path)
print(sorted(set(after[0]) - set(before[0])), before[1:] == after[1:])
"""
    assert in_subprocess(code) == "['KERAS_BACKEND', 'TF_CPP_MIN_LOG_LEVEL'] True"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_from_folders_above_only(path):
    ours = module_name(path)
    for module, name in package_imports(path):
        assert FOLDERS.index(folder_of(module)) <= FOLDERS.index(folder_of(ours)), f"{ours} imports {module}, which stands below it"
        assert not name.startswith("_"), f"{ours} takes the private name {name} from {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_keras_from_one_place_and_no_backend(path):
    if path.stem == "_backend":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # A layer with a gradient of its own has to speak to the backend it is for, and so has what joins several processes.
    allowed = {"tensorflow"} if path.stem in ("fast_rnn", "distributed_worker") else set()
    assert not names & {"keras", "tensorflow", "jax", "torch"} - allowed


def test_no_modules_import_one_another_in_a_circle():
    imports = {module_name(path): {module for module, _ in package_imports(path)} - {module_name(path)} for path in MODULES}
    list(graphlib.TopologicalSorter(imports).static_order())


def test_the_picture_of_imports_has_no_arrow_to_a_later_folder():
    table = subprocess.run(
        [sys.executable, "-m", "tests.print_imports"], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    ).stdout
    rows = [line.split()[1:] for line in table.splitlines()[1:]]
    assert len(rows) == len(FOLDERS) and all(count == "·" for number, row in enumerate(rows) for count in row[number + 1 :])
    assert sum(int(count) for row in rows for count in row if count != "·") == sum(import_counts().values()) > 100


def test_readme_and_the_package_name_the_same_folders():
    listed = dict(re.findall(r"^    ([a-z, ]+?) {2,}(.+)$", slm_helpers.__doc__, re.MULTILINE))
    assert {name for names in listed for name in names.split(", ")} == set(FOLDERS) - {"_"}
    table = dict(re.findall(r"^\| `slm_helpers/` ([\w, `]+) \| (.+) \|$", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert {names.replace("`", ""): text for names, text in table.items()} == listed
