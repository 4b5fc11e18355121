"""A language model with 8-bit weights: close to the exact one, the same for each row whatever stands beside it, and without Keras."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slm_helpers._paths import PRETRAINED_DIR
from slm_helpers.data.loading import load_dataset
from slm_helpers.deploy import engine
from slm_helpers.deploy.engine import LanguageModelEngine, RowNetwork, open_saved, runs_without_keras
from slm_helpers.deploy.onnx_graph import GRAPHS
from slm_helpers.deploy.quantize import quantize
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.language_model import build_language_model, build_transformer_language_model
from slm_helpers.models.saved import load_model, load_pretrained, save_model
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import numpy as np
import pytest

TOKENIZER = train_bpe_tokenizer(["once upon a time there was a cat, and the cat sat on the mat"], vocab_size=280)


def save_random(folder: Path, *, cell: str = "gru", **sizes) -> Path:
    model = build_language_model(TOKENIZER.vocab_size, cell=cell, **{"embedding_dim": 16, "units": 24} | sizes)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.4, w.shape) for w in model.get_weights()])
    return save_model(folder, model, tokenizer=TOKENIZER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random(tmp_path_factory.mktemp("models") / "tiny")


def some_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, TOKENIZER.vocab_size, shape).astype("int32")


def test_rounding_is_at_most_half_a_step():
    matrix = np.random.default_rng(0).normal(0, 1, (20, 5)).astype("float32")
    matrix[:, 2] = 0
    for axis in (0, 1):
        numbers, scales = quantize(matrix, axis=axis)
        steps = scales[None] if axis else scales[:, None]
        assert numbers.dtype == np.int8 and scales.shape == (matrix.shape[axis],)
        assert (abs(numbers * steps - matrix) <= steps * 0.5001).all()


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(("num_layers", "tie_embeddings", "units"), [(1, True, 16), (2, True, 24), (2, False, 24)])
def test_logits_are_those_of_the_exact_model_but_for_rounding(tmp_path, cell, num_layers, tie_embeddings, units):
    path = save_random(tmp_path / "model", cell=cell, num_layers=num_layers, tie_embeddings=tie_embeddings, units=units)
    runtime, ids = open_saved(path).model, some_ids(3, 7)
    logits, states = runtime.read(ids, runtime.zero_states(3))
    expected = load_model(path).model.predict_on_batch(ids)
    assert logits.shape == expected.shape and runtime.vocab_size == TOKENIZER.vocab_size
    assert abs(logits - expected).mean() < 0.05 * expected.std()

    stepped = runtime.zero_states(3)
    for position in range(7):
        one, stepped = runtime.step(ids[:, position], stepped)
        np.testing.assert_allclose(one, logits[:, position], atol=1e-4)
    for carried, whole, alone in zip(stepped, states, runtime.advance(ids, runtime.zero_states(3)), strict=True):
        np.testing.assert_allclose(carried, whole, atol=1e-5)
        np.testing.assert_array_equal(alone, whole)


def test_a_row_gets_the_same_logits_whatever_stands_beside_it(folder):
    runtime, ids = open_saved(folder).model, some_ids(40, 6)  # so many that a second thread is used
    together, _ = runtime.read(ids, runtime.zero_states(40))
    alone, _ = runtime.read(ids[7:8], runtime.zero_states(1))
    np.testing.assert_allclose(together[7], alone[0], atol=1e-6)


def test_same_seed_same_text_alone_among_others_and_in_threads(folder):
    saved = open_saved(folder)
    generator = TextGenerator(saved.model, saved.tokenizer)
    first = generator.generate("a cat", max_tokens=30, seed=5).samples
    assert generator.generate("a cat", max_tokens=30, seed=5, num_samples=20).samples[:1] == first
    assert generator.generate("a cat", max_tokens=30, seed=6).samples != first
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: generator.generate("a cat", max_tokens=30, seed=seed).samples, [5] * 8))
    assert found == [first] * 8


def test_texts_are_scored_like_by_the_exact_model(folder):
    exact, saved = load_model(folder), open_saved(folder)
    texts = ["once upon a time", "the cat " * 200, "mat"]
    expected = TextGenerator(exact.model, exact.tokenizer).text_losses(texts)
    for losses, others in zip(TextGenerator(saved.model, saved.tokenizer).text_losses(texts), expected, strict=True):
        assert losses.shape == others.shape and losses.mean() == pytest.approx(others.mean(), rel=0.03)


def test_rounding_costs_the_base_model_less_than_a_third_of_a_percent():
    texts = load_dataset("stories", split="test")["text"].str[:600].tolist()[:12]
    exact, saved = load_pretrained("slm-base-en"), open_saved(PRETRAINED_DIR / "slm-base-en")
    nats = [sum(part.sum() for part in TextGenerator(each.model, each.tokenizer).text_losses(texts)) for each in (exact, saved)]
    assert nats[1] < 1.003 * nats[0]


def test_a_graph_is_made_once_and_a_damaged_one_anew(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SLM_CACHE_DIR", str(tmp_path))
    ids, made = some_ids(2, 3), []
    make = engine._make_graph
    monkeypatch.setattr(engine, "_make_graph", lambda *arguments: made.append(arguments[2]) or make(*arguments))

    def read() -> np.ndarray:
        model = open_saved(folder).model
        return model.read(ids, model.zero_states(2))[0]

    first = read()
    assert made == ["step", "reading"] and len(list((tmp_path / "graphs").iterdir())) == 2
    np.testing.assert_array_equal(read(), first)
    assert len(made) == 2
    for path in (tmp_path / "graphs").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    np.testing.assert_array_equal(read(), first)
    assert len(made) == 4
    monkeypatch.setenv("SLM_CACHE_DIR", str(folder / "config.json"))  # no folder: nothing can be kept
    np.testing.assert_array_equal(read(), first)
    assert len(made) == 6


def test_a_changed_or_mismatched_folder_is_one_clear_error(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    for name, value in (("cell", "lstm"), ("num_layers", 2), ("tie_embeddings", False), ("units", 16), ("vocab_size", 40)):
        changed = config | {"arguments": config["arguments"] | {name: value}}
        (tmp_path / "a" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"(does|do) not fit"):
            open_saved(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    (tmp_path / "a" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="changed or cut short"):
        open_saved(tmp_path / "a")
    with pytest.raises(ValueError, match="for the task 'lm', but 'classify' is needed"):
        open_saved(folder, task="classify")


def test_networks_without_a_graph_are_left_to_keras(tmp_path):
    model = build_transformer_language_model(TOKENIZER.vocab_size, size=8, num_layers=1, num_heads=2)
    path = save_model(tmp_path / "model", model, tokenizer=TOKENIZER)
    with pytest.raises(TypeError, match="run with Keras only"):
        open_saved(path)
    assert not runs_without_keras(json.loads((path / "config.json").read_text()))
    assert {engine.LANGUAGE_MODEL, *engine.ROW_NETWORKS} <= set(GRAPHS)


def test_a_row_network_computes_what_the_keras_model_does(tmp_path):
    model = build_text_classifier(TOKENIZER.vocab_size, num_classes=2, embedding_dim=8, units=8)
    path = save_model(tmp_path / "model", model, tokenizer=TOKENIZER, task="classify", labels=["a", "b"])
    network, ids = open_saved(path).model, 1 + some_ids(3, 5) % 200
    assert isinstance(network, RowNetwork) and json.loads(network.builder_config) == json.loads(model.builder_config)
    np.testing.assert_allclose(network.predict_on_batch(ids), model.predict_on_batch(ids), atol=1e-5)


@pytest.mark.parametrize("command", ["generate --prompt cat --max-tokens 3", "score --text TEXT"])
def test_commands_run_without_keras(folder, tmp_path, command):
    (tmp_path / "text.txt").write_text("once upon a time")
    arguments = [*command.replace("TEXT", str(tmp_path / "text.txt")).split(), "--model", str(folder), "--json"]
    code = f"""
import sys
from slm_helpers.cli import main
assert main({arguments!r}) == 0
print(sorted({{"keras", "tensorflow", "pandas", "sklearn"}} & set(sys.modules)))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ.copy(), check=True)
    assert process.stdout.splitlines()[-1] == "[]"


def test_the_engine_has_the_methods_of_the_other_runtimes():
    from slm_helpers.generation.runtime import Runtime

    public = {name for name in vars(Runtime) if not name.startswith("_")}
    assert public <= set(vars(LanguageModelEngine))
