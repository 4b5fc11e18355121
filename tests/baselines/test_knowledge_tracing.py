"""Baselines of knowledge tracing: by hand, on simulated data, and without a look at the answer."""

from slm_helpers.baselines.knowledge_tracing import BayesianTracing, CountRegression, SkillRates
from slm_helpers.data.attempts import order_attempts
from slm_helpers.data.simulated import simulate_students

import numpy as np
import pandas as pd
import pytest


def attempts(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["student", "step", "skill", "correct"])


@pytest.fixture(scope="module")
def few() -> pd.DataFrame:
    """Sixty simulated learners."""
    return simulate_students(60, seed=3)


def test_filter_of_bayesian_tracing_worked_out_by_hand():
    model = BayesianTracing()
    model.skills_, model._values = ["a"], np.array([[0.5, 0.2, 0.25, 0.1]])
    frame = attempts(("x", 0, "a", 1), ("x", 1, "a", 0), ("y", 0, "a", 0))
    first = 0.5 * 0.9 + 0.5 * 0.25
    known = 0.45 / first
    second = known + (1 - known) * 0.2
    np.testing.assert_allclose(model.predict(frame), [first, second * 0.9 + (1 - second) * 0.25, first])
    np.testing.assert_allclose(model.mastery(frame), [0.5, second, 0.5])
    np.testing.assert_allclose(model.knowledge([[(0, 1)], []])[:, 0], [second, 0.5])


def test_bayesian_tracing_finds_the_parameters_that_made_the_data():
    rng = np.random.default_rng(5)
    truth = {"a": (0.3, 0.2, 0.15, 0.05), "b": (0.7, 0.1, 0.3, 0.15)}
    rows = []
    for student in range(1500):
        for skill, (start, learn, guess, slip) in truth.items():
            known = rng.random() < start
            for step in range(8):
                rows.append((student, step + 8 * (skill == "b"), skill, int(rng.random() < (1 - slip if known else guess))))
                known = known or rng.random() < learn
    model = BayesianTracing(num_rounds=60).fit(order_attempts(attempts(*rows)))
    np.testing.assert_allclose(model.parameters_.set_index("skill").loc[list(truth)].to_numpy(), list(truth.values()), atol=0.06)
    assert (np.diff(model.log_losses_) < 1e-3).all() and model.log_losses_[-1] < model.log_losses_[0]


def test_bayesian_tracing_stays_within_bounds_after_long_runs_of_one_answer():
    answers = [1] * 60 + [0] * 60 + [1] * 5
    model = BayesianTracing()
    model.skills_, model._values = ["a"], np.array([model.USUAL])
    frame = attempts(*(("x", step, "a", correct) for step, correct in enumerate(answers)))
    for probs in (model.predict(frame), model.mastery(frame)):
        assert ((probs >= 0) & (probs <= 1)).all()
    fitted = BayesianTracing().fit(frame)
    assert np.isfinite(fitted.log_losses_).all() and ((fitted._values > 0) & (fitted._values < 1)).all()


def test_no_baseline_sees_the_answer_it_predicts(few):
    rows = order_attempts(few[few["student"] == "student-001"])
    for model in (SkillRates(), CountRegression(), BayesianTracing()):
        model.fit(order_attempts(few))
        changed = rows.assign(correct=np.where(rows.index >= 20, 1 - rows["correct"], rows["correct"]))
        before, after = model.predict(rows), model.predict(changed)
        np.testing.assert_allclose(before[:21], after[:21])
        assert ((before > 0) & (before < 1)).all()
        if isinstance(model, CountRegression | BayesianTracing):
            assert np.abs(before[21:] - after[21:]).max() > 0.01


def test_baselines_name_a_skill_they_do_not_know(few):
    model = SkillRates().fit(few)
    with pytest.raises(ValueError, match="row 1: the skill 'knitting' is unknown to this model, which knows adding fractions, addition"):
        model.predict(attempts(("x", 0, "knitting", 1)))
