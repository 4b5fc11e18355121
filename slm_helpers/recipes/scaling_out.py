"""Measure distributed training on this machine: the losses of one, two and four processes, what they send, and what a sum costs.

    python -m slm_helpers.recipes.scaling_out [--backend tensorflow|jax]

Rows go to data/results/scaling_out.csv. Two cores hold all processes: times say what the parts cost, and nothing about speed-up.
"""

import argparse
import dataclasses
import tempfile
from typing import Any

from slm_helpers.data.loading import load_dataset
from slm_helpers.data.results import write_results
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.distributed import BACKENDS, DistributedJob, train_distributed
from slm_helpers.training.shards import char_shards

import numpy as np

SEED = 42
WORKERS = {"tensorflow": (1, 2, 3, 4), "jax": (1, 2, 4)}
QUANTILE = 0.25  # of the times of a sum: other work on the machine makes some of them longer
PROBE = (1_000, 10_000, 50_000, 200_000, 1_000_000)  # numbers in a vector
JOB = {"network": {"embedding_dim": 32, "units": 64}, "steps": 20}
CONFIG = TrainConfig(batch_size=24, window=32, learning_rate=1e-2, seed=SEED)  # 24: a multiple of 1, 2, 3 and 4


def measure(backend: str) -> list[dict[str, Any]]:
    """Return the rows of one backend."""
    rows, losses = [], {}
    with tempfile.TemporaryDirectory() as folder:
        texts = load_dataset("stories").query("split == 'train'")["text"].tolist()
        job = DistributedJob(shards=str(char_shards(texts, folder)), config=CONFIG, **JOB)
        jobs = {"": job, ", windows of 64": dataclasses.replace(job, config=dataclasses.replace(CONFIG, window=64))}
        if backend == "tensorflow":
            jobs[", an average every 5 steps"] = dataclasses.replace(job, local_steps=5)
        for workers in WORKERS[backend]:
            sums: dict[int, list[float]] = {}

            def note(report: dict[str, Any], sums: dict[int, list[float]] = sums) -> None:
                if report["kind"] == "sum":
                    sums.setdefault(report["size"], []).extend(report["seconds"])

            probe = PROBE if backend == "tensorflow" and workers > 1 else ()
            found = train_distributed(list(jobs.values()), workers=workers, backend=backend, probe=probe, on_report=note)
            losses[workers] = np.array(found[0]["losses"])
            values = {"loss_difference": np.abs(losses[workers] - losses[1]).max(), "last_loss_nats": losses[workers][-1]}
            for name, result in zip(jobs, found, strict=True):
                measured = {key: result[key] for key in ("payload_bytes", "sent_bytes", "compute_seconds", "reduce_seconds")}
                rows += _rows(f"{backend}, {workers} workers{name}", "stories", measured | (values if not name else {}), result)
            for size, seconds in sums.items():
                rows += _rows(
                    f"{backend}, {workers} workers", f"sum of {size} numbers", {"sum_seconds": np.quantile(seconds, QUANTILE)}, found[0]
                )
            print(f"{backend}, {workers} workers: largest difference {values['loss_difference']:.1e}", flush=True)
    return rows


def _rows(model: str, dataset: str, values: dict[str, Any], result: dict[str, Any]) -> list[dict[str, Any]]:
    about = {"task": "scaling out", "dataset": dataset, "split": "train", "model": model, "seed": SEED}
    about |= {"num_parameters": result["num_parameters"]}
    return [about | {"metric": metric, "value": float(value)} for metric, value in values.items() if value is not None]


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="tensorflow")
    write_results("scaling_out", measure(parser.parse_args(arguments).backend))


if __name__ == "__main__":
    main()
