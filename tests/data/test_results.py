"""Tables of measured figures: long form, the newest row of each key, nothing lost."""

from slm_helpers._paths import DATA_DIR
from slm_helpers._processor import describe_machine
from slm_helpers.data import results
from slm_helpers.data.results import COLUMNS, compare_on, missed_aims, read_results, write_results

import numpy as np
import pandas as pd
import pytest

ROW = {"task": "lm", "dataset": "stories", "split": "test", "model": "gru", "metric": "bits_per_byte", "value": 1.5, "seed": 1}


def test_a_missing_table_is_empty(tmp_path):
    assert read_results("speed", folder=tmp_path).columns.tolist() == list(COLUMNS)


def test_rows_are_added_and_a_newer_one_takes_the_place_of_the_same_key(tmp_path):
    write_results("speed", [ROW, ROW | {"seed": 2, "value": 1.6}], folder=tmp_path)
    write_results("speed", [ROW | {"value": 1.4, "ci_low": 1.3}, {k: v for k, v in ROW.items() if k != "seed"}], folder=tmp_path)
    write_results("speed", [{k: v for k, v in ROW.items() if k != "seed"} | {"value": 9.0}], folder=tmp_path)
    table = read_results("speed", folder=tmp_path)
    assert table.columns.tolist() == list(COLUMNS)
    assert table["value"].tolist() == [1.6, 1.4, 9.0]
    assert table["machine"].unique().tolist() == [describe_machine()]
    assert [path.name for path in tmp_path.iterdir()] == ["speed.csv"]


@pytest.mark.parametrize("change", [{"metrik": 1}, {"value": None}])
def test_a_row_without_its_columns_is_refused(tmp_path, change):
    row = {k: v for k, v in (ROW | change).items() if v is not None}
    with pytest.raises(ValueError, match="A row of results lacks"):
        write_results("speed", [row], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_trained_models_stand_beside_the_best_baseline(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path)
    scores = [("slm-base-en", 1, 0.7), ("slm-base-en", 2, 0.9), ("slm-base-en", 3, 0.8), ("TF-IDF", 1, 0.6), ("majority", 1, 0.3)]
    write_results("public", [ROW | {"model": model, "seed": seed, "value": value} for model, seed, value in scores])
    found = compare_on({"stories": "bits_per_byte", "not measured": "accuracy"})
    assert found[["dataset", "model", "seeds", "value", "baseline", "baseline_value"]].to_numpy().tolist() == [
        ["stories", "slm-base-en", 3, 0.8, "TF-IDF", 0.6]
    ]
    assert compare_on({"not measured": "accuracy"}).empty


def test_an_aim_and_a_published_figure_stand_beside_the_value(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path)
    about = ROW | {"dataset": "sst2", "metric": "accuracy"}
    scores = [("slm-base-en", 0.83), ("slm-base-en + n-grams", 0.84), ("TF-IDF", 0.82)]
    write_results("public", [about | {"model": model, "value": value} for model, value in scores])
    compared = compare_on({"sst2": "accuracy"})
    assert compared["aim"].tolist() == [0.855] * 2 and compared["published_model"].str.startswith("CNN").all()
    missed = missed_aims(compared)
    assert missed["model"].tolist() == ["slm-base-en + n-grams"] and missed["short_by"].round(6).tolist() == [0.015]
    write_results("public", [about | {"model": "slm-base-en", "value": 0.86}])
    assert missed_aims(compare_on({"sst2": "accuracy"})).empty
    write_results("public", [about | {"model": "TF-IDF", "value": 0.87}])  # a strong baseline is an aim too
    assert missed_aims(compare_on({"sst2": "accuracy"}))["short_by"].round(6).tolist() == [0.01]


def test_every_published_figure_has_a_source():
    table = pd.read_csv(DATA_DIR / "results" / "published.csv")
    assert not table.duplicated(["dataset", "metric"]).any()
    assert (table["published"].isna() == table["source"].isna()).all()
    highest = np.where(table["metric"].isin(["bleu", "chrf"]), 100, 1)
    for name in ("aim", "published"):
        assert (table[name].isna() | ((table[name] > 0) & (table[name] < highest))).all()
    assert (table["aim"].notna() | table["published"].notna()).all()
