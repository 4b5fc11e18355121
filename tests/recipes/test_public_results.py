"""The table of public results: what is measured, what is not measured twice, out-of-scope scores."""

from slm_helpers.data import results
from slm_helpers.data.public import PUBLIC
from slm_helpers.recipes import public_results as public
from slm_helpers.tasks.base import Evaluation

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def intents(monkeypatch, tmp_path):
    """A tiny set with an out-of-scope class, and a table of results of its own."""
    rng = np.random.default_rng(0)
    words = {"pay": ["pay", "money", "bill"], "call": ["call", "phone", "ring"], "oos": ["owl", "moon", "tree"]}
    rows = [
        {"text": " ".join(rng.choice(words[label], 3)), "label": label, "split": split}
        for split, number in (("train", 12), ("valid", 6), ("test", 8))
        for label in words
        for _ in range(number)
    ]
    monkeypatch.setattr(public, "load_dataset", lambda name: pd.DataFrame(rows))
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path)
    return public.PublicRun(task="classify", seeds=(1,), changes={"epochs": 1})


def test_baselines_and_base_are_measured_once(intents, capsys):
    public.measure("tiny", intents)
    table = results.read_results("public")
    assert set(table["model"]) == {
        *("TF-IDF + linear SVM", "TF-IDF of words and characters + linear SVM"),
        *("TF-IDF + logistic regression", "TF-IDF + logistic regression, unsure rejected"),
        *("slm-base-en", "slm-base-en + n-grams", "slm-base-en + n-grams, unsure rejected"),
    }
    assert set(table["metric"]) == {"accuracy", "macro_f1", "macro_recall", "in_scope_accuracy", "oos_recall"}
    assert (table["ci_low"] <= table["value"]).all() and (table["value"] <= table["ci_high"]).all()
    assert (table["split"] == "test").all() and (table["train_rows"] == 36).all()
    ours = table[table["model"].str.startswith("slm-base-en")]
    assert np.allclose(ours["size_bytes"], 2 * ours["num_parameters"], rtol=1e-5)  # the table keeps six digits
    assert len(capsys.readouterr().out.splitlines()) == 7
    public.measure("tiny", intents)
    assert capsys.readouterr().out == ""


def test_out_of_scope_scores_count_each_kind_of_row_apart():
    confusion = pd.DataFrame(
        [("pay", "pay", 6), ("pay", "oos", 2), ("oos", "oos", 1), ("oos", "pay", 3)], columns=["label", "prediction", "rows"]
    )
    found = public.with_out_of_scope(
        Evaluation(rows=12, metrics=pd.DataFrame(columns=["metric", "value"]), tables={"confusion": confusion})
    )
    values = found.metrics.set_index("metric")["value"]
    assert values["in_scope_accuracy"] == 0.75 and values["oos_recall"] == 0.25
    plain = Evaluation(rows=1, metrics=pd.DataFrame(), tables={"confusion": confusion[confusion["label"] == "pay"]})
    assert public.with_out_of_scope(plain) is plain


def test_the_threshold_costs_no_more_right_rows_than_allowed():
    # 100 rows of valid in scope, all right, their confidence 0.50, 0.505, ...; one of them may be lost.
    confidence = 0.5 + np.arange(100) / 200
    valid = np.stack([confidence, 1 - confidence - 0.001, np.full(100, 0.001)], axis=1)
    test = np.array([[0.502, 0.4, 0.098], [0.9, 0.05, 0.05], [0.1, 0.504, 0.396], [0.1, 0.506, 0.394], [0.3, 0.2, 0.5]])
    names, labels = ["pay", "call", "oos"], np.array(["pay"] * 100)
    found = public.reject_unsure({"valid": valid, "test": test}, labels, names)
    assert found.tolist() == ["oos", "pay", "oos", "call", "oos"]
    assert public.reject_unsure({"valid": valid, "test": test}, labels, names, given_up=0.0).tolist()[0] == "pay"


def test_an_unknown_set_is_refused(capsys):
    with pytest.raises(SystemExit):
        public.main(["nosuch"])
    assert "nosuch is not one of sst2" in capsys.readouterr().err


def test_the_sets_of_customer_service_are_on_the_list():
    assert {"banking77", "clinc150", "bitext_customer_service", "schema_guided_openings"} <= set(public.RUNS)
    assert set(public.RUNS) - {"spoken_digits_speakers", "fairytaleqa_questions"} <= set(PUBLIC)
