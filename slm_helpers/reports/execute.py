"""Execute one notebook in a fresh kernel: as it stands, on public data, or in a quick size.

A notebook's metadata names the values that replace those of its cell tagged `parameters`, in a cell of its own after it:
`{"slm": {"public": {"DATASET": "sst2"}, "quick": {"EPOCHS": 1}}}`. A quick run tests that every cell works. It learns too little for
findings to hold, so cells tagged `full-size` run without their asserts in it.
"""

import argparse
import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FULL_SIZE = "full-size"  # tag of a cell whose asserts are claims about a run at full size


def parameters_of(metadata: dict[str, Any], *, data: str = "bundled", quick: bool = False) -> dict[str, Any]:
    """Return the parameters that a notebook's metadata sets for this kind of run; a quick size stands above public settings."""
    ours = metadata.get("slm", {})
    return (ours.get("public", {}) if data == "public" else {}) | (ours.get("quick", {}) if quick else {})


def without_asserts(source: str) -> str:
    """Return the source of a cell with `pass` in the place of each assert.

    Example:
        >>> print(without_asserts("assert gain > 0, 'no gain'\\nprint(gain)"))
        pass
        print(gain)
    """
    lines = source.splitlines(keepends=True)
    asserts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    for node in sorted(asserts, key=lambda node: node.lineno, reverse=True):
        first, last = lines[node.lineno - 1].encode(), lines[node.end_lineno - 1].encode()  # offsets of ast count bytes
        changed = first[: node.col_offset] + b"pass" + last[node.end_col_offset :]
        lines[node.lineno - 1 : node.end_lineno] = [changed.decode()]
    return "".join(lines)


def execute_notebook(
    notebook_path: Path,
    executed: Path,
    *,
    data: str = "bundled",
    quick: bool = False,
    on_cell: Callable[[int, int], None] = lambda number, total: None,
) -> str:
    """Execute a notebook in a fresh kernel into `executed`.

    Args:
        notebook_path: The notebook; it is left as it is.
        executed: Where the notebook with its new outputs is written, also after a failure.
        data: "bundled", or "public" for the parameters under `public`.
        quick: Whether to take the parameters under `quick` and to leave out asserts of cells tagged `full-size`.
        on_cell: Told the number of each cell (from 1) and their total when the cell starts.

    Returns:
        "", or which cell failed and how.
    """
    import nbformat
    import papermill

    notebook = nbformat.read(notebook_path, as_version=4)
    parameters = parameters_of(notebook.metadata, data=data, quick=quick)
    total = len(notebook.cells) + bool(parameters)
    for cell in notebook.cells:
        if quick and cell.cell_type == "code" and FULL_SIZE in cell.metadata.get("tags", []):
            cell.source = without_asserts(cell.source)
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            parameters=parameters,
            kernel_name="python3",
            cwd=notebook_path.parent,
            progress_bar=False,
            log_output=False,
            on_cell_start=lambda cell, cell_index: on_cell(cell_index + 1, total),
        )
    except papermill.PapermillExecutionError as error:
        return f"cell {error.exec_count}: {error.ename}: {error.evalue}".replace("\n", " ")[:500]
    return ""


def _main() -> None:
    """Execute a notebook for `run_notebooks`, which reads one JSON list a line: the cell at work, at last the error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("executed", type=Path)
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()

    def tell(*values: Any) -> None:
        print(json.dumps(values), file=stdout, flush=True)

    stdout, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not come between
    error = execute_notebook(
        options.notebook, options.executed, data=options.data, quick=options.quick, on_cell=lambda n, total: tell("cell", n, total)
    )
    tell("end", error)


if __name__ == "__main__":
    _main()
