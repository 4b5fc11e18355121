"""Encoder and decoder step as ONNX graphs compute what the Keras views compute."""

import json

from slm_helpers.deploy.onnx_decoder import build_decoder_step, build_encoder
from slm_helpers.models.encoder_decoder import build_encoder_decoder, build_pointer_generator, make_decoder_step, make_encoder

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

VOCAB_SIZE = 13
MODELS = {
    "one": lambda: build_encoder_decoder(VOCAB_SIZE, embedding_dim=6, encoder_units=5, units=8, num_decoder_layers=1),
    "two": lambda: build_encoder_decoder(VOCAB_SIZE, embedding_dim=6, encoder_units=5, units=8),
    "copying": lambda: build_pointer_generator(VOCAB_SIZE, embedding_dim=6, units=8, backward_units=4, memory_dim=5),
    "copying_deep": lambda: build_pointer_generator(
        VOCAB_SIZE, cell="rnn", embedding_dim=6, units=6, num_layers=2, backward_units=4, memory_dim=5
    ),
}


def run(build, model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    recipe = json.loads(model.builder_config)
    weights = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    graph = build(recipe["builder"], recipe["arguments"], weights)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: values for each, values in zip(session.get_inputs(), inputs, strict=True)})


@pytest.mark.parametrize("name", MODELS)
def test_encoder_and_steps(name):
    model, rng = MODELS[name](), np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    source = rng.integers(1, VOCAB_SIZE, (3, 6)).astype("int32")
    source[0, 3:] = source[2, 1:] = 0
    source[1, 2] = source[1, 4]  # a token that can be copied from two positions
    encoded = run(build_encoder, model, [source])
    expected = [keras.ops.convert_to_numpy(part) for part in make_encoder(model)(source)]
    for ours, theirs in zip(encoded, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    step = make_decoder_step(model)
    *states, memory = encoded
    states += [np.zeros((3, each.shape[-1]), "float32") for each in step.inputs[1 + len(states) : -2]]
    for _ in range(3):
        token_ids = rng.integers(0, VOCAB_SIZE, 3).astype("int32")
        found = run(build_decoder_step, model, [token_ids, *states, memory, source])
        expected = [keras.ops.convert_to_numpy(part) for part in step([token_ids, *states, memory, source])][:-2]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
        states = found[1:]


def test_other_networks_and_missing_weights_are_refused():
    with pytest.raises(TypeError, match="build_tagger builds no encoder-decoder"):
        build_encoder("build_tagger", {}, {})
    with pytest.raises(ValueError, match="are missing"):
        build_decoder_step("build_encoder_decoder", {"vocab_size": 5}, {})
