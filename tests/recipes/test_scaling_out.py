"""The rows of data/results/scaling_out.csv, from runs that are made up."""

from slm_helpers.data.results import COLUMNS
from slm_helpers.recipes import scaling_out

import pandas as pd


def fake_training(jobs, *, workers, backend, probe, on_report):
    for size in probe:
        for rank in range(workers):
            on_report({"kind": "sum", "size": size, "seconds": [1.0, 3.0, 2.0], "rank": rank})
    facts = {"num_parameters": 9, "payload_bytes": 40.0, "sent_bytes": None, "compute_seconds": 0.5, "reduce_seconds": 0.25}
    return [facts | {"losses": [3.0, 2.0 + workers / 1000]} for _ in jobs]


def test_differences_are_taken_from_one_worker_and_what_was_not_measured_has_no_row(monkeypatch):
    monkeypatch.setattr(scaling_out, "train_distributed", fake_training)
    monkeypatch.setattr(scaling_out, "char_shards", lambda texts, folder: folder)
    rows = scaling_out.measure("tensorflow")
    assert all(set(row) <= set(COLUMNS) for row in rows)
    table = pd.DataFrame(rows).set_index(["dataset", "model", "metric"])["value"]
    assert [round(table["stories", f"tensorflow, {n} workers", "loss_difference"], 9) for n in (1, 2, 4)] == [0, 0.001, 0.003]
    assert table["stories", "tensorflow, 4 workers", "last_loss_nats"] == 2.004
    assert table["sum of 1000 numbers", "tensorflow, 2 workers", "sum_seconds"] == 1.25
    assert "sent_bytes" not in table.index.get_level_values("metric")
    assert {row["model"] for row in scaling_out.measure("jax")} == {
        f"jax, {n} workers{w}" for n in (1, 2, 4) for w in ("", ", windows of 64")
    }
