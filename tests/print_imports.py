"""The picture of the package's imports: how often a module of one folder imports from another (`python -m tests.print_imports`).

Rows import, columns are imported. What stands right of the diagonal would be an import from a later folder; there must be none.
"""

import ast
from collections import Counter
from pathlib import Path

import slm_helpers

PACKAGE = Path(slm_helpers.__file__).parent
# A module may import from its own folder and from those before it; modules with an underscore ("_") stand before all folders.
FOLDERS = (
    *("_", "data", "text", "metrics", "models", "deploy", "training", "generation", "baselines", "tasks", "analysis"),
    *("apps", "plots", "recipes", "reports", "cli"),
)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if (path.stem != "__main__" and path.parent != PACKAGE) or path.stem[:2] != "__")


def module_name(path: Path) -> str:
    """Return the name of a module within the package, e.g. "data.files"; a folder's __init__ is named as the folder."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def folder_of(module: str) -> str:
    """Return the folder of a module, "_" for the modules with an underscore."""
    folder = module.split(".")[0]
    return "_" if folder.startswith("_") else folder


def package_imports(path: Path) -> set[tuple[str, str]]:
    """Return (module, name) for each name that a file imports from the package."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    imports = [(node.module, alias.name) for node in nodes for alias in node.names if (node.module or "").split(".")[0] == "slm_helpers"]
    return {(module.removeprefix("slm_helpers").lstrip(".") or name, name) for module, name in imports}


def import_counts() -> Counter[tuple[str, str]]:
    """Return how many pairs of modules import from (first folder) to (second folder)."""
    counts = Counter()
    for path in MODULES:
        ours = module_name(path)
        counts.update((folder_of(ours), folder_of(module)) for module in {module for module, _ in package_imports(path)})
    return counts


def main() -> None:
    """Print the counts as a table."""
    counts, width = import_counts(), max(map(len, FOLDERS))
    print(" " * width, *(f"{name[:6]:>6}" for name in FOLDERS))
    for row in FOLDERS:
        print(f"{row:<{width}}", *(f"{counts[row, column] or '·':>6}" for column in FOLDERS))


if __name__ == "__main__":
    main()
