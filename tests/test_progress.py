"""The progress line: there for a person who waits, and nowhere else."""

import sys

from slm_helpers import _progress as progress
from slm_helpers._progress import ProgressLine

import pytest


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets by hand, and no switch in the environment."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("SLM_PROGRESS", raising=False)
    return now


def work(clock, *, seconds: int):
    with ProgressLine() as line:
        for second in range(seconds):
            clock[0] += 1.0
            line.update(f"second {second + 1}")


def test_a_log_stays_empty(clock, capsys):
    assert not sys.stderr.isatty()
    work(clock, seconds=60)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_the_line_from_the_fifth_second_and_takes_it_away(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    work(clock, seconds=7)
    lines = capsys.readouterr().err.split("\r\033[K")
    assert lines == ["", "second 5", "second 6", "second 7", ""]  # each wipes the one before, and the last leaves nothing


def test_short_work_shows_nothing_on_a_terminal(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    work(clock, seconds=4)
    assert capsys.readouterr() == ("", "")


def test_the_line_is_renewed_once_a_second_at_most(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine(after_seconds=0) as line:
        for _ in range(1000):
            clock[0] += 0.0125
            line.update("at work")
    assert capsys.readouterr().err.count("at work") == 12  # in 12.5 seconds


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no"])
def test_the_environment_silences_it(clock, capsys, monkeypatch, value):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("SLM_PROGRESS", value)
    work(clock, seconds=60)
    assert capsys.readouterr() == ("", "")


def test_the_line_goes_when_the_work_fails(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def fail():
        with ProgressLine() as line:
            clock[0] += 9
            line.update("nearly there")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert capsys.readouterr().err.endswith("nearly there\r\033[K")


def test_a_notebook_renews_one_output_and_empties_it(clock, capsys, monkeypatch):
    outputs = []

    class Handle:
        def update(self, data, *, raw):
            outputs.append(data["text/plain"])

    def display(data, *, raw, display_id):
        outputs.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    work(clock, seconds=6)
    assert outputs == ["second 5", "second 6", ""]
    assert capsys.readouterr() == ("", "")
