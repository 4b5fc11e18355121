"""The benchmarks on tiny sizes: what they count, what they print, what they save; how fast this machine is, is not tested."""

import io
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

from slm_helpers.data.results import COLUMNS, read_results, write_results
from tests.benchmarks import (
    generation_speed,
    keras_training,
    layer_speed,
    prediction_speed,
    results,
    scaling,
    time_to_quality,
    training_speed,
)

import numpy as np
import pytest

SCRIPTS = {
    module.__name__.rsplit(".", 1)[-1]: module
    for module in (training_speed, layer_speed, generation_speed, prediction_speed, time_to_quality, scaling)
}
ROW = {"task": "scaling", "dataset": "d", "split": "", "model": "m", "metric": "seconds_per_1000_tokens", "value": 1.5, "seed": 1}
ROW |= {"machine": "2 cores"}


def run_json(module, arguments, capsys) -> dict:
    """Run a benchmark in this process; its stdout must be one JSON object and nothing else."""
    module.main([*arguments, "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert found["benchmark"] == module.__name__.rsplit(".", 1)[-1]
    for one in found["results"]:
        assert set(one) <= set(COLUMNS)
        assert math.isfinite(one["value"]) and (one["value"] > 0 or one["metric"] == "nats_per_character")
    return found


# Arguments


@pytest.mark.parametrize("module", SCRIPTS.values(), ids=SCRIPTS)
def test_a_misspelt_option_is_one_line_and_exit_code_2(module, capsys):
    with pytest.raises(SystemExit, match="2"):
        module.parse(["--sed", "1", "--secondss", "2"])
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "--help" in err


def test_a_text_or_model_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        time_to_quality.parse(["--text", str(tmp_path / "no.txt")])
    assert "no.txt: there is no such file" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no such model is no model folder\. Name one with --model, or use --random"):
        generation_speed.main(["--model", str(tmp_path / "no such model")])
    with pytest.raises(ValueError, match="cannot import torch"):
        training_speed.main(["--torch-python", "false"])


def test_make_bench_runs_every_script_with_options_it_knows():
    makefile = (results.REPO_DIR / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.partition("\nbench: setup\n")[2].partition("\n\n")[0]
    assert re.findall(r"tests\.benchmarks\.(\w+)", recipe) == [*SCRIPTS, "results"]
    assert recipe.count("--save") == len(SCRIPTS)
    for line in recipe.splitlines()[:-1]:
        name = re.search(r"benchmarks\.(\w+)", line).group(1)
        known = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{name}", "--help"], capture_output=True, text=True, check=True, cwd=results.REPO_DIR
        ).stdout
        assert all(option in known for option in re.findall(r"--[a-z-]+", line)), line


# Layers and loss


def test_layers_and_loss_are_compared_with_those_of_keras(capsys):
    sizes = ["--vocab-size", "11", "--embedding-dim", "3", "--units", "4", "--batch-size", "2", "--window", "3", "--rounds", "2"]
    sizes += ["--num-tokens", "5"]
    found = run_json(layer_speed, [*sizes, "--cells", "gru"], capsys)
    assert [(one["model"], one["metric"]) for one in found["results"]] == [
        *((f"GRU, {name}", "cpu_milliseconds") for name in layer_speed.LAYERS["gru"]),
        *((f"GRU, {name}", "times_as_fast_as_keras") for name in ("FastGRU, unrolled", "FastGRU, loop")),
        *((f"loss of 5 tokens over 11, {name}", "cpu_milliseconds") for name in layer_speed.LOSSES),
        ("loss of 5 tokens over 11, mean_cross_entropy", "times_as_fast_as_keras"),
        *((f"loss of 5 tokens over 11, {name}", "peak_memory_mb") for name in layer_speed.LOSSES),
    ]


# Speed of prediction


def test_files_of_short_texts_are_predicted_in_fresh_processes(capsys):
    found = run_json(prediction_speed, ["--random", "--rows", "40", "--words", "3", "5", "--multiples", "1", "2", "--rounds", "1"], capsys)
    assert [(one["model"], one["metric"]) for one in found["results"]] == [
        (name, metric)
        for name in ("40 texts of 3 words", "80 texts of 3 words", "40 texts of 5 words")
        for metric in ("rows_per_second", "peak_memory_mb")
    ]


def test_texts_of_a_file_have_so_many_words(tmp_path):
    lines = prediction_speed.write_texts(tmp_path / "t.csv", num_words=4, num_rows=30_000).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "text" and len(lines) == 30_001 and all(len(line.split()) == 4 for line in lines[1:])


# Training speed


def test_operations_per_token_by_hand():
    # GRU: 3 gates of 4 x (2 + 4) weights, projection 4 x 2, output 2 x 10; six operations for each weight.
    assert training_speed.operations_per_token("gru", 10, 2, 4) == 6 * (72 + 8 + 20)
    assert training_speed.operations_per_token("lstm", 10, 2, 4) == 6 * (96 + 8 + 20)
    assert training_speed.operations_per_token("gru", 10, 4, 4) == 6 * (96 + 40)  # sizes agree: no projection


def test_sides_take_turns_and_the_ratio_is_that_of_each_turn(tmp_path):
    log = tmp_path / "log"
    stub = tmp_path / "stub.py"
    stub.write_text(f"""
import json, sys
name, seconds = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps({{"version": name, "num_parameters": json.loads(sys.argv[3])["units"]}}), flush=True)
for number, _ in enumerate(sys.stdin):
    open({str(log)!r}, "a").write(name[0])
    print(json.dumps({{"seconds": seconds[number]}}), flush=True)
""")
    options = training_speed.parse(["--rounds", "3", "--steps", "2", "--batch-size", "5", "--window", "10", "--units", "7"])
    # The second turn is slow for both.
    sides = {
        "slm_helpers": [sys.executable, str(stub), "ours", "[1, 10, 2]"],
        "PyTorch": [sys.executable, str(stub), "theirs", "[2, 40, 2]"],
    }
    found, facts = training_speed.race(sides, training_speed.settings_of(options, "gru", "float32"), options)
    assert log.read_text() == "ototot"
    assert found == {"slm_helpers": [100, 10, 50], "PyTorch": [50, 2.5, 50]}
    rows = training_speed.compare("GRU", found, facts, [1e9, 2e9], options, "gru")
    ratio = next(one for one in rows if one["metric"] == "times_as_fast_as_pytorch")
    assert (ratio["value"], ratio["ci_low"], ratio["ci_high"]) == (2, 1, 4)
    share = next(one for one in rows if one["metric"] == "share_of_peak")
    assert share["value"] == pytest.approx(50 * training_speed.operations_per_token("gru", 4096, 256, 7) / 2e9)
    assert rows[0]["num_parameters"] == 7


def test_a_side_that_fails_is_an_error_and_not_a_number(tmp_path):
    (tmp_path / "stub.py").write_text("raise SystemExit(3)")
    options = training_speed.parse(["--rounds", "1"])
    with pytest.raises(ValueError, match=r"stub\.py ended with exit code 3"):
        training_speed.race({"PyTorch": [sys.executable, str(tmp_path / "stub.py")]}, {"threads": 1}, options)


def test_our_side_answers_every_line_with_a_round(monkeypatch, capsys):
    options = training_speed.parse(["--steps", "2", "--vocab-size", "20", "--embedding-dim", "4", "--units", "5", "--batch-size", "2"])
    settings = training_speed.settings_of(options, "gru", "float32") | {"num_tokens": 1000}
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    keras_training.train(settings)
    first, *rounds = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["version"].startswith("slm_helpers") and first["num_parameters"] == 20 * 4 + 3 * 5 * (4 + 5 + 2) + 5 * 4
    assert len(rounds) == 2 and all(one["seconds"] > 0 for one in rounds)


def test_peak_is_measured_in_three_ways(monkeypatch, capsys):
    pytest.importorskip("tensorflow")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    keras_training.measure_peak({"size": 64, "steps": 1})
    _, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(found) == {"NumPy float32", "TensorFlow float32", "TensorFlow bfloat16"} and min(found.values()) > 0


# The others


def test_generation_is_measured_beside_both_loops(capsys):
    sizes = ["--random", "--vocab-size", "300", "--embedding-dim", "4", "--units", "4", "--batch-sizes", "1", "3"]
    found = run_json(generation_speed, [*sizes, "--tokens", "4", "--slow-tokens", "2", "--rounds", "1", "--cold-rounds", "0"], capsys)
    assert len(found["results"]) == 2 * 8 + 1
    assert {one["num_parameters"] for one in found["results"]} == {300 * 4 + 3 * 4 * (4 + 4 + 2)}


def test_quality_is_reached_in_the_time_given_and_nothing_of_the_rest_is_trained_on(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("abc" * 3000, encoding="utf-8")
    recipe = time_to_quality.Recipe(up_to_seconds=1e9, units=8, embedding_dim=4, batch_size=8, window=16, dropout=0.0, learning_rate=0.03)
    monkeypatch.setattr(time_to_quality, "RECIPES", (recipe,))
    for seconds in (9, 45, 180):  # a slow or busy machine gets more
        started = time.time()
        monkeypatch.setattr(time_to_quality, "process_start", lambda started=started: started)
        found = run_json(time_to_quality, ["--text", str(text), "--seconds", str(seconds)], capsys)
        assert found["vocab_size"] == 3
        if found["valid_loss_nats"] < 0.5 * math.log(3):
            break
    assert found["valid_loss_nats"] < 0.5 * math.log(3), "three letters in turn were not learnt"
    train_ids, valid_ids, vocab_size = time_to_quality.split_characters("a" * 9000 + "b" * 1000)
    assert (len(train_ids), len(valid_ids), vocab_size) == (9000, 1000, 2)
    assert not train_ids.any() and valid_ids.all()
    with pytest.raises(ValueError, match="at least 2,816 are needed"):
        time_to_quality.split_characters("ab" * 500)
    monkeypatch.setattr(time_to_quality, "process_start", lambda: time.time() - 100)
    with pytest.raises(ValueError, match="9 seconds are too few"):
        time_to_quality.main(["--text", str(text), "--seconds", "9"])


def test_recipes_are_in_order_and_the_last_has_no_end():
    limits = [recipe.up_to_seconds for recipe in time_to_quality.RECIPES]
    assert limits == sorted(limits) and limits[-1] == math.inf
    assert time_to_quality.recipe_for(100).units == 384
    assert time_to_quality.recipe_for(limits[0] + 1) == time_to_quality.RECIPES[1]


def test_scaling_counts_the_tokens_it_timed(tmp_path):
    settings = {"vocab_size": 20, "embedding_dim": 4, "units": 4, "num_tokens": 2000, "window": 8, "batch_size": 16, "seed": 1}
    found = scaling.measure(settings | {"folder": str(tmp_path)})
    # 248 windows make 15 batches; the first two compile and are left out.
    assert found["num_tokens"] == 13 * 16 * 8
    assert 50 < found["peak_memory_mb"] < 50_000 and found["seconds"] > 0
    stream = np.load(tmp_path / "2000.npy", mmap_mode="r")
    assert stream.shape == (2000,) and stream.min() >= 3 and stream.max() < 20
    plan = scaling.plan(scaling.parse([]))
    assert len(plan) == 3 + 4 + 3 and [one["num_tokens"] for _, one in plan[:3]] == [250_000, 1_000_000, 4_000_000]


# What is saved


def test_only_save_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("slm_helpers.data.results.RESULTS_DIR", tmp_path)
    rows = [results.median_row("m", "peak_memory_mb", [3.0, 1.0, 2.0])]
    results.report(results.Parser("x", "").parse_args([]), "x", rows)
    assert not list(tmp_path.iterdir()) and re.search(r"peak_memory_mb +2  \[1, 3\]", capsys.readouterr().out)
    for _ in range(2):  # the same measurement again takes the place of the first
        results.report(results.Parser("x", "").parse_args(["--save", "--seed", "7"]), "x", rows, dataset="d")
    table = read_results("benchmarks", folder=tmp_path)
    assert table[["task", "dataset", "seed", "value", "ci_high"]].to_numpy().tolist() == [["x", "d", 7, 2.0, 3.0]]


def test_readme_table_shows_numbers_as_a_reader_wants_them(tmp_path):
    speed = ROW | {"metric": "tokens_per_second", "value": 19960.4, "ci_low": 1.234, "ci_high": 123.4}
    old = speed | {"seed": 0, "value": 1.0}
    training = speed | {"task": "training_speed", "model": "n"}
    write_results("benchmarks", [old, speed, ROW | {"metric": "x"}, ROW | {"metric": "peak_memory_mb"}, training], folder=tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{results.README_START}\nold\n{results.README_END}\nafter\n")
    results.update_readme(readme, tmp_path)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    lines = [line for line in text.splitlines() if "| d |" in line]
    assert lines == [
        "| training speed | d | n | 19,960 tokens a second (1.23 to 123) | 2 cores |",
        "| scaling | d | m | 19,960 tokens a second (1.23 to 123); 1.5 MB at most | 2 cores |",
    ]


def test_the_readme_is_that_of_the_table():
    readme = Path(results.REPO_DIR / "README.md").read_text(encoding="utf-8")
    written = readme.partition(results.README_START)[2].partition(results.README_END)[0]
    assert written == "\n" + "\n".join(results.readme_table()) + "\n", "run python -m tests.benchmarks.results"
    table = read_results(results.TABLE)
    assert set(table["task"]) == set(SCRIPTS)
    assert np.isfinite(table["value"]).all()
