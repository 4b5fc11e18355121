"""The ONNX graph of a network computes what the Keras model computes, at any batch and length."""

import json

from slm_helpers.deploy.onnx_graph import GRAPHS, build_graph
from slm_helpers.models.classifiers import build_keyword_spotter, build_text_classifier
from slm_helpers.models.language_model import build_language_model, build_transformer_language_model, make_stateful_model
from slm_helpers.models.reader import build_span_extractor
from slm_helpers.models.saved import load_model, save_model
from slm_helpers.models.stored import read_weights
from slm_helpers.models.taggers import build_intent_slot_model, build_tagger
from slm_helpers.models.tracer import build_knowledge_tracer
from slm_helpers.text.hashing import NUM_WORD_FEATURES
from slm_helpers.text.tagging import MAX_CHARACTERS, NUM_CHARACTERS

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

VOCAB_SIZE = 11
SIZES = {"embedding_dim": 6, "units": 9}


def randomized(model: keras.Model, *, scale: float = 0.5, seed: int = 0) -> keras.Model:
    rng = np.random.default_rng(seed)
    # Tables of n-grams hold a square in their last column, which is not negative.
    for weight in model.weights:
        values = rng.normal(0, scale, weight.shape)
        weight.assign(abs(values) if weight.path.endswith("table") else values)
    return model


def open_graph(model: keras.Model) -> onnxruntime.InferenceSession:
    recipe = json.loads(model.builder_config)
    weights = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    graph = build_graph(recipe["builder"], recipe["arguments"], weights)
    onnx.checker.check_model(graph, full_check=True)
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def ids(rng: np.random.Generator, lengths: list[int], high: int, *more: int) -> np.ndarray:
    """Return random ids from 1 on, padded on the right with 0: shape (batch, time, *more)."""
    found = rng.integers(1, high, (len(lengths), max(lengths), *more)).astype("int32")
    found[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = 0
    return found


def word_ends(lengths: list[int]) -> np.ndarray:
    """Return the ends of words of one and two tokens in turn, behind a first token."""
    found = np.cumsum(1 + np.arange(max(lengths)) % 2, dtype="int32") + np.zeros((len(lengths), 1), dtype="int32")
    found[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = 0
    return found


def word_inputs(rng: np.random.Generator, words: list[int]) -> list[np.ndarray]:
    """Return token_ids, word_ends and characters of sentences of so many words."""
    ends = word_ends(words)
    characters = ids(rng, words, NUM_CHARACTERS, MAX_CHARACTERS)
    characters[:, :, 5:] *= rng.integers(0, 2, characters[:, :, 5:].shape).astype("int32")
    return [ids(rng, [int(row.max()) + 1 for row in ends], VOCAB_SIZE), ends, characters]


def check_equal(model: keras.Model, inputs: list[np.ndarray]) -> None:
    session = open_graph(model)
    found = session.run(None, {each.name: values for each, values in zip(session.get_inputs(), inputs, strict=True)})
    expected = keras.ops.convert_to_numpy(model(inputs if len(inputs) > 1 else inputs[0]))
    assert [each.name for each in session.get_inputs()] == [each.name for each in model.inputs]
    np.testing.assert_allclose(found[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(("num_layers", "tie_embeddings", "units"), [(1, True, 6), (2, True, 9), (2, False, 9)])
def test_language_model_carries_its_states(cell, num_layers, tie_embeddings, units):
    sizes = {"num_layers": num_layers, "tie_embeddings": tie_embeddings, "embedding_dim": 6, "units": units}
    model = randomized(build_language_model(VOCAB_SIZE, cell=cell, dropout=0.3, **sizes))
    stateful, session = make_stateful_model(model), open_graph(model)
    rng = np.random.default_rng(1)
    states = [np.zeros((3, units), "float32") for _ in stateful.inputs[1:]]
    for length in (5, 1, 2):
        token_ids = rng.integers(0, VOCAB_SIZE, (3, length)).astype("int32")
        found = session.run(None, dict(zip([each.name for each in session.get_inputs()], [token_ids, *states], strict=True)))
        expected = [keras.ops.convert_to_numpy(part) for part in stateful([token_ids, *states])]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
        states = found[1:]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("num_buckets", [0, 10])
def test_text_classifier(cell, num_buckets):
    model = randomized(build_text_classifier(VOCAB_SIZE, num_classes=3, cell=cell, num_layers=2, num_buckets=num_buckets, **SIZES))
    rng = np.random.default_rng(1)
    for lengths in ([4, 1, 7], [3]):
        check_equal(model, [ids(rng, lengths, VOCAB_SIZE), *([ids(rng, [len(lengths)] * len(lengths), 11)] if num_buckets else [])])


def test_keyword_spotter():
    rng = np.random.default_rng(1)
    real = ids(rng, [4, 2, 6], 2)
    check_equal(
        randomized(build_keyword_spotter(num_classes=4, num_bands=5, units=6)), [rng.integers(-300, 300, (3, 6, 5)).astype("int32"), real]
    )


def test_knowledge_tracer():
    rng = np.random.default_rng(1)
    inputs = [ids(rng, [4, 6], 12), ids(rng, [4, 6], 6), rng.integers(0, 200, (2, 6, 3)).astype("int32")]
    check_equal(randomized(build_knowledge_tracer(5, num_features=3)), inputs)


@pytest.mark.parametrize("num_buckets", [0, 20])
def test_tagger(num_buckets):
    model = randomized(build_tagger(VOCAB_SIZE, num_tags=4, head_units=5, filters=7, num_buckets=num_buckets, **SIZES))
    rng = np.random.default_rng(1)
    for words in ([3, 1, 5], [2]):
        check_equal(model, [*word_inputs(rng, words), *([ids(rng, words, 21, NUM_WORD_FEATURES)] if num_buckets else [])])


@pytest.mark.parametrize(("num_buckets", "num_intent_buckets"), [(0, 0), (20, 0), (0, 12), (20, 12)])
def test_intent_slot_model(num_buckets, num_intent_buckets):
    buckets = {"num_buckets": num_buckets, "num_intent_buckets": num_intent_buckets}
    model = randomized(build_intent_slot_model(VOCAB_SIZE, num_tags=4, num_intents=3, head_units=5, filters=7, **buckets, **SIZES))
    rng, words = np.random.default_rng(1), [3, 2, 5]
    features = [ids(rng, words, 21, NUM_WORD_FEATURES)] if num_buckets else []
    check_equal(model, [*word_inputs(rng, words), *features, *([ids(rng, words, 13)] if num_intent_buckets else [])])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_span_extractor(cell):
    model = randomized(build_span_extractor(VOCAB_SIZE, num_features=3, cell=cell, head_units=5, **SIZES))
    rng = np.random.default_rng(1)
    question, passage = word_inputs(rng, [2, 4, 1])[:2], word_inputs(rng, [6, 3, 5])[:2]
    check_equal(model, [*question, *passage, rng.integers(0, 200, (3, 6, 3)).astype("int32")])


def test_a_folder_is_all_that_is_needed(tmp_path):
    model = randomized(build_text_classifier(VOCAB_SIZE, num_classes=2, **SIZES))
    save_model(tmp_path / "model", model, task="classify", labels=["a", "b"], weights_dtype="float16")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    graph = build_graph(config["builder"], config["arguments"], read_weights(tmp_path / "model", config))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    token_ids = ids(np.random.default_rng(2), [3, 5], VOCAB_SIZE)
    expected = load_model(tmp_path / "model").model.predict_on_batch(token_ids)
    np.testing.assert_allclose(session.run(None, {"token_ids": token_ids})[0], expected, atol=1e-5)


def test_a_network_without_graph_or_weights_is_refused():
    model = build_transformer_language_model(VOCAB_SIZE, size=8, num_layers=1, num_heads=2)
    with pytest.raises(TypeError, match="no ONNX graph for models of build_transformer_language_model, only for those of build_lang"):
        open_graph(model)
    recipe = json.loads(build_language_model(VOCAB_SIZE, **SIZES).builder_config)
    with pytest.raises(ValueError, match="are missing"):
        build_graph(recipe["builder"], recipe["arguments"], {})
    assert "build_language_model" in GRAPHS
