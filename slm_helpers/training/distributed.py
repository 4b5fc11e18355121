"""Train one language model with several processes, each on its part of every batch.

    python -m slm_helpers.training.distributed --workers 2 [--backend tensorflow|jax] [--shards DIR] [--steps N] [--json]

All steps are those of one process, up to the rounding of sums in another order. This module starts and watches the processes of one
machine, which speak over 127.0.0.1 alone; `distributed_worker` is what each of them runs, and what runs on each machine of a cluster.
"""

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from slm_helpers._checks import check_choice, check_positive
from slm_helpers._signals import exit_on_sigterm
from slm_helpers.training.config import STREAM_DEFAULTS, TrainConfig, check_unused
from slm_helpers.training.shards import char_shards
from slm_helpers.training.workers import LOOPBACK, WorkersFailed, free_ports, private_loopback, run_workers

import numpy as np

BACKENDS = ("tensorflow", "jax")
OPEN_PORTS = (
    "This system makes no private network for the workers, and TensorFlow's server listens on all addresses while they run: "
    "whoever reaches this machine can use it. Train where a firewall stands, or with backend='jax', which listens on 127.0.0.1 alone."
)
_TRIES = 3  # of finding ports that nobody takes between the choice and the start


@dataclass(frozen=True, kw_only=True)
class DistributedJob:
    """What a group of workers trains: the same for all of them and for any number of them."""

    shards: str  # folder from `prepare_shards`
    network: dict[str, Any] = field(default_factory=lambda: {"embedding_dim": 32, "units": 64})  # of build_language_model
    config: TrainConfig = TrainConfig()  # batch_size counts the windows of all workers together
    steps: int = 10  # updates of the weights
    accumulate: int = 1  # parts in which a worker computes the gradient of its windows, one after the other
    local_steps: int = 1  # updates that each worker makes on its own between two averages of the weights; 1: none
    unrolled: bool = False  # TensorFlow: compile every step of the loop over time: some seconds at the start, faster steps afterwards
    checkpoint_dir: str | None = None  # also holds weights.safetensors at the end
    checkpoint_steps: int = 10

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        check_positive(**{name: getattr(self, name) for name in ("steps", "accumulate", "local_steps", "checkpoint_steps")})
        check_unused(self.config, "distributed training", "layer_decay", "frozen", "unfreeze_epochs", "class_weight")
        check_unused(self.config, "distributed training", "carry_state", "shuffle_documents", "ema_decay", "max_seconds", "epochs")
        if self.network.get("dropout"):
            raise ValueError("network has dropout, but every worker would draw its own: no number of them gives the same steps.")
        if self.local_steps > 1 and self.steps % self.local_steps:
            raise ValueError(f"steps is {self.steps}, but must be a multiple of local_steps, {self.local_steps}: the last is an average.")
        if self.checkpoint_dir and self.checkpoint_steps % self.local_steps:
            raise ValueError(f"checkpoint_steps is {self.checkpoint_steps}, but must be a multiple of local_steps, {self.local_steps}.")

    def check_for(self, workers: int, backend: str) -> None:
        """Raise ValueError if this cannot be done by so many workers on such a backend."""
        check_positive(workers=workers)
        check_choice(BACKENDS, backend=backend)
        size, parts = self.filled_config.batch_size, workers * self.accumulate
        if size % parts:
            raise ValueError(f"batch_size is {size}, but must be a multiple of workers x accumulate, {parts}: means of equal parts add up.")
        if backend == "jax" and (self.accumulate > 1 or self.local_steps > 1):
            raise ValueError("accumulate and local_steps need backend='tensorflow': Keras on JAX sums the gradients in every pass.")

    @property
    def filled_config(self) -> TrainConfig:
        """The settings with none left open."""
        return replace(self.config, epochs=1).with_defaults(STREAM_DEFAULTS)

    def as_json(self) -> dict[str, Any]:
        """Return a dictionary for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "DistributedJob":
        """Return the job that `as_json` described."""
        return cls(**values | {"config": TrainConfig.from_settings(values["config"])})


def train_distributed(
    jobs: Sequence[DistributedJob],
    *,
    workers: int = 2,
    backend: str = "tensorflow",
    restarts: int = 0,
    start_timeout: float = 180.0,
    step_timeout: float = 60.0,
    probe: Sequence[int] = (),
    on_report: Callable[[dict[str, Any]], None] = lambda report: None,
) -> list[dict[str, Any]]:
    """Train jobs one after the other with one group of processes on this machine; none of them is left at the end, or after an error.

    Args:
        jobs: What to train; several cost one start.
        workers: Processes.
        backend: "tensorflow" (MultiWorkerMirroredStrategy and a loop of our own) or "jax" (keras.distribution; needs the extra jax).
        restarts: How often the group is started again after a worker died or hung. A job goes on from its checkpoint, if it has any.
        start_timeout: Seconds until the first report at the latest.
        step_timeout: Seconds that a step may take at most.
        probe: Sizes of vectors whose sum over the workers is timed before the first job (tensorflow only).
        on_report: Told every report of every worker: kind ("start", "step", "end"), job, rank, pid, and for a step its number (from 1),
            loss_nats, compute_seconds and reduce_seconds. Of the probe: kind "sum", size and seconds, a list.

    Returns:
        For each job: losses (nats, one a step, mean over the workers), num_parameters, payload_bytes (that a worker puts into sums, a
        step), sent_bytes (through the network by all workers, a step, with all overhead; None where it cannot be told), compute_seconds
        and reduce_seconds (median of a step, worker 0, without the first two), workers, backend, restarts.

    Raises:
        ValueError: If a job cannot be done by so many workers.
        WorkersFailed: If a worker dies or hangs once more often than `restarts`.
    """
    for job in jobs:
        job.check_for(workers, backend)
    if probe and backend == "jax":
        raise ValueError("probe needs backend='tensorflow': on JAX a sum is part of the compiled step.")
    found, failures = _Reports(workers), 0

    def note(report: dict[str, Any]) -> None:
        found.add(report)
        on_report(report)

    while left := {number: job for number, job in enumerate(jobs) if not found.has_ended(number)}:
        value = worker_input(left, step_timeout=step_timeout, probe=probe)
        try:
            _run_group(value, workers, backend, start_timeout, step_timeout, note)
        except WorkersFailed:
            failures += 1
            if failures > restarts:
                raise
    facts = {"workers": workers, "backend": backend, "restarts": failures}
    return [found.summary(number) | facts for number in range(len(jobs))]


def _run_group(value: dict, workers: int, backend: str, start_timeout: float, step_timeout: float, on_report: Callable) -> None:
    command = [sys.executable, "-m", "slm_helpers.training.distributed_worker"]
    with ExitStack() as stack:
        prefix = stack.enter_context(private_loopback()) if workers > 1 else []
        if workers > 1 and not prefix and backend == "tensorflow":
            warnings.warn(OPEN_PORTS, stacklevel=3)
        for attempt in range(_TRIES):
            environments = worker_environments(backend, [f"{LOOPBACK}:{port}" for port in free_ports(workers)], private=bool(prefix))
            try:
                return run_workers(
                    [command] * workers,
                    [value] * workers,
                    environments=environments,
                    prefix=prefix,
                    start_timeout=start_timeout,
                    step_timeout=step_timeout,
                    on_report=on_report,
                )
            except WorkersFailed as error:
                if "Could not start gRPC server" not in str(error) or attempt == _TRIES - 1:  # somebody took the port meanwhile
                    raise


def worker_input(jobs: dict[int, DistributedJob], *, step_timeout: float = 60.0, probe: Sequence[int] = ()) -> dict[str, Any]:
    """Return what `distributed_worker` reads as one line of JSON; write it to a file for a worker that you start yourself."""
    described = {str(number): job.as_json() for number, job in jobs.items()}
    return {"jobs": described, "probe": list(probe), "step_timeout": step_timeout}


def worker_environments(backend: str, addresses: Sequence[str], *, private: bool = False) -> list[dict[str, str]]:
    """Return the variables by which TensorFlow or Keras on JAX tells each worker who it is and where the others are.

    On a cluster set the same variables on each machine, with the addresses of the machines.
    """
    shared = {"KERAS_BACKEND": backend} | ({"SLM_PRIVATE_LOOPBACK": "1"} if private else {})
    if all(address.startswith(f"{LOOPBACK}:") for address in addresses):
        # Proxies are for other machines. The one that listens for JAX would do so on all addresses.
        shared |= {"no_proxy": LOOPBACK, "NO_PROXY": LOOPBACK, "JAX_COORDINATOR_BIND_ADDRESS": addresses[0], "SLM_LOOPBACK_ONLY": "1"}
    if len(addresses) == 1:
        return [shared]
    if backend == "jax":
        shared |= {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"), "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
        shared |= {"KERAS_DISTRIBUTION_JOB_ADDRESSES": ",".join(addresses), "KERAS_DISTRIBUTION_NUM_PROCESSES": str(len(addresses))}
        return [shared | {"KERAS_DISTRIBUTION_PROCESS_ID": str(rank)} for rank in range(len(addresses))]
    cluster = {"worker": list(addresses)}
    tasks = [{"type": "worker", "index": rank} for rank in range(len(addresses))]
    return [shared | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]


class _Reports:
    """What the workers have reported, by job."""

    def __init__(self, workers: int):
        self.workers = workers
        self.steps: dict[int, dict[int, dict[str, Any]]] = {}  # of worker 0, by job and step
        self.ends: dict[int, dict[int, dict[str, Any]]] = {}  # by job and rank

    def add(self, report: dict[str, Any]) -> None:
        """Keep a report."""
        if report["kind"] == "step" and report["rank"] == 0:
            self.steps.setdefault(report["job"], {})[report["step"]] = report
        if report["kind"] == "end":
            self.ends.setdefault(report["job"], {})[report["rank"]] = report

    def has_ended(self, job: int) -> bool:
        """Return whether all workers have finished a job."""
        return len(self.ends.get(job, {})) == self.workers

    def summary(self, job: int) -> dict[str, Any]:
        """Return what `train_distributed` returns of a job."""
        ends = self.ends[job]
        facts = {name: ends[0][name] for name in ("num_parameters", "payload_bytes", "sent_bytes")}
        timed = [report for _, report in sorted(self.steps.get(job, {}).items())][2:]
        for name in ("compute_seconds", "reduce_seconds"):
            facts[name] = float(np.median([report[name] for report in timed])) if timed else None
        # Local steps have a loss for each worker; the others have one for all.
        return {"losses": np.mean([ends[rank]["losses"] for rank in range(self.workers)], axis=0).tolist()} | facts


def main(arguments: list[str] | None = None) -> int:
    """Train by command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with exit_on_sigterm(), tempfile.TemporaryDirectory() as folder:
            config = TrainConfig(
                batch_size=options.batch_size, window=options.window, learning_rate=options.learning_rate, seed=options.seed
            )
            job = DistributedJob(
                shards=options.shards or _bundled_shards(folder),
                network={"embedding_dim": options.embedding_dim, "units": options.units},
                config=config,
                steps=options.steps,
                accumulate=options.accumulate,
                local_steps=options.local_steps,
                checkpoint_dir=options.out,
                checkpoint_steps=options.checkpoint_steps,
            )
            (result,) = train_distributed([job], workers=options.workers, backend=options.backend, restarts=options.restarts)
    except (OSError, ValueError, WorkersFailed) as error:
        print(f"distributed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("distributed: interrupted; all workers have ended", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(result))
        return 0
    for step, loss in enumerate(result["losses"], 1):
        print(f"step {step:4d}  loss {loss:.8f} nats")
    print(f"{options.workers} workers on {options.backend}, {result['payload_bytes']:,.0f} bytes a worker and step")
    return 0


def _bundled_shards(folder: str) -> str:
    from slm_helpers.data.loading import load_dataset

    return str(char_shards(load_dataset("stories").query("split == 'train'")["text"].tolist(), folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes on this machine")
    parser.add_argument("--backend", choices=BACKENDS, default="tensorflow")
    parser.add_argument("--shards", help="folder from slm_helpers.training.shards; the bundled stories unless given")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16, help="windows of all workers together")
    parser.add_argument("--window", type=int, default=32, help="tokens")
    parser.add_argument("--embedding-dim", type=int, default=32)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--accumulate", type=int, default=1, help="parts of a worker's windows, one after the other")
    parser.add_argument("--local-steps", type=int, default=1, help="updates between two averages of the weights")
    parser.add_argument("--out", help="folder for checkpoints and the final weights")
    parser.add_argument("--checkpoint-steps", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=0, help="after a worker died or hung")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
