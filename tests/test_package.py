"""What importing the package costs and changes, and that its modules build on one another in one direction."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import slm_helpers

import pytest

PACKAGE = Path(slm_helpers.__file__).parent
# A module may import those of a lower level (and, where noted, of its own). `__init__` and `__main__` are not modules of a level.
LEVELS = {
    "checks": 0,
    "progress": 0,
    "files": 1,
    "audio": 1,
    "data": 2,
    "corpora": 3,
    "public_data": 3,
    "simulation": 3,
    "tokenizers": 4,
    "backend": 5,
    "layers": 6,
    "results": 6,
    "evaluation": 6,
    "words": 0,
    "facts": 0,
    "writing_baselines": 1,
    "drafts": 8,
    "ngrams": 1,
    "question_baselines": 1,
    "tracing": 0,
    "tracing_baselines": 1,
    "question_writing": 1,
    "translation_baselines": 1,
    "translation_scores": 1,
    "baselines": 7,
    "sampling": 6,
    "beam": 6,
    "runtime": 6,
    "models": 7,  # it reaches for heads and encoder_decoder by name only, when a saved network needs a builder from there
    "heads": 8,
    "training": 8,
    "generation": 8,
    "compress": 8,
    "pretrain": 10,
    "explain": 8,
    "privacy": 8,
    "finetune": 9,
    "text_measures": 1,
    "writing": 9,
    "encoder_decoder": 10,
    "pairs": 11,
    "tasks": 12,
    "machine": 10,
    "plots": 10,
    "assistant": 13,
    "service": 13,
    "reports": 13,
    "cli": 14,
}
# Loading by name has to reach the modules that hold the names: inside a function only, so that importing still goes one way.
LATE = {"data": {"corpora", "public_data", "simulation"}}


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
    code = "import sys; from slm_helpers import baselines, evaluation, corpora, public_data, tokenizers; print('keras' in sys.modules)"
    assert in_subprocess(code) == "False"


def test_the_backend_is_tensorflow_unless_the_user_chose_another():
    code = "import os, slm_helpers; print(os.environ['KERAS_BACKEND'], os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    assert in_subprocess(code) == "tensorflow 3"
    assert in_subprocess(code, KERAS_BACKEND="jax", TF_CPP_MIN_LOG_LEVEL="0") == "jax 0"


def test_keras_comes_without_start_up_notes():
    code = "from slm_helpers.backend import keras; import numpy as np; print(float(keras.ops.sum(np.ones(3))))"
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


def package_imports(path: Path) -> list[tuple[str, bool]]:
    """Return (module of the package, imported at the top level?) for each import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(node) for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "slm_helpers":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("slm_helpers.")]
        else:
            continue
        found += [(name, id(node) not in inside) for name in names]
    return found


def module_name(path: Path) -> str:
    """Return the module of LEVELS that a file belongs to."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__"))


def test_every_module_has_a_level():
    assert {module_name(path) for path in MODULES} <= set(LEVELS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_read_upwards_only(path):
    name = module_name(path)
    for imported, at_top in package_imports(path):
        if imported == name == "tasks" or imported.startswith("__"):
            continue
        late = not at_top and imported in LATE.get(name, ())
        assert LEVELS[imported] < LEVELS[name] or late, f"{name} imports {imported}, which stands no lower"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_keras_from_one_place_and_no_backend(path):
    if path.stem == "backend":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # A layer with a gradient of its own has to speak to the backend it is for.
    allowed = {"tensorflow"} if path.stem == "layers" else set()
    assert not names & {"keras", "tensorflow", "jax", "torch"} - allowed
