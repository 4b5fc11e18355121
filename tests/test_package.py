"""What importing the package costs and changes, and that its modules build on one another in one direction."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import slm_helpers

import pytest

PACKAGE = Path(slm_helpers.__file__).parent
# A module may import from its own folder and from those before it; modules with an underscore stand before all folders.
FOLDERS = (
    *("data", "text", "metrics", "models", "training", "generation", "baselines", "tasks"),
    *("apps", "plots", "recipes", "reports", "cli"),
)


def in_subprocess(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | environment, check=True)
    return process.stdout.strip()


def test_importing_is_quick_and_brings_no_heavy_library():
    code = """
import sys, time
before = set(sys.modules)
started = time.perf_counter()
import slm_helpers
seconds = time.perf_counter() - started
heavy = {"keras", "tensorflow", "jax", "torch", "pandas", "sklearn", "matplotlib", "scipy", "numpy"} & (set(sys.modules) - before)
print(seconds, sorted(heavy))
"""
    seconds, heavy = in_subprocess(code).split(maxsplit=1)
    assert float(seconds) < 0.3
    assert heavy == "[]"


def test_the_lower_modules_do_without_keras():
    code = "import sys; from slm_helpers import baselines, data, metrics, text; print('keras' in sys.modules)"
    assert in_subprocess(code) == "False"


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


def package_imports(path: Path) -> set[tuple[str, str]]:
    """Return (module, name) for each name that a file imports from the package."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    found = [(node.module, alias.name) for node in nodes for alias in node.names if (node.module or "").split(".")[0] == "slm_helpers"]
    return {(module.removeprefix("slm_helpers").lstrip(".") or name, name) for module, name in found}


def level(module: str) -> int:
    """Return the place of a module's folder in FOLDERS, -1 for the modules with an underscore."""
    folder = module.split(".")[0]
    return -1 if folder.startswith("_") else FOLDERS.index(folder)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if (path.stem != "__main__" and path.parent != PACKAGE) or path.stem[:2] != "__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_from_folders_above_only(path):
    ours = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for module, name in package_imports(path):
        assert level(module) <= level(ours), f"{ours} imports {module}, which stands below it"
        assert not name.startswith("_"), f"{ours} takes the private name {name} from {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_keras_from_one_place_and_no_backend(path):
    if path.stem == "_backend":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # A layer with a gradient of its own has to speak to the backend it is for.
    allowed = {"tensorflow"} if path.stem == "fast_rnn" else set()
    assert not names & {"keras", "tensorflow", "jax", "torch"} - allowed
