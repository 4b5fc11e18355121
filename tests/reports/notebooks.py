"""Small notebooks for the tests of reports."""

from pathlib import Path

import nbformat

TITLE = "# 97 · A notebook\nIt shows a sum.\n\n**You will learn** to add"


def write_notebook(folder: Path, name: str, cells: list[tuple[str, str | None]], *, metadata: dict | None = None) -> Path:
    """Write a notebook of (source, tag) cells without outputs; the tag "markdown" makes a cell of prose."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}} | (metadata or {})
    )
    for source, tag in cells:
        cell = nbformat.v4.new_markdown_cell(source) if tag == "markdown" else nbformat.v4.new_code_cell(source)
        cell.metadata["tags"] = [tag] if tag and tag != "markdown" else []
        notebook.cells.append(cell)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path
