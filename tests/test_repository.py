"""Promises that no single module keeps: pins, notebooks as they are committed, the licence, the names of the pages."""

import json
import re
import tomllib
from pathlib import Path

from slm_helpers._paths import DATA_DIR

import pytest

REPO = DATA_DIR.parent
NOTEBOOKS = sorted((REPO / "notebooks").glob("**/[0-9][0-9]_*.ipynb"))


def pins(lock: str = "requirements.lock") -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", (REPO / lock).read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_conda_environment_has_the_versions_of_the_lock_and_every_dependency():
    listed = dict(re.findall(r"^      - ([A-Za-z0-9_.-]+)==(\S+)$", (REPO / "environment.yml").read_text(encoding="utf-8"), re.MULTILINE))
    locked = pins()
    assert {name: version for name, version in listed.items() if version not in locked.get(name, set())} == {}
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["train"], *project["optional-dependencies"]["dev"]]
    names = {re.match(r"[A-Za-z0-9_.-]+", need).group() for need in needed} - {"tensorflow"}  # macOS only
    assert names == set(listed)


def test_what_is_needed_to_use_a_model_is_pinned_alike():
    few, all_pins = pins("requirements-runtime.lock"), pins()
    assert {name for name, versions in few.items() if not versions <= all_pins[name]} == set()
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {re.match(r"[A-Za-z0-9_.-]+", need).group() for need in project["dependencies"]} <= set(few)
    assert not {"keras", "tensorflow-cpu", "scipy", "scikit-learn", "jupyterlab"} & set(few)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-runtime.lock"])
def test_lock_holds_names_versions_and_hashes_only(lock):
    for line in (REPO / lock).read_text(encoding="utf-8").splitlines():
        assert re.match(r"[A-Za-z0-9_.-]+==\S+( ; .*)? \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$|#|$", line), line
    assert all(version.split(".")[0] == "9" and version < "9.1" for version in pins()["pytest"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: str(p.relative_to(REPO / "notebooks")))
def test_notebook_is_committed_as_a_fresh_run(path: Path):
    assert path.stat().st_size < 1_000_000
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert "widgets" not in notebook["metadata"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error" or "NBVAL_RAISES_EXCEPTION" in "".join(cell["source"])
            text = json.dumps(output)
            assert output.get("name") != "stderr", f"a warning or log line is saved: {text[:300]}"
            assert str(REPO) not in text and not re.search(r'"(/home/|/Users/|/tmp/|[A-Z]:\\\\)', text), (
                f"an absolute path is saved: {text[:300]}"
            )
            assert "image/png" not in output.get("data", {}) or output["metadata"].get("image/png", output["metadata"]).get("alt"), (
                "a figure lacks alternative text"
            )


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "notebooks"], ids=lambda p: p.stem)
def test_page_has_its_parts_and_a_solution(path: Path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title = "".join(notebook["cells"][0]["source"])
    assert title.startswith(f"# {path.name[:2]} · ")
    for part in ("**You will learn**", "**Before this**", "**Budget**", "**Data**", "2 CPU cores"):
        assert part in title, part
    tags = [tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])]
    assert tags.count("parameters") == 1 and tags.count("headline") == 1
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    assert 3 <= len(set(re.findall(r"\*\*Exercise (\d+)", text))) <= 6
    assert (path.parent / "solutions" / path.name).exists()
    assert "slm_helpers" in text and not re.search(r"pip install|get_file\(|urlretrieve", text)


def test_every_solution_has_its_page():
    solutions = {p.name for p in NOTEBOOKS if p.parent.name == "solutions"}
    assert solutions <= {p.name for p in NOTEBOOKS if p.parent.name == "notebooks"}
    assert len(NOTEBOOKS) >= 2


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_readme_names_every_page_and_only_real_ones(name: str):
    readme = (REPO / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\(notebooks/(\d\d_\w+)\.ipynb\)", readme))
    assert named == {p.stem for p in NOTEBOOKS if p.parent.name == "notebooks"}


def relative_links(path: Path) -> list[str]:
    """Return the relative links in the prose of a notebook or a Markdown file."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", "", text, flags=re.DOTALL))
    return [link for link in links if not re.match(r"[a-z]+:|#|attachment:", link)]


@pytest.mark.parametrize(
    "path", [*NOTEBOOKS, *REPO.glob("README*.md"), REPO / "data" / "README.md"], ids=lambda p: str(p.relative_to(REPO))
)
def test_no_relative_link_is_dead(path: Path):
    dead = [link for link in relative_links(path) if not (path.parent / link.split("#")[0]).exists()]
    assert dead == []


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "notebooks"], ids=lambda p: p.stem)
def test_a_notebook_leads_to_its_neighbours_and_its_solutions(path: Path):
    pages = sorted(p.name for p in NOTEBOOKS if p.parent.name == "notebooks")
    place = pages.index(path.name)
    links = relative_links(path)
    assert {*pages[max(0, place - 1) : place], *pages[place + 1 : place + 2], f"solutions/{path.name}"} <= set(links)
    assert f"../{path.name}" in relative_links(path.parent / "solutions" / path.name)
