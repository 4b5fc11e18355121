"""Which weights Muon treats as matrices, and which layers stay in float32."""

import dataclasses

from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.language_model import build_language_model, build_transformer_language_model
from slm_helpers.models.layers import FLOAT32
from slm_helpers.training.config import STREAM_DEFAULTS, TrainConfig
from slm_helpers.training.optimizers import BlockMuon, make_optimizer, num_blocks
from slm_helpers.training.step import computing_in

import keras
import numpy as np
import pytest


@pytest.mark.parametrize(("cell", "gates"), [("gru", 3), ("lstm", 4), ("rnn", 1)])
def test_gates_are_known_by_the_kind_of_layer_and_biases_are_no_matrices(cell, gates):
    model = build_language_model(9, cell=cell, embedding_dim=4, units=8, tie_embeddings=False)
    recurrent = next(layer for layer in model.layers if isinstance(layer, keras.layers.RNN))
    assert num_blocks(model) == {recurrent.cell.kernel.path: gates, recurrent.cell.recurrent_kernel.path: gates}  # neither bias nor logits
    optimizer = BlockMuon(0.01, num_blocks(model))
    optimizer.build(model.trainable_variables)
    assert optimizer._should_use_adamw(recurrent.cell.bias)  # of a GRU it has two axes


def test_a_layer_may_have_any_name():
    inputs = keras.Input(shape=(None, 4))
    model = keras.Model(inputs, keras.layers.Dense(3, name="lstm_like")(keras.layers.GRU(5, name="encoder")(inputs)))
    assert sorted(num_blocks(model).values()) == [1, 3, 3]


def test_queries_keys_and_values_are_matrices_of_their_own():
    model = build_transformer_language_model(9, size=8, num_layers=1, num_heads=2)
    assert sorted(num_blocks(model).values()) == [1, 1, 1, 3]


def test_each_gate_is_brought_to_one_length_and_a_bias_moves_as_in_adam():
    model = build_language_model(9, cell="gru", embedding_dim=8, units=8)
    optimizer = BlockMuon(1.0, num_blocks(model), weight_decay=None, adam_weight_decay=None)
    optimizer.build(model.trainable_variables)
    rng, before = np.random.default_rng(0), {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables}
    scales = np.repeat([1.0, 100.0, 0.01], 8).astype("float32")  # of the gradients of three gates
    gradients = [rng.normal(size=v.shape).astype("float32") * (scales if v.shape[-1] == 24 else 1) for v in model.trainable_variables]
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], model.trainable_variables)
    cell = model.get_layer("gru_0").cell
    moved = keras.ops.convert_to_numpy(cell.recurrent_kernel) - before[cell.recurrent_kernel.path]
    for gate in np.split(moved, 3, axis=1):
        lengths = np.linalg.svd(gate, compute_uv=False) / (8**0.5 * 0.2)
        assert lengths.min() > 0.6 and lengths.max() < 1.3  # the five iterations come about so near to 1
    np.testing.assert_allclose(np.abs(keras.ops.convert_to_numpy(cell.bias) - before[cell.bias.path]), 1.0, rtol=1e-2)


@pytest.mark.parametrize(("muon_columns", "columns"), [(0, 8), (4, 4), (5, 8)])  # 5 do not divide a gate of 8
def test_muon_makes_a_gate_or_a_few_columns_of_it_orthogonal(muon_columns, columns):
    model = build_language_model(9, cell="gru", embedding_dim=9, units=8)
    kernel = model.get_layer("gru_0").cell.kernel
    config = TrainConfig(optimizer="muon", learning_rate=1.0, muon_columns=muon_columns).with_defaults(STREAM_DEFAULTS)
    change = first_change(config, model, kernel)
    for start in range(0, 24, columns):
        singular = np.linalg.svd(change[:, start : start + columns], compute_uv=False)
        assert singular.max() < 1.9 * singular.min()
    if columns == 4:
        assert np.linalg.svd(change[:, :8], compute_uv=False).max() > 1.1 * singular.max()  # not the whole gate


def test_adam_share_sets_the_rate_of_the_embeddings_under_muon():
    model = build_language_model(9, cell="gru", embedding_dim=4, units=8)
    embeddings = model.get_layer("embedding").embeddings
    for share in (1.0, 0.1, 0.4):
        config = TrainConfig(optimizer="muon", learning_rate=0.01, adam_share=share).with_defaults(STREAM_DEFAULTS)
        np.testing.assert_allclose(np.abs(first_change(config, model, embeddings)), 0.01 * share, rtol=1e-3)


def first_change(config: TrainConfig, model: keras.Model, variable) -> np.ndarray:
    """Return by how much the first step on random gradients, too short to be clipped, changes a variable."""
    optimizer = make_optimizer(dataclasses.replace(config, max_gradient_norm=1e9), model)
    optimizer.build(model.trainable_variables)
    rng, before = np.random.default_rng(0), keras.ops.convert_to_numpy(variable).copy()
    gradients = [keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32")) for v in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    return keras.ops.convert_to_numpy(variable) - before


def test_only_layers_without_a_precision_of_their_own_compute_in_another():
    model = build_text_classifier(9, num_classes=2, embedding_dim=4, units=8)
    own = {layer.name for layer in model.layers if layer.dtype_policy is FLOAT32}
    assert own == {"pooling", "pooling_dropout", "logits"}
    with computing_in(model, keras.DTypePolicy("mixed_bfloat16")):
        assert {layer.name for layer in model.layers if layer.dtype_policy.compute_dtype == "float32"} == own
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert {layer.name for layer in model.layers if layer.dtype_policy is FLOAT32} == own
