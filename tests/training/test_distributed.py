"""Several processes make the steps of one, on both routes; a worker that dies changes nothing but the time."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from slm_helpers.training import distributed
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.distributed import DistributedJob, main, train_distributed, worker_environments, worker_input
from slm_helpers.training.shards import char_shards

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

TEXTS = [
    f"{name} saw {number} grey herons by the {place}." for number in range(2, 8) for name in ("Ann", "Bo") for place in ("mill", "weir")
]
CONFIG = TrainConfig(batch_size=8, window=12, learning_rate=0.02, seed=5)
STEPS = 8


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> DistributedJob:
    folder = tmp_path_factory.mktemp("data")
    network = {"embedding_dim": 6, "units": 10}
    return DistributedJob(
        shards=str(char_shards(TEXTS, folder, rows_per_shard=7)), network=network, config=CONFIG, steps=STEPS, checkpoint_steps=4
    )


def keeping(job: DistributedJob, folder: Path, **changes) -> DistributedJob:
    return dataclasses.replace(job, checkpoint_dir=str(folder), **changes)


@pytest.fixture(scope="module")
def alone(job, tmp_path_factory) -> tuple[dict, dict[str, np.ndarray]]:
    """The steps of one process on TensorFlow, and the weights after them."""
    folder = tmp_path_factory.mktemp("alone")
    (result,) = train_distributed([keeping(job, folder)], workers=1)
    return result, load_file(folder / "weights.safetensors")


def assert_same(result, folder: Path, alone) -> None:
    expected, weights = alone
    assert len(result["losses"]) == STEPS and expected["losses"][-1] < expected["losses"][0] - 0.1  # it did learn
    np.testing.assert_allclose(result["losses"], expected["losses"], atol=1e-6)
    found = load_file(folder / "weights.safetensors")
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one_on_tensorflow(job, alone, tmp_path):
    jobs = [
        keeping(job, tmp_path / "plain"),
        keeping(job, tmp_path / "parts", accumulate=2),
        keeping(job, tmp_path / "local", local_steps=4),
    ]
    sums: dict[int, dict] = {}

    def note(report: dict) -> None:
        if report["kind"] == "sum":
            sums[report["rank"]] = report

    plain, parts, local = train_distributed(jobs, workers=2, probe=[50], on_report=note)
    assert {report["size"] for report in sums.values()} == {50} and all(len(sums[rank]["seconds"]) == 30 for rank in range(2))
    assert_same(plain, tmp_path / "plain", alone)
    assert_same(parts, tmp_path / "parts", alone)
    bytes_of_all = 4 * (plain["num_parameters"] + 1)
    assert plain["payload_bytes"] == parts["payload_bytes"] == bytes_of_all
    assert local["payload_bytes"] == pytest.approx((bytes_of_all - 4) / 4)
    if plain["sent_bytes"] is not None:  # two workers send the vector there and back; the rest is what calls and packets cost
        assert 2 * bytes_of_all <= plain["sent_bytes"] < 2 * bytes_of_all + 20_000
    # Local steps are other steps than those of one process, but the weights of the two are one at the end.
    assert not np.allclose(local["losses"], alone[0]["losses"], atol=1e-4)
    ends = [load_file(tmp_path / "local" / f"step-{STEPS:06d}-{rank}of2.safetensors") for rank in range(2)]
    weights = load_file(tmp_path / "local" / "weights.safetensors")
    for i in range(len(weights)):
        np.testing.assert_array_equal(ends[0][str(i)], ends[1][str(i)])


@pytest.mark.slow
def test_after_a_kill_the_group_goes_on_from_its_checkpoint_to_the_same_end(job, alone, tmp_path):
    started: list[int] = []
    killed: list[int] = []

    def kill_once(report: dict) -> None:
        if report["kind"] == "start" and report["rank"] == 0:
            started.append(report["step"])
        if report["kind"] == "step" and report["step"] == 6 and report["rank"] == 1 and not killed:
            killed.append(report["pid"])
            os.kill(report["pid"], signal.SIGKILL)

    (result,) = train_distributed([keeping(job, tmp_path / "two")], workers=2, restarts=1, on_report=kill_once)
    assert len(killed) == 1 and started == [0, 4] and result["restarts"] == 1
    assert_same(result, tmp_path / "two", alone)
    # One worker goes on where two had stopped. Another job does not.
    name = "step-000004-0of1.safetensors"
    for other in ("one", "seed"):
        (tmp_path / other).mkdir()
        (tmp_path / other / name).write_bytes((tmp_path / "two" / name).read_bytes())
    jobs = [keeping(job, tmp_path / "one"), keeping(job, tmp_path / "seed", config=dataclasses.replace(CONFIG, seed=6))]
    started.clear()
    with pytest.raises(distributed.WorkersFailed, match="belongs to another job"):
        train_distributed(jobs, workers=1, on_report=kill_once)
    assert started == [4]
    assert_same(result, tmp_path / "one", alone)


@pytest.mark.slow
def test_a_worker_started_by_hand_reads_its_job_from_a_file(job, alone, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps(worker_input({0: keeping(job, tmp_path / "out")})), encoding="utf-8")
    command = [sys.executable, "-m", "slm_helpers.training.distributed_worker"]
    with open(tmp_path / "job.json", encoding="utf-8") as file:
        process = subprocess.run(command, stdin=file, capture_output=True, text=True, check=True)
    last = json.loads(process.stdout.splitlines()[-1])
    assert last["kind"] == "end"
    assert_same(last, tmp_path / "out", alone)


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one_on_jax(job, tmp_path, monkeypatch):
    pytest.importorskip("jax")

    @contextmanager
    def none():
        yield []

    monkeypatch.setattr(distributed, "private_loopback", none)  # so that it shows where they listen by themselves
    addresses: set[str] = set()

    def look(report: dict) -> None:
        if report["kind"] == "step":
            connections = psutil.Process(report["pid"]).net_connections()
            addresses.update(c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN)

    (one,) = train_distributed([keeping(job, tmp_path / "one")], workers=1, backend="jax")
    jobs = [keeping(job, tmp_path / name) for name in ("two", "again")]  # also in the second job of a group they are a group
    for result, name in zip(train_distributed(jobs, workers=2, backend="jax", on_report=look), ("two", "again"), strict=True):
        assert_same(result, tmp_path / name, (one, load_file(tmp_path / "one" / "weights.safetensors")))
    assert addresses == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({}, {"workers": 3}, "batch_size is 8, but must be a multiple of workers x accumulate, 3"),
        ({"accumulate": 3}, {"workers": 2}, "multiple of workers x accumulate, 6"),
        ({"local_steps": 2}, {"backend": "jax"}, "need backend='tensorflow'"),
        ({}, {"backend": "jax", "probe": [5]}, "probe needs backend='tensorflow'"),
        ({}, {"backend": "torch"}, "backend is 'torch', but must be one of"),
        ({}, {"workers": 0}, "workers is 0"),
    ],
)
def test_what_cannot_be_split_is_refused_before_anything_starts(job, changes, asked, message):
    with pytest.raises(ValueError, match=message):
        train_distributed([dataclasses.replace(job, **changes)], **asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"units": 4, "dropout": 0.1}}, "network has dropout"),
        ({"local_steps": 3}, "steps is 8, but must be a multiple of local_steps"),
        ({"local_steps": 8, "checkpoint_dir": "x"}, "checkpoint_steps is 4, but must be a multiple of local_steps"),
        ({"config": TrainConfig(carry_state=True)}, "carry_state is True, but distributed training has no such setting"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_settings_are_checked_where_they_enter(job, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(job, **changes)


def test_a_job_survives_json(job):
    assert DistributedJob.from_json(job.as_json()) == job


def test_a_system_without_private_networks_is_told_of_open_ports(job, monkeypatch):
    @contextmanager
    def none():
        yield []

    monkeypatch.setattr(distributed, "private_loopback", none)
    monkeypatch.setattr(distributed, "run_workers", lambda *arguments, **settings: (_ for _ in ()).throw(distributed.WorkersFailed("stop")))
    with pytest.warns(UserWarning, match="listens on all addresses"), pytest.raises(distributed.WorkersFailed, match="stop"):
        train_distributed([job], workers=2)


def test_each_worker_learns_its_rank_and_the_addresses():
    tensorflow = worker_environments("tensorflow", ["127.0.0.1:1", "127.0.0.1:2"])
    assert [variables["TF_CONFIG"] for variables in tensorflow] == [
        f'{{"cluster": {{"worker": ["127.0.0.1:1", "127.0.0.1:2"]}}, "task": {{"type": "worker", "index": {rank}}}}}' for rank in (0, 1)
    ]
    jax = worker_environments("jax", ["10.0.0.1:7", "10.0.0.2:7"])
    assert [variables["KERAS_DISTRIBUTION_PROCESS_ID"] for variables in jax] == ["0", "1"]
    assert jax[1]["KERAS_DISTRIBUTION_JOB_ADDRESSES"] == "10.0.0.1:7,10.0.0.2:7" and "JAX_COORDINATOR_BIND_ADDRESS" not in jax[0]
    assert "TF_CONFIG" not in worker_environments("tensorflow", ["127.0.0.1:1"])[0]


def test_an_error_of_the_command_is_one_line(capsys):
    assert main(["--shards", "nowhere", "--workers", "3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "multiple of workers x accumulate" in error
