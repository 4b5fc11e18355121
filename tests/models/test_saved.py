"""The language model: shapes, sizes, no look ahead, the stepwise view; and folders that load back to what was saved."""

import json
import os
import pickle

from slm_helpers.models import folders, stored
from slm_helpers.models import saved as models
from slm_helpers.models.classifiers import build_keyword_spotter, build_text_classifier
from slm_helpers.models.encoder_decoder import build_encoder_decoder, build_pointer_generator
from slm_helpers.models.language_model import (
    build_language_model,
    build_transformer_language_model,
    make_stateful_model,
    recurrent_layers,
    zero_states,
)
from slm_helpers.models.reader import build_span_extractor
from slm_helpers.models.registry import load_backbone_weights
from slm_helpers.models.saved import load_model, load_pretrained, save_model
from slm_helpers.models.stored import quantize_matrix
from slm_helpers.models.taggers import build_intent_slot_model, build_tagger
from slm_helpers.models.tracer import build_knowledge_tracer
from slm_helpers.text.tokenizers import train_char_tokenizer

import keras
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

CELLS = ("rnn", "gru", "lstm")
VOCAB_SIZE = 11


def randomized(model: keras.Model, *, seed: int = 0, scale: float = 0.5) -> keras.Model:
    """Give every weight, biases too, a random value: a fresh model's zero biases would hide mistakes."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, scale, w.shape) for w in model.get_weights()])
    return model


def small_model(
    cell: str = "gru", *, num_layers: int = 1, tie_embeddings: bool = True, dropout: float = 0.0, units: int = 8
) -> keras.Model:
    return randomized(
        build_language_model(
            VOCAB_SIZE, cell=cell, embedding_dim=6, units=units, num_layers=num_layers, dropout=dropout, tie_embeddings=tie_embeddings
        )
    )


def logits_of(model: keras.Model, token_ids: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(token_ids))


def step_on(stepwise: keras.Model, token_ids: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
    """Return [logits, *states] as NumPy arrays."""
    return [keras.ops.convert_to_numpy(value) for value in stepwise([token_ids, *states])]


def some_ids(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, shape).astype("int32")


# The model


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_logits_have_one_row_per_position_and_one_column_per_token(cell, num_layers, tie_embeddings):
    model = small_model(cell, num_layers=num_layers, tie_embeddings=tie_embeddings)
    assert model.output_shape == (None, None, VOCAB_SIZE)
    assert len(recurrent_layers(model)) == num_layers
    for time in (1, 5):
        logits = logits_of(model, some_ids(3, time))
        assert logits.shape == (3, time, VOCAB_SIZE)
        assert logits.dtype == np.float32


# By hand, for 11 tokens, vectors of 6 and 8 units. A weight block of a layer is (inputs x 8) + (8 x 8) + biases of 8:
# rnn 48 + 64 + 8 = 120, lstm four of them; gru three with two biases each, 3 * (48 + 64 + 16) = 384.
FIRST_LAYER = {"rnn": 120, "gru": 384, "lstm": 480}
# The second layer reads 8 inputs: 64 + 64 + 8 = 136 a block.
SECOND_LAYER = {"rnn": 136, "gru": 432, "lstm": 544}
EMBEDDING = 66  # 11 x 6
PROJECTION = 48  # 8 x 6, no bias
OUTPUT_LAYER = 99  # 8 x 11 + 11


@pytest.mark.parametrize("cell", CELLS)
def test_parameter_counts_equal_those_worked_out_by_hand(cell):
    assert small_model(cell).count_params() == EMBEDDING + FIRST_LAYER[cell] + PROJECTION
    assert small_model(cell, tie_embeddings=False).count_params() == EMBEDDING + FIRST_LAYER[cell] + OUTPUT_LAYER
    assert small_model(cell, num_layers=2).count_params() == EMBEDDING + FIRST_LAYER[cell] + SECOND_LAYER[cell] + PROJECTION


def test_tied_embeddings_need_no_projection_when_sizes_agree():
    model = build_language_model(VOCAB_SIZE, embedding_dim=8, units=8)
    assert model.count_params() == 11 * 8 + SECOND_LAYER["gru"]
    assert "projection" not in [layer.name for layer in model.layers]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_prediction_never_sees_the_future(cell, num_layers):
    model = small_model(cell, num_layers=num_layers)
    seen, changed = some_ids(2, 9), some_ids(2, 9)
    changed[:, 5:] = (changed[:, 5:] + 1) % VOCAB_SIZE
    before, after = logits_of(model, seen), logits_of(model, changed)
    np.testing.assert_allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert (np.abs(before[:, 5:] - after[:, 5:]).max(axis=(1, 2)) > 0.01).all()  # the change did reach the model


@pytest.mark.parametrize("cell", CELLS)
def test_prediction_does_depend_on_the_past(cell):
    model = small_model(cell)
    seen, changed = some_ids(1, 6), some_ids(1, 6)
    changed[0, 0] = (changed[0, 0] + 1) % VOCAB_SIZE
    assert np.abs(logits_of(model, seen)[0, 3] - logits_of(model, changed)[0, 3]).max() > 1e-4


def test_dropout_acts_in_training_only():
    model = small_model(dropout=0.5)
    ids = some_ids(2, 6)
    np.testing.assert_array_equal(logits_of(model, ids), logits_of(model, ids))
    in_training = [keras.ops.convert_to_numpy(model(ids, training=True)) for _ in range(2)]
    assert not np.allclose(*in_training)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("num_layers", "tie_embeddings", "units"), [(1, True, 8), (2, True, 6), (2, False, 8)])
def test_stepwise_equals_one_full_pass(cell, num_layers, tie_embeddings, units):
    model = small_model(cell, num_layers=num_layers, tie_embeddings=tie_embeddings, dropout=0.3, units=units)
    ids = some_ids(3, 9)
    whole = logits_of(model, ids)

    in_pieces, stepwise = [], make_stateful_model(model)
    states = zero_states(model, 3)
    for part in (ids[:, :4], ids[:, 4:5], ids[:, 5:]):
        logits, *states = step_on(stepwise, part, states)
        in_pieces.append(logits)
    np.testing.assert_allclose(np.concatenate(in_pieces, axis=1), whole, atol=1e-5)

    one_by_one, step = [], make_stateful_model(model, single_token=True)
    states = zero_states(model, 3)
    for t in range(ids.shape[1]):
        logits, *states = step_on(step, ids[:, t], states)
        one_by_one.append(logits)
    assert one_by_one[0].shape == (3, VOCAB_SIZE)
    np.testing.assert_allclose(np.stack(one_by_one, axis=1), whole, atol=1e-5)


def test_stepwise_shares_the_weights():
    model = small_model()
    step = make_stateful_model(model, single_token=True)
    randomized(model, seed=5)
    logits, *_ = step_on(step, np.array([3], dtype="int32"), zero_states(model, 1))
    np.testing.assert_allclose(logits[0], logits_of(model, np.array([[3]], dtype="int32"))[0, 0], atol=1e-5)


@pytest.mark.parametrize(("cell", "num_states"), [("rnn", 1), ("gru", 1), ("lstm", 2)])
def test_zero_states_come_one_per_state_of_each_layer(cell, num_states):
    states = zero_states(small_model(cell, num_layers=2), 3)
    assert [s.shape for s in states] == [(3, 8)] * (2 * num_states)
    assert all(s.dtype == np.float32 and not s.any() for s in states)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_logits_stay_float32_under_mixed_precision(tie_embeddings):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build_language_model(VOCAB_SIZE, embedding_dim=6, units=8, tie_embeddings=tie_embeddings)
        assert recurrent_layers(model)[0].compute_dtype == "float16"  # the policy did reach the layers
        assert logits_of(model, some_ids(2, 4)).dtype == np.float32
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", ["vocab_size", "embedding_dim", "units", "num_layers"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True, "8"])
def test_a_wrong_size_is_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value!r}.*whole number of at least 1"):
        build_language_model(**{"vocab_size": 7, name: value})


def test_a_numpy_whole_number_is_a_size():
    assert build_language_model(np.int64(7), units=np.int32(4), embedding_dim=4).output_shape == (None, None, 7)


def test_wrong_cell_and_dropout_are_named():
    with pytest.raises(ValueError, match=r"cell is 'transformer'.*'rnn', 'gru', 'lstm'"):
        build_language_model(7, cell="transformer")
    for value in (1, -0.1, 20):
        with pytest.raises(ValueError, match=rf"dropout is {value}.*\[0, 1\).*dropout=0.2"):
            build_language_model(7, dropout=value)
    with pytest.raises(TypeError, match="layers"):
        build_language_model(7, layers=2)  # a misspelt name must fail


# The classifier


def small_classifier(cell: str = "gru", *, num_layers: int = 1, dropout: float = 0.0, num_classes: int = 3) -> keras.Model:
    return randomized(
        build_text_classifier(
            VOCAB_SIZE, num_classes=num_classes, cell=cell, embedding_dim=6, units=8, num_layers=num_layers, dropout=dropout
        )
    )


def test_a_classifier_gives_one_row_of_scores_a_text_and_has_the_weights_worked_out_by_hand():
    model = small_classifier(num_layers=2)
    assert logits_of(model, some_ids(4, 7)).shape == (4, 3)
    head = 3 * 8 * 3 + 3  # mean, maximum and last of 8 units for 3 classes, and a bias each
    assert model.count_params() == EMBEDDING + FIRST_LAYER["gru"] + SECOND_LAYER["gru"] + head


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_amount_of_padding_changes_no_logit_and_the_text_does(cell, num_layers):
    model = small_classifier(cell, num_layers=num_layers, dropout=0.3)
    ids = np.maximum(some_ids(5, 9), 1)
    lengths = np.array([9, 1, 4, 6, 8])
    ids[np.arange(9)[None] >= lengths[:, None]] = 0
    logits = logits_of(model, ids)
    for more in (1, 7, 40):
        np.testing.assert_allclose(logits_of(model, np.pad(ids, ((0, 0), (0, more)))), logits, atol=1e-5)
    for i, length in enumerate(lengths):
        np.testing.assert_allclose(logits_of(model, ids[i : i + 1, :length])[0], logits[i], atol=1e-5)
        for place in {0, length // 2, length - 1}:  # every token counts
            changed = ids[i : i + 1].copy()
            changed[0, place] = changed[0, place] % 10 + 1
            assert np.abs(logits_of(model, changed)[0] - logits[i]).max() > 1e-4


def test_start_from_copies_the_shared_layers_exactly_and_no_other():
    base, model = small_model(num_layers=2), small_classifier(num_layers=2)
    randomized(base, seed=3)
    head = model.get_layer("logits").get_weights()
    assert load_backbone_weights(model, base) == ["embedding", "gru_0", "gru_1"]
    for name in ("embedding", "gru_0", "gru_1"):
        for ours, theirs in zip(model.get_layer(name).get_weights(), base.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(model.get_layer("logits").get_weights(), head, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # and back: a classifier's body into a language model, whose own output layer stays
    untied = small_model(num_layers=2, tie_embeddings=False)
    assert load_backbone_weights(untied, model) == ["embedding", "gru_0", "gru_1"]


def test_a_copied_body_gives_the_features_of_the_base():
    base, model = small_model(tie_embeddings=False), small_classifier()
    load_backbone_weights(model, base)
    ids = np.maximum(some_ids(2, 6), 1)
    theirs = keras.Model(base.input, base.get_layer("gru_0").output)(ids)[0]
    ours = keras.Model(model.input, model.get_layer("gru_0").output)(ids)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs), atol=1e-6)


def test_start_from_refuses_another_shape_or_cell_and_copies_nothing_then():
    model = small_classifier()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"layer gru_0 has weights of shapes .*\(8, 24\).* the base .*\(5, 15\).*Build the new model"):
        load_backbone_weights(model, small_model(units=5))
    keep = small_model("lstm")
    with pytest.raises(ValueError, match="share no layer"):
        load_backbone_weights(model, keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="other")], name="mine"))
    assert load_backbone_weights(small_classifier(), keep) == ["embedding"]  # another cell shares the embedding only
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_classifier_comes_back_from_its_folder(tmp_path):
    model = small_classifier("lstm", num_layers=2, dropout=0.1)
    saved = load_model(save_model(tmp_path / "model", model, task="classify", labels=["a", "b", "c"]))
    ids = np.maximum(some_ids(3, 5), 1)
    np.testing.assert_allclose(logits_of(saved.model, ids), logits_of(model, ids), atol=1e-6)


def test_a_classifier_refuses_one_class_and_wrong_settings():
    with pytest.raises(ValueError, match="num_classes is 1, but a classifier needs two"):
        build_text_classifier(VOCAB_SIZE, num_classes=1)
    with pytest.raises(ValueError, match="num_classes is 0"):
        build_text_classifier(VOCAB_SIZE, num_classes=0)
    with pytest.raises(ValueError, match="dropout is 1"):
        build_text_classifier(VOCAB_SIZE, num_classes=2, dropout=1)
    with pytest.raises(ValueError, match="cell is 'cnn'"):
        build_text_classifier(VOCAB_SIZE, num_classes=2, cell="cnn")


# The model folder


@pytest.fixture
def tokenizer():
    return train_char_tokenizer(["abcdefgh"])  # 8 characters and 3 special tokens: VOCAB_SIZE ids


@pytest.fixture
def folder(tmp_path, tokenizer):
    return save_model(tmp_path / "model", small_model(), tokenizer=tokenizer, task="lm", labels=["good", "bad"], card="# First\n")


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("num_layers", "tie_embeddings"), [(1, True), (2, False)])
def test_a_loaded_model_gives_the_logits_of_the_saved_one(tmp_path, cell, num_layers, tie_embeddings):
    model = small_model(cell, num_layers=num_layers, tie_embeddings=tie_embeddings, dropout=0.2)
    loaded = load_model(save_model(tmp_path / "model", model)).model
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)  # float32 keeps every bit
    ids = some_ids(2, 7)
    np.testing.assert_allclose(logits_of(loaded, ids), logits_of(model, ids), atol=1e-5)


def test_float16_halves_the_file_and_gives_the_logits_of_the_rounded_weights(tmp_path):
    model = small_model(units=64)
    whole = save_model(tmp_path / "whole", model)
    half = save_model(tmp_path / "half", model, weights_dtype="float16")
    sizes = [(f / "weights.safetensors").stat().st_size for f in (whole, half)]
    assert sizes[1] < 0.55 * sizes[0]
    loaded = load_model(half).model
    rounded = [w.astype("float16").astype("float32") for w in model.get_weights()]
    for theirs, expected, exact in zip(loaded.get_weights(), rounded, model.get_weights(), strict=True):
        np.testing.assert_array_equal(theirs, expected)
        assert (theirs != exact).any()
    ids = some_ids(2, 7)
    theirs = logits_of(loaded, ids)
    model.set_weights(rounded)
    np.testing.assert_allclose(theirs, logits_of(model, ids), atol=1e-5)


def test_a_matrix_is_rounded_with_one_scale_a_row_or_column():
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(40, 30)) * np.logspace(-3, 2, 30)).astype("float32")
    matrix[:, 4] = matrix[7] = 0
    for axis, shape in ((0, (40, 1)), (1, (1, 30))):
        values, scales = quantize_matrix(matrix, axis=axis)
        assert values.dtype == np.int8 and scales.dtype == np.float32 and scales.shape == shape
        assert (np.abs(values * scales - matrix) <= scales / 2 * 1.0001).all()
        assert set(np.abs(values).max(axis=1 - axis)) == {0, 127}


def test_int8_takes_a_quarter_and_gives_the_logits_of_the_rounded_weights(tmp_path):
    model = small_model(units=64)
    whole = save_model(tmp_path / "whole", model)
    folder = save_model(tmp_path / "int8", model, weights_dtype="int8")
    assert (folder / "weights.safetensors").stat().st_size < 0.4 * (whole / "weights.safetensors").stat().st_size
    config = json.loads((folder / "config.json").read_text())
    assert (config["format_version"], config["weights_dtype"], config["num_parameters"]) == (2, "int8", model.count_params())
    loaded = load_model(folder).model
    stored = load_file(folder / "weights.safetensors")
    for weight, ours in zip(loaded.weights, model.get_weights(), strict=True):
        theirs = keras.ops.convert_to_numpy(weight)
        scales = stored.get(f"scales/{weight.path}")
        if scales is None:
            np.testing.assert_array_equal(theirs, ours)  # vectors and a GRU's two rows of biases
            assert theirs.ndim == 1 or len(theirs) == 2
        else:
            assert scales.shape == ((len(ours), 1) if "embedding" in weight.path else (1, ours.shape[1]))
            assert (np.abs(theirs - ours) <= 0.5001 * scales).all() and (theirs != ours).any()
    again = load_model(save_model(tmp_path / "again", loaded, weights_dtype="int8")).model
    ids = some_ids(2, 7)
    np.testing.assert_allclose(logits_of(again, ids), logits_of(loaded, ids), atol=1e-5)  # rounding twice changes nothing


def test_folders_without_int8_weights_stay_readable_by_older_packages(tmp_path):
    for dtype in ("float32", "float16"):
        folder = save_model(tmp_path / dtype, small_model(), weights_dtype=dtype)
        assert json.loads((folder / "config.json").read_text())["format_version"] == 1
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights, name: weights.pop(f"scales/{name}"), "lacks the scales of the int8 weights gru_0"),
        (
            lambda weights, name: weights.update({f"scales/{name}": np.ones((2, 2), "float32")}),
            "lacks the scales of the int8 weights gru_0",
        ),
        (lambda weights, name: weights[f"scales/{name}"].fill(np.nan), "weights gru_0.* hold NaN"),
        (lambda weights, name: weights.update({name: weights[name].ravel()}), "lacks the scales of the int8 weights gru_0"),
        (lambda weights, name: weights.update({name: weights[name].astype("int32")}), "weights gru_0.* are of type int32"),
        (lambda weights, name: weights.update({name: weights[name][:-1].copy()}), "has no weights gru_0.* of shape"),
    ],
)
def test_damaged_int8_weights_are_refused_by_name(tmp_path, change, message):
    folder = save_model(tmp_path / "int8", small_model(), weights_dtype="int8")
    path = folder / "weights.safetensors"
    weights = load_file(path)
    change(weights, next(name for name in weights if name.startswith("gru_0") and f"scales/{name}" in weights))
    save_file(weights, path)
    edit_config(folder, sha256={path.name: models.sha256_of(path)})
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_everything_beside_the_weights_comes_back(tmp_path, tokenizer):
    history = pd.DataFrame({"step": [1, 2], "split": ["train", "valid"], "loss_nats": [2.5, 1.25]})
    folder = save_model(
        tmp_path / "deep" / "model",
        small_model(),
        tokenizer=tokenizer,
        task="classify",
        labels=["schön", "不好"],
        settings={"max_tokens": 64, "columns": {"text": "título"}},
        metrics={"accuracy": {"value": 0.5, "ci_low": 0.25}},
        history=history,
        card="# Karte\n\nLizenz: CC0 — für alle.\n",
    )
    saved = load_model(folder, task="classify")
    assert saved.task == "classify"
    assert saved.labels == ["schön", "不好"]
    assert saved.settings == {"max_tokens": 64, "columns": {"text": "título"}}
    assert saved.metrics == {"accuracy": {"value": 0.5, "ci_low": 0.25}}
    assert saved.folder == folder
    assert saved.tokenizer.vocabulary == tokenizer.vocabulary
    assert saved.tokenizer.encode("hab").tolist() == tokenizer.encode("hab").tolist()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv"), history)
    assert (folder / "card.md").read_text(encoding="utf-8") == "# Karte\n\nLizenz: CC0 — für alle.\n"
    assert json.loads((folder / "config.json").read_text())["num_parameters"] == small_model().count_params()


def test_a_model_saves_without_tokenizer_history_or_card(tmp_path):
    saved = load_model(save_model(tmp_path / "bare", small_model()))
    assert saved.tokenizer is None
    assert (saved.labels, saved.settings, saved.metrics, saved.task) == ([], {}, {}, "lm")


def test_nothing_is_pickled(tmp_path, tokenizer, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    folder = save_model(tmp_path / "model", small_model(), tokenizer=tokenizer, history=pd.DataFrame({"step": [1]}))
    load_model(folder)
    endings = {path.suffix for path in folder.iterdir()}
    assert endings == {".json", ".safetensors", ".csv", ".md"}
    for name in ("config.json", "tokenizer.json", "metrics.json"):
        json.loads((folder / name).read_text())


def test_changed_weights_are_refused(folder):
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"weights\.safetensors was changed or cut short"):
        load_model(folder)


def test_truncated_weights_are_refused(folder):
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"weights\.safetensors was changed or cut short"):
        load_model(folder)
    edit_config(folder, sha256={"weights.safetensors": models.sha256_of(weights)})  # even where the hash was made to fit
    with pytest.raises(ValueError, match=r"weights\.safetensors cannot be read"):
        load_model(folder)


def test_weights_of_other_shapes_are_refused(folder):
    edit_config(folder, arguments=json.loads((folder / "config.json").read_text())["arguments"] | {"units": 9})
    with pytest.raises(ValueError, match=r"has no weights gru_0.* of shape \(6, 27\)"):
        load_model(folder)


def test_a_weight_that_is_left_out_is_named(folder):
    path = folder / "weights.safetensors"
    weights = load_file(path)
    del weights["embedding/embeddings"]
    save_file(weights, path)
    edit_config(folder, sha256={path.name: models.sha256_of(path)})
    with pytest.raises(ValueError, match="has no weights embedding/embeddings"):
        load_model(folder)


def test_a_changed_tokenizer_is_refused(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"a":3', '"a":4').replace('"b":4', '"b":3'))
    with pytest.raises(ValueError, match=r"tokenizer\.json was changed"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.replace(".", r"\.")):
        load_model(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such model folder"):
        load_model(tmp_path / "nowhere")


def test_an_unknown_builder_is_refused(folder):
    edit_config(folder, builder="os.system")
    with pytest.raises(ValueError, match=r"builder 'os\.system' is not known.*build_language_model"):
        load_model(folder)


def test_a_newer_format_is_refused(folder):
    edit_config(folder, format_version=folders.FORMAT_VERSION + 1)
    with pytest.raises(ValueError, match=r"of format 3, but this package reads up to 2\. Update"):
        load_model(folder)


def test_another_task_is_refused(folder):
    with pytest.raises(ValueError, match="holds a model for the task 'lm', but 'classify' is needed"):
        load_model(folder, task="classify")


@pytest.mark.parametrize("text", ["", "{", "[]", '"gru"', "{}", "null"])
def test_a_broken_config_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        load_model(folder)


def test_a_config_without_a_needed_entry_is_refused(folder):
    (folder / "config.json").write_text('{"format_version": 1, "task": "lm"}')
    with pytest.raises(ValueError, match=r"config\.json lacks builder, arguments, labels, settings, sha256"):
        load_model(folder)


def test_a_folder_that_is_no_model_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "notes").write_text("a file")
    for name in ("thesis", "notes"):
        with pytest.raises(ValueError, match=f"{name} exists and is no model folder"):
            save_model(tmp_path / name, small_model())
    assert contents(tmp_path / "thesis") == {"chapter.txt": b"years of work"}
    assert (tmp_path / "notes").read_text() == "a file"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_folder_is_taken_and_an_older_model_is_replaced(tmp_path):
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", small_model(), labels=["old"], history=pd.DataFrame({"step": [1]}))
    save_model(tmp_path / "model", randomized(small_model(), seed=9), labels=["new"])
    saved = load_model(tmp_path / "model")
    assert saved.labels == ["new"]
    assert not (tmp_path / "model" / "history.csv").exists()  # nothing of the older model is left
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    np.testing.assert_array_equal(saved.model.get_weights()[0], randomized(small_model(), seed=9).get_weights()[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
@pytest.mark.parametrize("where", ["save_file", "write_json", "sha256_of"])
def test_an_interrupted_save_leaves_the_old_folder_whole(folder, monkeypatch, where, error):
    def fail(*args, **kwargs):
        raise error

    before = contents(folder)
    monkeypatch.setattr(models, where, fail)
    with pytest.raises(error if isinstance(error, type) else OSError):
        save_model(folder, randomized(small_model(), seed=9))
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # and no litter beside it


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_failing_rename_leaves_the_old_folder_whole(folder, monkeypatch, fails_at):
    calls, replace = [], os.replace

    def fail(source, target):
        calls.append(source)
        if len(calls) == fails_at:
            raise OSError("no such luck")
        replace(source, target)

    before = contents(folder)
    monkeypatch.setattr(folders.os, "replace", fail)
    with pytest.raises(OSError, match="no such luck"):
        save_model(folder, randomized(small_model(), seed=9))
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = small_model()
    weights = model.get_weights()
    weights[1][0, 0] = np.nan
    model.set_weights(weights)
    with pytest.raises(ValueError, match=r"gru_0.* hold NaN or infinite values"):
        save_model(tmp_path / "model", model)
    weights[1][0, 0] = 1e6  # fits float32, not float16
    model.set_weights(weights)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="infinite values in float16"):
        save_model(tmp_path / "model", model, weights_dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_only_models_of_a_known_builder_and_known_types_are_saved(tmp_path):
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match="mine was not made by one of build_language_model"):
        save_model(tmp_path / "model", keras.Model(inputs, keras.layers.Dense(2)(inputs), name="mine"))
    with pytest.raises(ValueError, match="weights_dtype is 'int4'"):
        save_model(tmp_path / "model", small_model(), weights_dtype="int4")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_pretrained_model_is_named():
    with pytest.raises(ValueError, match="'slm-base-xx' is not one of the pretrained models"):
        load_pretrained("slm-base-xx")


# What a folder may hold


def resave(folder, **changes):
    """Change weights of a folder by path and make the hash fit, as somebody who means harm would."""
    path = folder / "weights.safetensors"
    save_file({name: changes.get(name.split("/")[0], values) for name, values in load_file(path).items()}, path)
    edit_config(folder, sha256=json.loads((folder / "config.json").read_text())["sha256"] | {path.name: models.sha256_of(path)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_not_loaded(folder, value):
    resave(folder, embedding=np.full((VOCAB_SIZE, 6), value, "float32"))
    with pytest.raises(ValueError, match="embedding/embeddings hold NaN or infinite values"):
        load_model(folder)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "0", "-1", "true", '"warm"'])
def test_a_temperature_that_cannot_be_meant_is_refused(folder, text):
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"settings": {}', f'"settings": {{"temperature": {text}}}'))
    with pytest.raises(ValueError, match=r"NaN|Infinity|1e999|temperature is"):
        load_model(folder)


@pytest.mark.parametrize("labels", [[], ["a", "b"], ["a", "b", "c", "d"]])
def test_labels_that_do_not_fit_the_outputs_are_refused(tmp_path, labels):
    folder = save_model(tmp_path / "model", build_text_classifier(VOCAB_SIZE, num_classes=3, units=4), labels=["a", "b", "c"])
    assert load_model(folder).labels == ["a", "b", "c"]
    edit_config(folder, labels=labels)
    with pytest.raises(ValueError, match=f"has {len(labels)} labels, but the model scores 3"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes", [{"units": 20_000}, {"num_layers": 10**6}, {"embedding_dim": 10**9}, {"units": 65}, {"vocab_size": 12_000}]
)
def test_sizes_are_compared_with_the_weights_before_anything_is_built(folder, monkeypatch, changes):
    monkeypatch.setitem(models.BUILDERS, "build_language_model", None)  # would raise another error
    edit_config(folder, arguments=json.loads((folder / "config.json").read_text())["arguments"] | changes)
    with pytest.raises(ValueError, match=f"{next(iter(changes))} is .*, but the weights have no such size"):
        load_model(folder)


def test_a_size_that_another_weight_has_is_refused_too(tmp_path):
    folder = save_model(tmp_path / "model", build_language_model(500, embedding_dim=4, units=4))
    edit_config(folder, arguments=json.loads((folder / "config.json").read_text())["arguments"] | {"units": 500})
    with pytest.raises(ValueError, match="units is 500, but the weights have no such size"):
        load_model(folder)


@pytest.mark.parametrize("arguments", [{"vocab_size": 11, "wings": 2}, {}, {"vocab_size": "many"}, {"vocab_size": None}])
def test_arguments_that_do_not_fit_the_builder_are_refused(folder, arguments):
    edit_config(folder, arguments=arguments)
    with pytest.raises(ValueError, match=r"arguments do not fit|vocab_size is"):
        load_model(folder)


def test_a_tokenizer_that_cannot_be_read_is_refused(folder):
    for text in ("[" * 100_000, "{}", "[1]"):
        (folder / "tokenizer.json").write_text(text)
        hashes = {name: models.sha256_of(folder / name) for name in ("weights.safetensors", "tokenizer.json")}
        edit_config(folder, sha256=hashes)
        with pytest.raises(ValueError, match=r"tokenizer\.json"):
            load_model(folder)


def test_undefined_scores_are_kept_as_none(tmp_path):
    folder = save_model(tmp_path / "model", small_model(), metrics={"f1": {"value": float("nan"), "rows": 3}})
    assert load_model(folder).metrics == {"f1": {"value": None, "rows": 3}}
    with pytest.raises(ValueError, match=r"config\.json: a number is NaN or infinite"):
        save_model(tmp_path / "model", small_model(), settings={"threshold": float("inf")})


NETWORKS = [
    (build_keyword_spotter, {"num_classes": 2, "num_bands": 5, "units": 4}, ["a", "b"]),
    (build_tagger, {"vocab_size": 20, "num_tags": 2, "units": 4, "head_units": 3, "filters": 3, "num_buckets": 100}, ["O", "B-X"]),
    (build_intent_slot_model, {"vocab_size": 20, "num_tags": 2, "num_intents": 2, "units": 4, "head_units": 3, "filters": 3}, ["O", "B-X"]),
    (build_span_extractor, {"vocab_size": 20, "num_features": 3, "units": 4, "head_units": 3}, []),
    (build_knowledge_tracer, {"num_skills": 70, "num_features": 3}, []),
    (build_encoder_decoder, {"vocab_size": 20, "embedding_dim": 6, "encoder_units": 4, "units": 5}, []),
    (build_pointer_generator, {"vocab_size": 20, "embedding_dim": 6, "units": 5, "backward_units": 4, "memory_dim": 3}, []),
    (build_transformer_language_model, {"vocab_size": 20, "size": 8, "num_layers": 2, "num_heads": 2, "max_length": 90}, []),
]


@pytest.mark.parametrize(("build", "arguments", "labels"), NETWORKS, ids=lambda value: getattr(value, "__name__", ""))
def test_folders_under_the_names_of_before_keep_loading(tmp_path, build, arguments, labels):
    model = randomized(build(**arguments))
    folder = save_model(tmp_path / "model", model, labels=labels)
    before = {new: old for old, new in stored._OLD_NAMES.items()}
    if build is build_pointer_generator:
        del before["backward_gru"]  # it has always been called so here
    path = folder / "weights.safetensors"
    save_file({"/".join(before.get(part, part) for part in name.split("/")): values for name, values in load_file(path).items()}, path)
    builders = {new: old for old, new in stored._OLD_BUILDERS.items()}
    edit_config(folder, builder=builders.get(build.__name__, build.__name__), sha256={path.name: models.sha256_of(path)})
    for ours, theirs in zip(model.get_weights(), load_model(folder).model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
