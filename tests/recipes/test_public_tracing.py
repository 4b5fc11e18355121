"""Knowledge tracing on a public set is measured once, beside its baselines."""

from slm_helpers.data.simulated import simulate_students
from slm_helpers.recipes import public_tracing

import pandas as pd
import pytest


def test_a_public_set_is_measured_once_beside_its_baselines(monkeypatch):
    frame = simulate_students(30, seed=2)
    # One attempt at a skill that train lacks, as in assistments2009.
    strange = frame[frame["split"] == "test"].tail(1).assign(skill="juggling")
    monkeypatch.setattr(public_tracing, "load_dataset", lambda name: pd.concat([frame, strange], ignore_index=True))
    options = {"seeds": (1,), "changes": {"epochs": 1}}
    found = list(public_tracing.measure_tracing("tiny", known=set(), **options))
    assert [about["model"] for _, about in found] == [*public_tracing.BASELINES, public_tracing.MODEL]
    for scores, about in found:
        gains = [f"auc_gain over {model}" for model in public_tracing.BASELINES] if about["model"] == public_tracing.MODEL else []
        assert scores["metric"].tolist() == ["auc", "accuracy", "log_loss_bits", *gains]
        assert (scores["ci_low"] <= scores["value"]).all() and (scores["value"] <= scores["ci_high"]).all()
        assert about["train_rows"] == (frame["split"] == "train").sum() and about["split"] == "test"
    scores = {about["model"]: scores.set_index("metric")["value"] for scores, about in found}
    for model in public_tracing.BASELINES:
        gain = scores[public_tracing.MODEL][f"auc_gain over {model}"]
        assert gain == pytest.approx(scores[public_tracing.MODEL]["auc"] - scores[model]["auc"])
    known = {(about["model"], str(about["seed"])) for _, about in found}
    assert list(public_tracing.measure_tracing("tiny", known=known, **options)) == []
