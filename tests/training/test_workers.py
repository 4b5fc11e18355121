"""Workers are started, heard, and always ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from slm_helpers.training.workers import WorkersFailed, free_ports, private_loopback, run_workers

import psutil
import pytest

REPO_DIR = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.training.toy_worker"]
LAUNCHER = """
import sys
from slm_helpers._signals import exit_on_sigterm
from slm_helpers.training.workers import private_loopback, run_workers
with exit_on_sigterm(), private_loopback() as prefix:
    command = [sys.executable, "-m", "tests.training.toy_worker"]
    run_workers([command] * 2, ["hang"] * 2, prefix=prefix, on_report=lambda report: print(report["pid"], flush=True))
"""


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(REPO_DIR)


def run(*values: str, **settings) -> list[dict]:
    reports: list[dict] = []
    run_workers([COMMAND] * len(values), values, on_report=reports.append, **settings)
    return sorted(reports, key=lambda report: report["rank"])


def wait_until_gone(pids: list[int], seconds: float = 20) -> list[int]:
    deadline = time.monotonic() + seconds
    while (
        left := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_each_worker_gets_its_input_and_is_heard():
    reports = run("one", "two")
    assert [report["heard"] for report in reports] == ["one", "two"]
    assert len({report["pid"] for report in reports}) == 2


def test_when_one_fails_the_error_says_which_and_why_and_the_other_is_ended():
    pids: list[int] = []
    with pytest.raises(WorkersFailed, match=r"Worker 1 of 2 ended with exit code 3\. ValueError: the disk is full") as failed:
        run_workers([COMMAND] * 2, ["hang", "fail"], on_report=lambda report: pids.append(report["pid"]))
    assert failed.value.rank == 1 and wait_until_gone(pids, 0) == []


def test_a_killed_worker_is_named_by_its_signal():
    with pytest.raises(WorkersFailed, match="Worker 0 of 1 was ended by SIGKILL"):
        run_workers([COMMAND], ["hang"], on_report=lambda report: os.kill(report["pid"], signal.SIGKILL))


def test_one_that_may_fail_leaves_the_others_at_work():
    reports = run("fail", "two", may_fail=1)
    assert [report["rank"] for report in reports] == [0, 0, 1] and reports[1]["failed"].startswith("ended with exit code 3.")
    with pytest.raises(WorkersFailed, match="exit code 3"):
        run("fail", "fail", may_fail=1)


def test_silence_is_a_failure_also_of_a_stopped_process():
    pids: list[int] = []

    def stop(report: dict) -> None:
        pids.append(report["pid"])
        os.kill(report["pid"], signal.SIGSTOP)

    with pytest.raises(WorkersFailed, match="No worker has reported for 1 s, and 1 of 1 are not done") as failed:
        run_workers([COMMAND], ["hang"], step_timeout=1, on_report=stop)
    assert failed.value.rank is None and wait_until_gone(pids, 0) == []


def test_an_error_of_the_listener_ends_all():
    pids: list[int] = []

    def listen(report: dict) -> None:
        pids.append(report["pid"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_workers([COMMAND] * 2, ["hang"] * 2, on_report=listen)
    assert wait_until_gone(pids, 0) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_launcher(number):
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pids = [int(launcher.stdout.readline()) for _ in range(2)]
    children = [child.pid for child in psutil.Process(launcher.pid).children(recursive=True)]
    assert set(pids) <= set(children)  # and the process that holds their network
    launcher.send_signal(number)
    launcher.wait(20)
    launcher.stdout.close()
    assert wait_until_gone(children) == []


def test_a_private_network_has_the_loopback_device_alone():
    with private_loopback() as prefix:
        if not prefix:
            pytest.skip("this system makes no private network")
        (report,) = run("look", prefix=prefix)
    assert report["interfaces"] == ["lo"]


def test_ports_differ():
    assert len(set(free_ports(8))) == 8
