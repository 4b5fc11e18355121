"""Settings: what is refused, what is filled in, and the learning rate of each step."""

import dataclasses
import json
import math

from slm_helpers.training.config import ROW_DEFAULTS, STREAM_DEFAULTS, TrainConfig, check_unused, learning_rate_at

import pytest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0, but must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"window": -1}, "window is -1"),
        ({"optimizer": "Adam"}, "optimizer is 'Adam', but must be one of 'sgd', 'momentum', 'adam', 'adamw'"),
        ({"schedule": "step"}, "schedule is 'step', but must be one of 'constant', 'linear', 'cosine'"),
        ({"weight_decay": 1.0}, "weight_decay is 1.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, but must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan, but must be above 0"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm is -1.0, but must be above 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1, but must be 0 or more"),
        ({"eval_steps": -5}, "eval_steps is -5"),
        ({"decay_share": 0.0}, "decay_share is 0.0, but must be above 0"),
        ({"decay_share": 1.5}, r"decay_share is 1.5, but must lie in \[0, 1\]"),
        ({"class_weight": "equal"}, "class_weight is 'equal'"),
        ({"warmup_share": 0.1, "warmup_steps": 5}, "warmup_steps and warmup_share are both given"),
        ({"patience": -1}, "patience is -1"),
        ({"max_seconds": -0.5}, "max_seconds is -0.5"),
        ({"adam_share": 0.0}, "adam_share is 0.0, but must be above 0"),
        ({"muon_columns": -1}, "muon_columns is -1, but must be 0 or more"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"shuffle_documents": True, "carry_state": False}, "shuffle_documents is True, but carry_state is False"),
    ],
)
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_a_misspelt_setting_fails():
    with pytest.raises(TypeError, match="learning_rates"):
        TrainConfig(learning_rates=0.1)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        # From 1 to a hundredth of it: at 0 %, 25 %, 50 % and 100 % of training.
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.01 + 0.99 * 0.75, 0.505, 0.01]),
        ("cosine", [1.0, 0.01 + 0.99 * 0.5 * (1 + math.sqrt(0.5)), 0.505, 0.01]),
        ("warmup_stable_decay", [1.0, 1.0, 1.0, 0.01]),
    ],
)
def test_learning_rate_follows_its_schedule(schedule, rates):
    config = TrainConfig(learning_rate=3.0, schedule=schedule, warmup_steps=0)
    found = [learning_rate_at(config, step, 100) for step in (0, 25, 50, 100)]
    assert found == pytest.approx([3.0 * rate for rate in rates])


def test_learning_rate_climbs_in_warm_up():
    config = TrainConfig(learning_rate=2.0, schedule="constant", warmup_steps=4)
    assert [learning_rate_at(config, step, 1000) for step in range(6)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    # The schedule goes on during the warm-up: both factors multiply.
    linear = TrainConfig(learning_rate=2.0, schedule="linear", warmup_steps=4)
    assert learning_rate_at(linear, 1, 2) == pytest.approx(2.0 * 0.5 * 0.505)
    share = TrainConfig(learning_rate=2.0, schedule="constant", warmup_share=0.04)
    assert [learning_rate_at(share, step, 100) for step in range(6)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


def test_the_last_share_of_the_steps_decays():
    config = TrainConfig(learning_rate=2.0, schedule="warmup_stable_decay", decay_share=0.5, warmup_steps=0)
    assert [learning_rate_at(config, step, 100) for step in (49, 50, 75, 100)] == pytest.approx([2.0, 2.0, 1.01, 0.02])


def test_time_that_has_passed_moves_the_schedule_as_steps_do():
    config = TrainConfig(learning_rate=2.0, schedule="linear", warmup_steps=0)
    assert learning_rate_at(config, 10, 100, time_share=0.5) == pytest.approx(1.01)
    assert learning_rate_at(config, 50, 100, time_share=0.1) == pytest.approx(1.01)
    assert learning_rate_at(config, 50, 100, time_share=7.0) == pytest.approx(0.02)


def test_a_setting_that_is_given_is_kept_also_when_it_is_the_usual_one():
    given = TrainConfig(epochs=5, patience=0, warmup_steps=0)
    filled = given.with_defaults(TrainConfig(epochs=20, patience=3, batch_size=8, warmup_share=0.1, learning_rate=0.1))
    assert filled == TrainConfig(epochs=5, patience=0, warmup_steps=0, batch_size=8, learning_rate=0.1)
    assert TrainConfig().with_defaults(ROW_DEFAULTS) == ROW_DEFAULTS  # warm-up is one setting with two ways to say it
    assert dataclasses.replace(ROW_DEFAULTS, epochs=5) != STREAM_DEFAULTS


def test_settings_of_older_folders_are_read():
    old = {"schedule": "trapezoid", "epochs": 3, "warmup_steps": 200, "balanced": True}
    assert TrainConfig.from_settings(old) == TrainConfig(
        schedule="warmup_stable_decay", epochs=3, warmup_steps=200, class_weight="balanced"
    )
    filled = STREAM_DEFAULTS
    assert TrainConfig.from_settings(json.loads(json.dumps(dataclasses.asdict(filled)))) == filled
    with pytest.raises(TypeError, match="momentum"):
        TrainConfig.from_settings({"momentum": 0.9})


def test_settings_that_a_function_would_not_follow_are_refused():
    names = ("layer_decay", "frozen", "class_weight", "carry_state", "shuffle_documents", "unfreeze_epochs")
    check_unused(STREAM_DEFAULTS, "fit_pairs", *names)  # what says nothing is no setting
    settings = [{"layer_decay": 0.5}, {"frozen": ("embedding",)}, {"class_weight": "balanced"}, {"carry_state": True}]
    for setting in (*settings, {"shuffle_documents": True}):
        (name,) = setting
        with pytest.raises(ValueError, match=f"{name} is .*, but fit_pairs has no such setting"):
            check_unused(TrainConfig(**setting), "fit_pairs", *names)
