"""Fine-tuning a classifier: batches, layer-wise rates, freezing, what the base gives, and what goes wrong clearly."""

import itertools
import signal

from slm_helpers.models.classifiers import build_text_classifier, classifier_from_base
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import load_model, save_model
from slm_helpers.text.tokenizers import train_char_tokenizer
from slm_helpers.training import classification, finetune, loop
from slm_helpers.training.batches import RowBatches, encode_texts
from slm_helpers.training.classification import fit_classifier, fit_head, predict_probs
from slm_helpers.training.config import ROW_DEFAULTS, TrainConfig
from slm_helpers.training.finetune import HISTORY_COLUMNS, layer_names

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

VOCAB_SIZE = 12
FAST = TrainConfig(epochs=2, batch_size=8, learning_rate=0.02, precision="float32")


def toy_task(num_rows: int = 40, *, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Texts of 1 to 20 tokens; the class says whether token 5 occurs."""
    rng = np.random.default_rng(seed)
    texts, labels = [], np.arange(num_rows) % 2
    for label in labels:
        ids = rng.choice([3, 4, 6, 7, 8], size=rng.integers(1, 21)).astype("int32")
        if label:
            ids[rng.integers(0, len(ids))] = 5
        texts.append(ids)
    return texts, labels


def new_classifier(*, seed: int = 1, dropout: float = 0.0, num_classes: int = 2, num_layers: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return build_text_classifier(VOCAB_SIZE, num_classes=num_classes, embedding_dim=6, units=8, num_layers=num_layers, dropout=dropout)


def changes(model: keras.Model, before: list[np.ndarray]) -> dict[str, float]:
    """Return the largest change of a weight in each layer."""
    found: dict[str, float] = {}
    for weight, old in zip(model.weights, before, strict=True):
        name = weight.path.split("/")[0]
        found[name] = max(found.get(name, 0.0), float(np.abs(keras.ops.convert_to_numpy(weight) - old).max()))
    return found


def settings(**changed) -> TrainConfig:
    return TrainConfig(**({"batch_size": 8, "learning_rate": 0.02, "precision": "float32", "epochs": 2} | changed))


# Texts and batches


def test_a_text_becomes_its_tokens_after_an_end_and_loses_its_middle_where_it_is_long():
    tokenizer = train_char_tokenizer(["abcdefgh"])
    letters = {c: int(tokenizer.encode(c)[0]) for c in "abcdefgh"}
    whole, cut, empty = encode_texts(tokenizer, ["ab", "abcdefgh", ""], max_tokens=6)
    assert whole.tolist() == [2, letters["a"], letters["b"]]
    assert cut.tolist() == [2, *(letters[c] for c in "abcgh")]
    assert empty.tolist() == [2]
    assert all(ids.dtype == np.int32 for ids in (whole, cut, empty))
    assert [len(ids) for ids in encode_texts(tokenizer, ["abc", "abc", "abc"], max_tokens=1)] == [1, 1, 1]
    with pytest.raises(ValueError, match="max_tokens is 0"):
        encode_texts(tokenizer, ["ab"], max_tokens=0)


def test_an_epoch_uses_every_text_once_in_batches_of_even_size_and_like_length():
    texts = [np.full(n, 3, "int32") for n in np.random.default_rng(0).integers(1, 60, 100)]
    rows = classification._rows(new_classifier(), texts, np.arange(100) % 2, name="train")
    batches = RowBatches(rows, batch_size=32, seed=1)
    assert (batches.batch_size, len(batches)) == (25, 4)
    assert sorted(np.concatenate(batches.rows(0))) == list(range(100))
    assert [len(picked) for picked in batches.rows(0)] == [25] * 4
    spread = np.mean([np.ptp(rows.lengths[picked]) for picked in batches.rows(0)])
    assert spread < 0.5 * np.ptp(rows.lengths)
    first, second = batches.rows(0), batches.rows(1)
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    again = RowBatches(rows, batch_size=32, seed=1)  # as after a restart: the second epoch without the first
    assert all(np.array_equal(a, b) for a, b in zip(again.rows(1), second, strict=True))
    for ours, theirs in zip(batches.batch(1, 2), again.batch(1, 2), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_batch_is_padded_on_the_right_and_filled_up_with_rows_that_do_not_count():
    model = new_classifier()
    texts, labels = toy_task(3)
    rows = classification._rows(model, texts, labels, name="train")
    (inputs,), batch_labels, weights = rows.batch(np.array([2, 0]), 4)
    assert inputs.shape[0] == 4 and inputs.shape[1] % 8 == 0
    for row, i in enumerate((2, 0)):
        assert inputs[row, : len(texts[i])].tolist() == texts[i].tolist()
        assert not inputs[row, len(texts[i]) :].any()
    assert weights.tolist() == [1, 1, 0, 0]
    assert batch_labels[:2].tolist() == [labels[2], labels[0]]


def test_rows_of_weight_zero_change_neither_loss_nor_update():
    losses, weights = [], []
    texts, labels = toy_task(4)
    for size in (4, 7):
        model = new_classifier()
        compiled = finetune.RowStep(model, FAST.with_defaults(ROW_DEFAULTS))
        compiled.optimizer.learning_rate = 0.01
        rows = classification._rows(model, texts, labels, name="train")
        inputs, targets, weights_of_rows = rows.batch(np.arange(4), size)
        losses.append(compiled.train(*inputs, targets, weights_of_rows))
        weights.append(model.get_weights())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_balanced_weights_give_every_class_the_same_share():
    rows = classification._rows(new_classifier(num_classes=3), [np.array([3])] * 8, [0, 0, 0, 0, 0, 0, 2, 2], name="train", balanced=True)
    np.testing.assert_allclose(rows.weights, [8 / 12] * 6 + [2.0] * 2)  # 8 rows, two classes that occur: 4 a class


# Training


def test_it_learns_a_task_that_can_be_learned():
    model = new_classifier()
    texts, labels = toy_task(120)
    history = fit_classifier(model, texts, labels, *toy_task(40, seed=1), config=settings(epochs=15))
    new_texts, new_labels = toy_task(60, seed=2)
    assert (predict_probs(model, new_texts).argmax(axis=1) == new_labels).mean() > 0.9
    assert list(history.columns) == list(HISTORY_COLUMNS)
    assert history["step"].max() == 15 * 15
    assert (history["split"] == "valid").sum() == 15
    valid = history[history["split"] == "valid"]
    assert valid["loss_nats"].min() < 0.3 < valid["loss_nats"].iloc[0]


def test_the_learning_rate_climbs_and_falls():
    model, rates = new_classifier(), []

    def note(batch, logs):
        rates.append(float(model._slm_cache[finetune.step_key(settings().with_defaults(ROW_DEFAULTS))].optimizer.learning_rate))

    fit_classifier(
        model,
        *toy_task(40),
        config=settings(epochs=4, warmup_share=0.25),
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)],
    )
    assert len(rates) == 20
    assert np.argmax(rates) == 4  # a quarter of 20 steps
    assert (np.diff(rates[5:]) < 0).all() and rates[-1] < 0.1 * max(rates)


def test_probabilities_come_in_the_order_of_the_texts():
    model = new_classifier()
    texts, _ = toy_task(30)
    probs = predict_probs(model, texts, batch_size=7)
    assert probs.shape == (30, 2)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    for i in (0, 13, 29):
        alone = keras.ops.convert_to_numpy(keras.ops.softmax(model(texts[i][None])))[0]
        np.testing.assert_allclose(probs[i], alone, atol=1e-5)


def test_the_best_weights_on_valid_are_put_back_and_patience_stops():
    model = new_classifier()
    valid = toy_task(20, seed=3)
    upside_down = (valid[0], 1 - valid[1])  # the better on train, the worse on this
    history = fit_classifier(model, *toy_task(80), *upside_down, config=settings(epochs=30, patience=3))
    looks = history.loc[history["split"] == "valid", "loss_nats"].tolist()
    assert len(looks) == looks.index(min(looks)) + 1 + 3 < 30
    probs = predict_probs(model, upside_down[0])
    loss = -np.log(probs[np.arange(20), upside_down[1]]).mean()
    assert loss == pytest.approx(min(looks), abs=1e-5)


def test_the_same_seed_gives_the_same_weights_on_a_new_model_and_on_a_used_one():
    texts, labels = toy_task(30)
    first = new_classifier(dropout=0.4)
    start = first.get_weights()
    runs = []
    for seed in (3, 4, 3):  # the third finds the optimiser and dropout of the two before
        first.set_weights(start)
        fit_classifier(first, texts, labels, config=settings(seed=seed))
        runs.append(first.get_weights())
    fresh = new_classifier(dropout=0.4, seed=9)
    fresh.set_weights(start)
    fit_classifier(fresh, texts, labels, config=settings(seed=3))
    for a, b, c, d in zip(*runs, fresh.get_weights(), strict=True):
        np.testing.assert_allclose(a, c, atol=1e-6)
        np.testing.assert_allclose(a, d, atol=1e-6)
        assert not np.allclose(a, b, atol=1e-4)


def test_bfloat16_computes_roughly_and_keeps_float32_weights():
    losses = []
    for precision in ("float32", "bfloat16"):
        model = new_classifier()
        history = fit_classifier(model, *toy_task(40), config=settings(precision=precision))
        losses.append(history["loss_nats"].iloc[-1])
        assert {str(w.dtype) for w in model.weights} == {"float32"}
        assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_max_seconds_ends_the_run(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(loop.time, "perf_counter", lambda: 0.1 * next(ticks))
    history = fit_classifier(new_classifier(), *toy_task(40), config=settings(epochs=10_000, max_seconds=1.15))
    assert history["step"].tolist() == [5, 10, 12]
    assert history["learning_rate"].iloc[-1] < 0.1 * 0.02  # the schedule came to its end too


def test_of_a_valid_part_whose_scores_do_not_fit_every_so_many_row_is_looked_at(monkeypatch):
    texts, _ = toy_task(30)
    rows = finetune.Examples(
        {"token_ids": texts}, [ids % 3 - 1 for ids in texts], along="token_ids", target_weights=[ids / 8 for ids in texts]
    )
    places = sum(len(ids) for ids in texts)
    losses = []
    for most, valid in ((1 << 28, rows), (places * VOCAB_SIZE // 3, rows), (1 << 28, rows.subsample(3))):
        monkeypatch.setattr(finetune, "_MAX_LOGITS", most)
        keras.utils.set_random_seed(3)
        model = build_language_model(VOCAB_SIZE, cell="gru", embedding_dim=6, units=8, num_layers=1)
        history = finetune.fit_examples(model, rows, valid, config=settings(epochs=1))
        losses.append(history.set_index("split").loc["valid", "loss_nats"])
    assert len(rows.subsample(3)) == 10 and rows.subsample(3).targets[1] is rows.targets[3]
    assert losses[1] == losses[2] != losses[0]


def test_ctrl_c_stops_after_the_step():
    model, steps = new_classifier(), []

    def press(batch, logs):
        steps.append(batch)
        if batch == 2:
            signal.raise_signal(signal.SIGINT)

    before = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(
            model, *toy_task(40), config=settings(epochs=5), callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=press)]
        )
    assert steps == [0, 1, 2]
    assert min(changes(model, before).values()) > 0


# Layers: frozen, thawed, slower


def test_layers_are_named_from_the_embedding_up():
    assert layer_names(new_classifier(num_layers=2)) == ["embedding", "gru_0", "gru_1", "logits"]


@pytest.mark.parametrize("frozen", [("embedding",), ("gru_0",), ("embedding", "gru_0")])
def test_frozen_layers_do_not_move(frozen):
    model = new_classifier(dropout=0.2)
    before = model.get_weights()
    fit_classifier(model, *toy_task(30), config=settings(frozen=frozen))
    moved = changes(model, before)
    assert {name for name, change in moved.items() if change == 0} == set(frozen)
    assert moved["logits"] > 1e-3


def test_reading_a_frozen_body_once_gives_what_reading_it_each_time_gives():
    texts, labels = toy_task(40)
    valid = toy_task(16, seed=1)
    once, each_time = new_classifier(), new_classifier()
    short = fit_classifier(once, texts, labels, *valid, config=settings(frozen=("embedding", "gru_0")))
    long = fit_classifier(each_time, texts, labels, *valid, config=settings(unfreeze_epochs=99))
    for ours, theirs in zip(once.get_weights(), each_time.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(short["loss_nats"], long["loss_nats"], atol=1e-5)
    np.testing.assert_allclose(short["accuracy"], long["accuracy"])
    assert "head" in once._slm_cache and "head" not in each_time._slm_cache


def test_gradual_unfreezing_thaws_one_layer_after_the_other():
    moving = []
    for epochs in (1, 2, 3):
        model = new_classifier()
        before = model.get_weights()
        fit_classifier(model, *toy_task(30), config=settings(epochs=epochs, unfreeze_epochs=1))
        moving.append({name for name, change in changes(model, before).items() if change > 0})
    assert moving == [{"logits"}, {"logits", "gru_0"}, {"logits", "gru_0", "embedding"}]


def test_a_lower_layer_learns_at_its_own_rate():
    """The first step of Adam moves every weight that has a gradient by the learning rate, whatever the gradient's size."""
    model = new_classifier(num_layers=2)
    before = model.get_weights()
    config = settings(epochs=1, batch_size=64, layer_decay=0.1, schedule="constant", warmup_share=0, learning_rate=0.01)
    fit_classifier(model, *toy_task(30), config=config)
    moved = changes(model, before)
    for name, rate in {"logits": 1e-2, "gru_1": 1e-3, "gru_0": 1e-4, "embedding": 1e-5}.items():
        assert moved[name] == pytest.approx(rate, rel=0.05), name


def test_only_the_layers_that_learn_count_in_the_norm_that_is_clipped():
    variables = [keras.Variable(np.zeros(1, "float32"), name=name) for name in ("low", "high")]
    optimizer = finetune.LayerAdam(1.0)
    optimizer.build(variables)
    gradients = [keras.ops.convert_to_tensor(np.array([value], "float32")) for value in (30.0, 4.0)]
    for factors, expected in (([1.0, 1.0], 4 / np.hypot(30, 4)), ([0.0, 1.0], 1.0), ([0.0, 0.1], 1.0)):
        optimizer.factors.assign(np.array(factors, "float32"))
        clipped = keras.ops.convert_to_numpy(optimizer._clip_gradients(gradients)[1])
        np.testing.assert_allclose(clipped, [expected], rtol=1e-5)
    small = [keras.ops.convert_to_tensor(np.array([value], "float32")) for value in (0.3, 0.4)]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(optimizer._clip_gradients(small)[1]), [0.4], rtol=1e-6)


# The head alone


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_head_is_a_logistic_regression_on_standardised_features_and_nothing_else_moves(num_classes):
    model = new_classifier(num_classes=num_classes)
    texts, _ = toy_task(30)
    labels = np.arange(30) % num_classes
    before = model.get_weights()
    fit_head(model, texts, labels, penalty=5.0)
    assert {name for name, change in changes(model, before).items() if change > 0} == {"logits"}
    pooled = keras.Model(model.input, model.get_layer("pooling").output)
    features = np.concatenate([keras.ops.convert_to_numpy(pooled(ids[None])) for ids in texts])
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    theirs = LogisticRegression(C=0.2, max_iter=1000).fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(predict_probs(model, texts), theirs, atol=1e-3)


def test_a_class_without_a_text_is_never_predicted_by_a_fitted_head():
    model = new_classifier(num_classes=4)
    texts, labels = toy_task(30)
    fit_head(model, texts, labels * 2 + 1)
    probs = predict_probs(model, texts)
    assert probs[:, [0, 2]].max() < 1e-6
    np.testing.assert_allclose(probs[:, [1, 3]].sum(axis=1), 1, atol=1e-5)


def test_a_larger_penalty_makes_a_more_careful_head_and_balance_a_fairer_one():
    model = new_classifier()
    texts, labels = toy_task(60)
    surest = []
    for penalty in (0.1, 10_000.0):
        fit_head(model, texts, labels, penalty=penalty)
        surest.append(predict_probs(model, texts).max(axis=1).mean())
    assert surest[0] > surest[1] and surest[1] == pytest.approx(0.5, abs=0.02)
    many = np.r_[np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:3]]
    means = []
    for balanced in (False, True):
        fit_head(model, [texts[i] for i in many], labels[many], penalty=10_000.0, balanced=balanced)
        means.append(predict_probs(model, texts)[:, 1].mean())
    assert means[0] < 0.2 < 0.4 < means[1]


def test_fine_tuning_goes_on_from_a_fitted_head():
    model = new_classifier()
    texts, labels = toy_task(60)
    losses = []
    for fitted in (False, True):
        keras.utils.set_random_seed(1)
        model.set_weights(new_classifier().get_weights())
        if fitted:
            fit_head(model, texts, labels, penalty=1.0)
        losses.append(fit_classifier(model, texts, labels, config=settings(epochs=1, learning_rate=1e-4))["loss_nats"].iloc[0])
    assert losses[1] < losses[0] - 0.05


def test_a_head_cannot_be_fitted_to_one_class_or_without_a_penalty():
    texts, labels = toy_task(10)
    with pytest.raises(ValueError, match="All 10 training rows are of class 1"):
        fit_head(new_classifier(), texts, np.ones_like(labels))
    with pytest.raises(ValueError, match="penalty is 0, but must be above 0"):
        fit_head(new_classifier(), texts, labels, penalty=0)


# From a base


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_classifier_from_a_base_has_its_weights_and_leaves_it_alone(tie_embeddings):
    keras.utils.set_random_seed(5)
    base = build_language_model(VOCAB_SIZE, embedding_dim=6, units=8, num_layers=2, tie_embeddings=tie_embeddings)
    model = classifier_from_base(base, num_classes=2, dropout=0.1)
    kept = base.get_weights()
    for name in ("embedding", "gru_0", "gru_1"):
        for ours, theirs in zip(model.get_layer(name).get_weights(), base.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    fit_classifier(model, *toy_task(30), config=FAST)
    for ours, theirs in zip(base.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_fine_tuned_classifier_comes_back_from_its_folder(tmp_path):
    model = new_classifier(dropout=0.1)
    texts, labels = toy_task(30)
    fit_classifier(model, texts, labels, config=FAST)
    loaded = load_model(save_model(tmp_path / "model", model, task="classify", labels=["without", "with"]), task="classify")
    np.testing.assert_allclose(predict_probs(loaded.model, texts), predict_probs(model, texts), atol=1e-6)
    assert loaded.labels == ["without", "with"]
    fit_classifier(loaded.model, texts, labels, config=FAST)  # and can be trained on


# What goes wrong


def test_one_class_only_is_said_clearly():
    texts, labels = toy_task(10)
    with pytest.raises(ValueError, match="All 10 training rows are of class 1, but a classifier needs two"):
        fit_classifier(new_classifier(), texts, np.ones_like(labels), config=FAST)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([[3], [4]], [0, 2], r"train: labels must be whole numbers in 0\.\.1"),
        ([[3], [4]], [0, -1], r"train: labels must be whole numbers in 0\.\.1"),
        ([[3], [4]], [0.0, 1.0], r"train: labels must be whole numbers"),
        ([[3], [4]], ["good", "bad"], r"train: labels must be whole numbers"),
        ([[3], [4]], [0], "train has 2 texts and 1 labels"),
        ([], [], "train has 0 texts"),
        ([[3], []], [0, 1], "train: text 1 has no token"),
        ([[3], [12]], [0, 1], r"train: token ids lie in 3\.\.12, but must lie in 1\.\.11"),
        ([[3], [0, 3]], [0, 1], r"train: token ids lie in 0\.\.3.*0 is padding"),
    ],
)
def test_rows_that_do_not_fit_are_named(texts, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_classifier(new_classifier(), [np.array(t, dtype="int32") for t in texts], labels, config=FAST)


def test_a_valid_part_that_does_not_fit_is_named():
    texts, labels = toy_task(10)
    with pytest.raises(ValueError, match="valid has 10 texts and 0 labels"):
        fit_classifier(new_classifier(), texts, labels, texts, config=FAST)
    with pytest.raises(ValueError, match="valid: labels must be"):
        fit_classifier(new_classifier(), texts, labels, texts, labels + 1, config=FAST)


def test_unknown_frozen_layers_and_a_frozen_head_are_named():
    for frozen, message in ((("gru_1",), "frozen names gru_1, but the layers with weights are embedding, gru_0, logits"),):
        with pytest.raises(ValueError, match=message):
            fit_classifier(new_classifier(), *toy_task(10), config=settings(frozen=frozen))
    with pytest.raises(ValueError, match="frozen names the head logits"):
        fit_classifier(new_classifier(), *toy_task(10), config=settings(frozen=("logits",)))


def test_a_loss_that_is_not_finite_stops_the_run():
    model = new_classifier()
    weights = model.get_weights()
    weights[0][3] = np.nan
    model.set_weights(weights)
    with pytest.raises(FloatingPointError, match=r"The loss is nan at step 1\. Lower the learning rate"):
        fit_classifier(model, *toy_task(10), config=FAST)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"learning_rate": 0}, "learning_rate is 0, but must be above 0"),
        ({"layer_decay": -1}, "layer_decay is -1"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm is 0.0"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"warmup_share": 1.5}, "warmup_share is 1.5"),
        ({"patience": -1}, "patience is -1"),
        ({"unfreeze_epochs": -1}, "unfreeze_epochs is -1"),
        ({"max_seconds": -1}, "max_seconds is -1"),
        ({"frozen": "embedding"}, "frozen is 'embedding', but must be a tuple"),
    ],
)
def test_a_wrong_setting_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**wrong)
