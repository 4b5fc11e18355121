"""Workshops: an agenda that adds up, copies that score what was solved, a board of the room, a bundle that notices a changed file."""

import json
import re
from itertools import pairwise
from pathlib import Path

from slm_helpers.apps import workshop_bundle
from slm_helpers.apps.workshop_board import write_board
from slm_helpers.apps.workshop_bundle import check_bundle, write_bundle
from slm_helpers.apps.workshop_plan import COURSES, notebook_times, plan_workshop
from slm_helpers.apps.workshop_students import (
    find_notebook,
    make_student_copy,
    read_exercises,
    read_scores,
    self_check,
    write_student_copies,
)
from slm_helpers.cli import main
from slm_helpers.reports.execute import execute_notebook

import pytest


def minutes(agenda: str) -> list[tuple[int, int]]:
    rows = re.findall(r"^\| (\d+):(\d\d) \| (\d+) \|", agenda, re.MULTILINE)
    return [(60 * int(hours) + int(start), int(length)) for hours, start, length in rows]


@pytest.mark.parametrize(("hours", "audience", "speed"), [(1, "beginners", 1.0), (3, "beginners", 1.0), (6, "practitioners", 2.5)])
def test_an_agenda_has_no_gaps_and_ends_in_time(hours, audience, speed):
    rows = minutes(plan_workshop(hours, audience=audience, speed=speed))
    assert rows[0][0] == 0 and rows[-1][0] + rows[-1][1] <= 60 * hours
    assert all(start + length == following for (start, length), (following, _) in pairwise(rows))
    assert max(length for _, length in rows) <= 90


def test_slower_machines_and_less_time_hold_less():
    assert len(minutes(plan_workshop(2))) < len(minutes(plan_workshop(4)))
    assert len(minutes(plan_workshop(3, speed=10))) < len(minutes(plan_workshop(3)))
    assert all(notebook_times(number).run > 0 for numbers in COURSES.values() for number in numbers)
    with pytest.raises(ValueError, match=r"hours is 0\.1"):
        plan_workshop(0.1)


def notebooks() -> list[str]:
    return sorted(path.stem for path in find_notebook("00").parent.glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("name", notebooks())
def test_every_exercise_gets_a_cell_to_fill_and_no_answer_is_given_away(name):
    path = find_notebook(name)
    copy = make_student_copy(path)
    _, exercises = read_exercises(path.parent / "solutions" / path.name)
    tags = [tag for cell in copy["cells"] for tag in cell["metadata"].get("tags", [])]
    assert [f"answer-{each.number}" in tags for each in exercises] == [True] * len(exercises) and len(exercises) >= 3
    assert sum(tag.startswith("check-") for tag in tags) >= len(exercises) / 2
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in copy["cells"] if cell["cell_type"] == "code")
    assert "solutions/" not in "".join("".join(cell["source"]) for cell in copy["cells"][1:])
    for cell in copy["cells"]:
        if any(tag.startswith("check-") for tag in cell["metadata"].get("tags", [])):
            compile("".join(cell["source"]), name, "exec")


@pytest.mark.slow
def test_a_copy_filled_with_the_solution_has_full_score_and_an_untouched_one_has_not(tmp_path, monkeypatch):
    monkeypatch.setenv("SLM_QUICK", "1")
    for who, filled in (("ann", True), ("bob", False)):
        (tmp_path / who).mkdir()
        copy = make_student_copy(find_notebook("30"), full_size=False, filled=filled)
        source = tmp_path / who / "30_benchmark_report.ipynb"
        source.write_text(json.dumps(copy), encoding="utf-8")
        monkeypatch.chdir(tmp_path / who)
        assert execute_notebook(source, tmp_path / who / "done.ipynb", quick=True) == ""
    scores = read_scores(tmp_path)
    passed = scores.groupby("who")["passed"].mean()
    assert passed["ann"] == 1.0 and passed["bob"] == 0.0 and len(scores) == 8


def test_a_check_keeps_the_score_and_lets_the_notebook_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with self_check("00_toy", 1, 3):
        assert 1 + 1 == 2
    with self_check("00_toy", 2, 3):
        undefined_name  # noqa: B018, F821
    assert capsys.readouterr().out.splitlines() == [
        "Exercise 1: passed",
        "Exercise 2: not yet (NameError: name 'undefined_name' is not defined)",
    ]
    assert read_scores(tmp_path)["passed"].tolist() == [True, False, False]
    with self_check("00_toy", 2, 3):
        pass
    assert read_scores(tmp_path)["passed"].tolist() == [True, True, False]


def test_the_board_draws_the_room(tmp_path, capsys):
    for who, right in (("ann", [True, True]), ("bob", [True, False])):
        (tmp_path / who / "scores").mkdir(parents=True)
        found = {"notebook": "00_toy", "num_exercises": 2, "exercises": {str(n): ok for n, ok in enumerate(right, 1)}}
        (tmp_path / who / "scores" / "00_toy.json").write_text(json.dumps(found))
    assert write_board(tmp_path, tmp_path / "room.png").to_numpy().tolist() == [["ann", 2, 2], ["bob", 1, 2]]
    assert (tmp_path / "room.png").stat().st_size > 1000 and len((tmp_path / "room.csv").read_text().splitlines()) == 5
    (tmp_path / "ann" / "scores" / "00_toy.json").write_text("{")
    assert main(["workshop", "board", "--scores", str(tmp_path), "--out", str(tmp_path / "room.png")]) == 2
    assert "this is no score file" in capsys.readouterr().err


def test_copies_never_replace_what_somebody_may_have_filled(tmp_path, capsys):
    assert main(["workshop", "students", "00", "30", "--out", str(tmp_path), "--names", "ann, bob"]) == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ipynb"))[0] == "ann/00_quickstart.ipynb"
    with pytest.raises(FileExistsError, match="is there already"):
        write_student_copies(tmp_path, ["00"], people=["bob"])
    assert main(["workshop", "students", "77", "--out", str(tmp_path)]) == 2
    assert "There is no notebook '77'" in capsys.readouterr().err


def test_a_bundle_holds_the_repository_and_notices_a_changed_file(tmp_path, monkeypatch):
    files = ["README.md", "requirements.lock", "slm_helpers/cli.py", "data/corpora/stories.jsonl"]
    monkeypatch.setattr(workshop_bundle, "_files", lambda: [Path(name) for name in files])
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "toy-1-py3-none-any.whl").write_bytes(b"wheel")
    folder = write_bundle(tmp_path / "kit", wheels=tmp_path / "wheels")
    assert check_bundle(folder) == [] and "--no-index" in (folder / "start.sh").read_text()
    (folder / "README.md").write_text("changed")
    (folder / "wheelhouse" / "toy-1-py3-none-any.whl").unlink()
    assert sorted(check_bundle(folder)) == ["README.md has changed", "wheelhouse/toy-1-py3-none-any.whl is missing"]
    with pytest.raises(FileExistsError):
        write_bundle(folder, wheels=tmp_path / "wheels")
    packed = write_bundle(tmp_path / "packed", wheels=tmp_path / "wheels", archive=True)
    assert packed.name == "packed.zip" and not (tmp_path / "packed").exists()
