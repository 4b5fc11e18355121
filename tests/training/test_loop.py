"""Training: windows, schedules, clipping, early stopping, and checkpoints that survive whatever cuts a run off."""

import dataclasses
import itertools
import math
import signal

from slm_helpers.data import files
from slm_helpers.metrics.language_model import loss_nats
from slm_helpers.models.language_model import build_language_model
from slm_helpers.training import loop
from slm_helpers.training.batches import WindowBatches
from slm_helpers.training.config import OPTIMIZERS, PRECISIONS, STREAM_DEFAULTS, TrainConfig, learning_rate_at
from slm_helpers.training.loop import HISTORY_COLUMNS
from slm_helpers.training.optimizers import make_optimizer
from slm_helpers.training.streams import count_tokens_trained, evaluate_loss, fit_model, load_checkpoint

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

VOCAB_SIZE = 8
# Each token is followed by one other, always: a model can learn it to the end.
CYCLE = np.tile(np.array([3, 5, 4, 7, 6], dtype="int32"), 60)
NOISE = np.random.default_rng(0).integers(3, VOCAB_SIZE, 300).astype("int32")
SHORT = TrainConfig(epochs=2, batch_size=8, window=4, learning_rate=0.02)  # 18 steps on CYCLE or NOISE
NUM_STEPS = 18


def new_model(*, seed: int = 1, dropout: float = 0.2, cell: str = "rnn", units: int = 8) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return build_language_model(VOCAB_SIZE, cell=cell, embedding_dim=8, units=units, dropout=dropout)


def assert_same_weights(model: keras.Model, weights: list[np.ndarray], *, atol: float = 1e-6):
    for ours, theirs in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=atol)


class EachStep(keras.callbacks.Callback):
    """Call a function after each step with its number in the run, from 1, and its loss."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.function(self.epoch * self.params["steps"] + batch + 1, logs["loss"])


def press_ctrl_c_after(num_steps: int) -> list[EachStep]:
    """Return callbacks that press Ctrl-C after one step."""
    return [EachStep(lambda step, loss: signal.raise_signal(signal.SIGINT) if step == num_steps else None)]


@pytest.fixture(scope="module")
def unbroken():
    """Weights and history of one run without any interruption."""
    model = new_model()
    history = fit_model(model, NOISE, CYCLE[:60], config=SHORT)
    return model.get_weights(), history


# Learning


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_fit_model_learns_what_can_be_learnt(cell):
    model = new_model(cell=cell, dropout=0.0, units=16)
    config = TrainConfig(epochs=8, batch_size=8, window=4, learning_rate=0.03)
    before = evaluate_loss(model, CYCLE, window=4)
    history = fit_model(model, CYCLE, CYCLE[:100], config=config)
    assert before == pytest.approx(math.log(VOCAB_SIZE), abs=0.3)
    assert evaluate_loss(model, CYCLE, window=4) < 0.1 * math.log(VOCAB_SIZE)
    assert history["loss_nats"].iloc[-1] < 0.1 * math.log(VOCAB_SIZE)


def test_history_is_as_documented(unbroken):
    _, history = unbroken
    assert tuple(history.columns) == HISTORY_COLUMNS
    assert history["step"].tolist() == [9, 9, 18, 18]
    assert history["epoch"].tolist() == [1.0, 1.0, 2.0, 2.0]
    assert history["split"].tolist() == ["train", "valid"] * 2
    assert history["seconds"].is_monotonic_increasing
    filled = SHORT.with_defaults(STREAM_DEFAULTS)
    assert history["learning_rate"].tolist() == pytest.approx([learning_rate_at(filled, s - 1, 18) for s in (9, 9, 18, 18)])
    assert count_tokens_trained(history, SHORT) == 18 * 8 * 4


def test_train_loss_is_the_mean_since_the_last_look():
    model, losses = new_model(dropout=0.0), []
    batches = WindowBatches(NOISE, window=SHORT.window, batch_size=SHORT.batch_size, seed=SHORT.seed)

    def score_next(step, loss):
        inputs, targets, *_ = batches.batch(*divmod(step, len(batches)))
        losses.append(loss_nats(keras.ops.convert_to_numpy(model(inputs)), targets))  # before the step that trains on it

    score_next(0, math.nan)
    history = fit_model(model, NOISE, config=dataclasses.replace(SHORT, eval_steps=5), callbacks=[EachStep(score_next)])
    assert history["step"].tolist() == [5, 10, 15, 18]
    assert history["split"].tolist() == ["train"] * 4
    means = [np.mean(losses[a:b]) for a, b in ((0, 5), (5, 10), (10, 15), (15, 18))]
    np.testing.assert_allclose(history["loss_nats"], means, rtol=1e-5)


def test_same_seed_same_weights_and_other_seed_other_weights(unbroken):
    weights, history = unbroken
    again = new_model()
    repeated = fit_model(again, NOISE, CYCLE[:60], config=SHORT)
    assert_same_weights(again, weights)
    np.testing.assert_allclose(repeated["loss_nats"], history["loss_nats"], atol=1e-6)
    other = new_model()
    fit_model(other, NOISE, CYCLE[:60], config=dataclasses.replace(SHORT, seed=43))
    assert np.abs(other.get_weights()[0] - weights[0]).max() > 1e-4


def test_patience_stops_early_and_the_best_weights_are_put_back():
    model = new_model(dropout=0.0)
    backwards = CYCLE[::-1].copy()  # what is learnt on train is wrong on valid
    config = TrainConfig(epochs=50, batch_size=8, window=4, learning_rate=0.02, eval_steps=2, patience=3, schedule="constant")
    history = fit_model(model, CYCLE, backwards[:60], config=config)
    valid = history[history["split"] == "valid"].reset_index(drop=True)
    best = int(valid["loss_nats"].idxmin())
    assert len(valid) == best + 1 + 3  # three looks without a better loss
    assert history["step"].max() < 50 * 9
    assert valid["loss_nats"].iloc[-1] > valid["loss_nats"][best] + 0.01
    assert evaluate_loss(model, backwards[:60], window=4) == pytest.approx(valid["loss_nats"][best], abs=1e-5)


def test_gradient_clipping_limits_the_step():
    config = TrainConfig(epochs=1, batch_size=100, window=4, optimizer="sgd", learning_rate=1000.0, max_gradient_norm=1e-4)
    model = new_model(dropout=0.0)
    before = model.get_weights()
    fit_model(model, NOISE, config=config)  # all windows are one batch: one step
    moved = math.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(model.get_weights(), before, strict=True)))
    assert moved == pytest.approx(1000.0 * 1e-4, rel=1e-2)  # the gradient itself is longer


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_takes_its_settings(optimizer):
    config = TrainConfig(epochs=1, batch_size=30, window=4, optimizer=optimizer, weight_decay=0.01)
    assert np.isfinite(fit_model(new_model(), CYCLE, config=config)["loss_nats"]).all()
    made = make_optimizer(config.with_defaults(STREAM_DEFAULTS), new_model())
    assert float(made.global_clipnorm) == 1.0
    assert (made.weight_decay == 0.01) == (optimizer in ("adamw", "muon"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_learns_and_leaves_a_float32_model(precision):
    model = new_model(cell="gru", dropout=0.0)
    fit_model(model, CYCLE, config=dataclasses.replace(SHORT, epochs=30, optimizer="muon", precision=precision))
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert evaluate_loss(model, CYCLE, window=4) < 0.1 * math.log(VOCAB_SIZE)


def test_a_carried_state_reaches_back_beyond_the_window():
    """The token after a pause of six is the one before it: windows of three never hold both."""
    rng = np.random.default_rng(0)
    stream = np.concatenate([[token, *[7] * 6, token] for token in rng.integers(3, 6, 600)]).astype("int32")
    losses = {}
    for carry in (False, True):
        config = TrainConfig(epochs=12, batch_size=8, window=3, learning_rate=0.01, carry_state=carry)
        history = fit_model(new_model(cell="gru", dropout=0.0, units=16), stream, config=config)
        losses[carry] = history["loss_nats"].iloc[-1]
    assert losses[True] < losses[False] - 0.05


def test_documents_are_shuffled_only_where_the_state_is_carried():
    ends = NOISE.copy()
    ends[::10] = 2
    config = dataclasses.replace(SHORT, shuffle_documents=True)
    with pytest.raises(ValueError, match="shuffle_documents is True, but carry_state is False"):
        fit_model(new_model(), ends, config=config)  # which is what a stream's carry_state is unless given
    assert fit_model(new_model(), ends, config=dataclasses.replace(config, carry_state=True))["step"].max() == NUM_STEPS


def test_max_seconds_stops_and_finishes_the_schedule(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(loop.time, "perf_counter", lambda: 0.1 * next(ticks))  # each look at the clock takes a tenth of a second
    config = TrainConfig(epochs=100_000, batch_size=8, window=4, max_seconds=1.95)
    history = fit_model(new_model(), CYCLE, CYCLE[:60], config=config)
    assert history["step"].tolist() == [9, 9, 18, 18]  # a tenth a step and an evaluation; a tenth is left for the last one
    assert history["seconds"].tolist() == pytest.approx([0.9, 1.0, 1.9, 2.0])
    rates = history["learning_rate"]
    assert rates.iloc[-1] < 0.05 * STREAM_DEFAULTS.learning_rate < 0.5 * rates.iloc[0]


def test_evaluate_loss_equals_the_loss_of_the_logits():
    model = new_model(dropout=0.5)  # which must not act here
    stream = NOISE[:90]  # 22 windows of 4: batches of 5, 5, 5, 5 and 2
    starts = 4 * np.arange(22)
    windows = stream[starts[:, None] + np.arange(5)]
    logits = keras.ops.convert_to_numpy(model(windows[:, :-1]))
    expected = loss_nats(logits, windows[:, 1:])
    assert evaluate_loss(model, stream, window=4, batch_size=5) == pytest.approx(expected, abs=1e-5)
    assert evaluate_loss(model, stream, window=4, batch_size=100) == pytest.approx(expected, abs=1e-5)


# Checkpoints


@pytest.mark.parametrize("at", [1, 9])  # 9 is also an evaluation
def test_ctrl_c_saves_a_checkpoint_that_goes_on_exactly(tmp_path, unbroken, at):
    weights, history = unbroken
    with pytest.raises(KeyboardInterrupt):
        fit_model(new_model(), NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=tmp_path, callbacks=press_ctrl_c_after(at))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = new_model(seed=99)  # other first weights, other dropout: all comes from the checkpoint
    steps = []
    resumed = fit_model(
        model, NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=tmp_path, callbacks=[EachStep(lambda step, loss: steps.append(step))]
    )
    assert len(steps) == NUM_STEPS - at
    assert_same_weights(model, weights)
    assert resumed["step"].tolist() == history["step"].tolist()
    np.testing.assert_allclose(resumed["loss_nats"], history["loss_nats"], atol=1e-6)


def test_ctrl_c_without_a_checkpoint_folder_just_stops():
    with pytest.raises(KeyboardInterrupt):
        fit_model(new_model(), NOISE, config=SHORT, callbacks=press_ctrl_c_after(2))


def test_a_finished_run_only_loads(tmp_path, unbroken):
    weights, _ = unbroken
    history = fit_model(new_model(), NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def refuse(*batch):
        raise AssertionError("a finished run was trained on")

    model = new_model(seed=99)
    loaded = fit_model(model, NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=tmp_path, callbacks=[EachStep(refuse)])
    assert_same_weights(model, weights)
    assert loaded.equals(history)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_finished_run_may_be_made_longer(tmp_path):
    constant = dataclasses.replace(SHORT, schedule="constant", carry_state=True)
    longer = dataclasses.replace(constant, epochs=4)
    whole, model = new_model(), new_model()
    history = fit_model(whole, NOISE, config=longer)
    assert fit_model(model, NOISE, config=constant, checkpoint_dir=tmp_path)["step"].max() == NUM_STEPS
    resumed = fit_model(new_model(seed=99), NOISE, config=longer, checkpoint_dir=tmp_path)
    assert resumed["step"].tolist() == history["step"].tolist()
    np.testing.assert_allclose(resumed["loss_nats"], history["loss_nats"], atol=1e-6)
    assert resumed.attrs["cpu_seconds"] > 0


def test_the_best_weights_come_back_through_a_checkpoint(tmp_path):
    backwards = CYCLE[::-1].copy()[:60]
    config = dataclasses.replace(SHORT, eval_steps=2, patience=4, schedule="constant")
    whole = new_model()
    history = fit_model(whole, CYCLE, backwards, config=config)
    valid = history[history["split"] == "valid"]
    best = valid.loc[valid["loss_nats"].idxmin(), "step"]
    assert best < history["step"].max() - 2  # neither the last look nor the one of the interruption
    with pytest.raises(KeyboardInterrupt):
        fit_model(new_model(), CYCLE, backwards, config=config, checkpoint_dir=tmp_path, callbacks=press_ctrl_c_after(int(best) + 3))
    for _ in range(2):  # the first goes on, the second only loads
        model = new_model(seed=99)
        assert fit_model(model, CYCLE, backwards, config=config, checkpoint_dir=tmp_path)["step"].tolist() == history["step"].tolist()
        assert_same_weights(model, whole.get_weights())


def test_the_average_of_a_run_that_goes_on_is_read_from_its_checkpoint(tmp_path):
    config = dataclasses.replace(SHORT, ema_decay=0.8)
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.safetensors: there is no such checkpoint"):
        load_checkpoint(new_model(), NOISE, CYCLE[:60], config=config, checkpoint_dir=tmp_path)
    trained, averaged, longer = new_model(), new_model(seed=99), dataclasses.replace(config, epochs=9)
    with pytest.raises(KeyboardInterrupt):
        fit_model(trained, NOISE, config=config, checkpoint_dir=tmp_path, callbacks=press_ctrl_c_after(11))
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    history = load_checkpoint(averaged, NOISE, config=longer, checkpoint_dir=tmp_path)  # how long it shall be does not matter
    assert history["step"].tolist() == [9] and history.attrs["num_steps"] == 11
    assert_same_weights(averaged, trained.get_weights())  # Ctrl-C leaves the average too
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="another valid data"):
        load_checkpoint(averaged, NOISE, CYCLE[:60], config=config, checkpoint_dir=tmp_path)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> bytes:
    """A checkpoint after 4 of the 18 steps."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        fit_model(new_model(), NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=folder, callbacks=press_ctrl_c_after(4))
    return (folder / "checkpoint.safetensors").read_bytes()


@pytest.fixture
def checkpoint_dir(tmp_path, interrupted):
    (tmp_path / "checkpoint.safetensors").write_bytes(interrupted)
    return tmp_path


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        (r"config \(learning_rate, seed\)", {"config": dataclasses.replace(SHORT, learning_rate=0.5, seed=1)}),
        (r"config \(weight_decay\)", {"config": dataclasses.replace(SHORT, weight_decay=0.1)}),
        ("model", {"units": 9}),
        ("data", {"train_ids": CYCLE}),
        ("valid data", {}),  # the run before had one
    ],
)
def test_a_checkpoint_of_another_run_is_refused(checkpoint_dir, interrupted, part, changes):
    model = new_model(units=changes.get("units", 8))
    with pytest.raises(ValueError, match=rf"checkpoint\.safetensors belongs to a run with another {part}\. Choose another checkpoint_dir"):
        fit_model(model, changes.get("train_ids", NOISE), config=changes.get("config", SHORT), checkpoint_dir=checkpoint_dir)
    assert (checkpoint_dir / "checkpoint.safetensors").read_bytes() == interrupted


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-50], lambda data: b"not a checkpoint", lambda data: data[:5]])
def test_a_corrupt_checkpoint_is_refused_by_name(checkpoint_dir, interrupted, damage):
    path = checkpoint_dir / "checkpoint.safetensors"
    path.write_bytes(damage(interrupted))
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors cannot be read .*Remove it to start anew"):
        fit_model(new_model(), NOISE, config=SHORT, checkpoint_dir=checkpoint_dir)


def test_a_loss_of_nan_stops_and_leaves_the_last_checkpoint(checkpoint_dir, interrupted, unbroken):
    model = new_model()

    def diverge(step, loss):
        if step == 6:  # the checkpoint stands at 4
            model.weights[0].assign(np.full(model.weights[0].shape, np.nan, "float32"))

    with pytest.raises(FloatingPointError, match=r"The loss is nan at step 7\. Lower the learning rate"):
        fit_model(model, NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=checkpoint_dir, callbacks=[EachStep(diverge)])
    assert (checkpoint_dir / "checkpoint.safetensors").read_bytes() == interrupted
    model = new_model()
    fit_model(model, NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=checkpoint_dir)
    assert_same_weights(model, unbroken[0])


def test_a_run_that_diverges_is_noticed():
    config = dataclasses.replace(SHORT, optimizer="sgd", learning_rate=1e39)  # beyond float32
    with pytest.raises(FloatingPointError, match=r"at step \d+"):
        fit_model(new_model(), NOISE, config=config)


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(checkpoint_dir, interrupted):
    model = new_model()

    def poison(step, loss):  # the loss of this step was computed before and is fine
        if step == 6:
            model.weights[0].assign(np.full(model.weights[0].shape, np.inf, "float32"))

    with pytest.raises(FloatingPointError, match="weights are NaN or infinite after step 6"):
        fit_model(model, NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=checkpoint_dir, checkpoint_steps=1, callbacks=[EachStep(poison)])
    path = checkpoint_dir / "checkpoint.safetensors"
    assert path.read_bytes() != interrupted  # that of step 5
    assert all(np.isfinite(values).all() for values in load_file(path).values())


def test_a_folder_that_cannot_be_written_to_is_named_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"No file can be written there \(.*\). Choose another folder: '.*file"):
            fit_model(new_model(), NOISE, config=SHORT, checkpoint_dir=folder, callbacks=[EachStep(pytest.fail)])

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)  # a test may run with every right
    with pytest.raises(PermissionError, match="Permission denied"):
        fit_model(new_model(), NOISE, config=SHORT, checkpoint_dir=tmp_path / "other", callbacks=[EachStep(pytest.fail)])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(checkpoint_dir, interrupted, unbroken, monkeypatch, call):
    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            fit_model(new_model(), NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=checkpoint_dir, checkpoint_steps=3)
    assert [path.name for path in checkpoint_dir.iterdir()] == ["checkpoint.safetensors"]  # no litter
    assert (checkpoint_dir / "checkpoint.safetensors").read_bytes() == interrupted
    model = new_model()
    fit_model(model, NOISE, CYCLE[:60], config=SHORT, checkpoint_dir=checkpoint_dir)
    assert_same_weights(model, unbroken[0])
