"""What the training loop tells Keras callbacks, and what it does at their word."""

from tests.training.resume_run import KINDS, NUM_STEPS, run

import keras
import numpy as np
import pytest


class Record(keras.callbacks.Callback):
    """Note every call."""

    def __init__(self, *, stop_at: int = 0):
        super().__init__()
        self.calls, self.stop_at = [], stop_at

    def on_train_begin(self, logs=None):
        self.calls.append(("train_begin", dict(self.params)))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch_begin", epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("batch_begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("batch_end", batch, logs["loss"]))
        if len([name for name, *_ in self.calls if name == "batch_end"]) == self.stop_at:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch_end", epoch, logs))

    def on_train_end(self, logs=None):
        self.calls.append(("train_end",))

    def names(self):
        return [name for name, *_ in self.calls]


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_hear_of_every_step_and_epoch_in_order(kind):
    record = Record()
    model, history = run(kind, callbacks=[record])
    per_epoch = NUM_STEPS[kind] // 3
    epoch = ["epoch_begin", *["batch_begin", "batch_end"] * per_epoch, "epoch_end"]
    assert record.names() == ["train_begin", *epoch * 3, "train_end"]
    assert record.calls[0][1]["epochs"] == 3 and record.calls[0][1]["steps"] == per_epoch
    assert [call[1] for call in record.calls if call[0] == "batch_end"] == [*range(per_epoch)] * 3
    assert [call[1] for call in record.calls if call[0] == "epoch_end"] == [0, 1, 2]
    assert record.model is model
    last = [call[2] for call in record.calls if call[0] == "epoch_end"][-1]
    newest = history.groupby("split").last()
    assert last["loss"] == newest.loc["train", "loss_nats"]
    assert last.get("val_loss") == (newest.loc["valid", "loss_nats"] if kind != "pairs" else None)
    assert ("val_accuracy" in last) == (kind == "rows")


def test_a_callback_may_stop_the_run():
    record = Record(stop_at=7)
    _, history = run("rows", callbacks=[record])
    assert record.names().count("batch_end") == 7
    assert record.names()[-2:] == ["epoch_end", "train_end"]
    assert history["step"].tolist() == [5, 5, 7, 7]


def test_early_stopping_of_keras_works_and_a_new_run_starts_afresh():
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=0, min_delta=10.0)  # nothing is better by so much
    for _ in range(2):
        _, history = run("rows", callbacks=[stopping])
        assert history["step"].max() == 10  # the second epoch is not better than the first


def test_what_is_no_callback_is_named():
    with pytest.raises(TypeError, match=r"callbacks holds <class .*must hold objects"):
        run("rows", callbacks=[Record])


def test_the_running_average_is_what_is_left_and_evaluated():
    """Worked out beside the run: after each step average = factor * average + (1 - factor) * weights, at first with a lower factor."""
    averages = []

    class Average(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights = [keras.ops.convert_to_numpy(v) for v in self.model.trainable_variables]
            factor = min(0.8, len(averages) / (len(averages) + 9))
            averages.append([factor * a + (1 - factor) * w for a, w in zip(averages[-1] if averages else weights, weights, strict=True)])

    model, _ = run("pairs", callbacks=[Average()])
    for variable, expected in zip(model.trainable_variables, averages[-1], strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, atol=1e-5)
