"""Exposure, membership inference and the bound on epsilon, on numbers that can be worked out."""

import importlib.util

from slm_helpers.analysis.privacy import (
    attack_table,
    epsilon_lower_bound,
    exposure,
    logit_confidence,
    membership_scores,
    true_positive_rates,
)

import numpy as np
import pytest
from scipy.stats import norm


def test_exposure_of_first_last_and_equal_candidates():
    losses = np.arange(1024.0)
    assert exposure(losses, 0) == 10 and exposure(losses, 1023) == 0
    assert exposure(np.zeros(7), 3) == pytest.approx(np.log2(7 / 4))  # the mean rank of seven equals is 4
    rng = np.random.default_rng(0)
    chance = np.mean([exposure(rng.random(1000), 0) for _ in range(4000)])
    assert chance == pytest.approx(1 / np.log(2), abs=0.1)


def simulated(effect, *, num_models=24, num_rows=200, seed=0):
    rng = np.random.default_rng(seed)
    members = np.argsort(rng.random((num_models, num_rows)), axis=0) < num_models // 2
    hardness = rng.normal(scale=3, size=num_rows)
    return rng.normal(hardness + effect * members), members


@pytest.mark.parametrize("method", ["lira", "bavaria"])
def test_attack_finds_what_members_gain_and_nothing_where_they_gain_nothing(method):
    confidences, members = simulated(1.5)
    table = attack_table(members, membership_scores(confidences, members, method=method), num_samples=100).set_index("metric")
    # Two unit normals 1.5 apart: the best attack has an AUC of norm.cdf(1.5 / sqrt(2)), 0.86.
    assert 0.80 < table.loc["auc", "value"] < norm.cdf(1.5 / 2**0.5) + 0.01
    plain = attack_table(members, membership_scores(confidences, members, method="loss"), num_samples=10).set_index("metric")
    assert plain.loc["auc", "value"] < table.loc["auc", "value"] - 0.1  # hard rows hide what members gain
    confidences, members = simulated(0.0)
    table = attack_table(members, membership_scores(confidences, members, method=method), num_samples=200).set_index("metric")
    assert abs(table.loc["auc", "value"] - 0.5) < 0.03


def test_the_attacked_model_is_not_its_own_shadow_model():
    confidences, members = simulated(1.0)
    scores = membership_scores(confidences, members)
    changed = confidences.copy()
    changed[0] += 5  # moves the scores of model 0 only through model 0, those of the others through their shadow models
    np.testing.assert_allclose(scores[1], membership_scores(confidences, members)[1])
    by_hand = confidences[1:][members[1:, 0], 0]
    others = confidences[1:][~members[1:, 0], 0]
    lira = membership_scores(confidences, members, method="lira")[0, 0]
    expected = norm.logpdf(confidences[0, 0], by_hand.mean(), by_hand.std(ddof=1))
    expected -= norm.logpdf(confidences[0, 0], others.mean(), others.std(ddof=1))
    assert lira == pytest.approx(expected, abs=1e-3)


def test_few_shadow_models_need_the_common_variance():
    confidences, members = simulated(1.5, num_models=8, num_rows=2000)
    auc = {
        method: attack_table(members, membership_scores(confidences, members, method=method), num_samples=2)["value"][0]
        for method in ("lira", "bavaria")
    }
    assert auc["bavaria"] > auc["lira"] + 0.01


def test_true_positive_rates_count_by_hand():
    members = np.array([1, 1, 1, 1] + [0] * 100, dtype=bool)
    scores = np.concatenate([[200, 99.5, 98.5, 0], np.arange(100)])
    assert true_positive_rates(members, scores, (0.0, 0.01)) == [0.5, 0.75]


def test_the_table_agrees_with_scikit_learn_and_with_the_count_by_hand():
    from sklearn.metrics import roc_auc_score

    confidences, members = simulated(1.0)
    scores = np.round(confidences, 1)  # with ties
    table = attack_table(members, scores, num_samples=50)
    expected = [roc_auc_score(members.ravel(), scores.ravel()), *true_positive_rates(members, scores)]
    np.testing.assert_allclose(table["value"], expected)
    assert (table["ci_low"] < table["value"]).all() and (table["value"] < table["ci_high"]).all()


def test_epsilon_bound_holds_for_a_known_mechanism_and_is_zero_for_chance():
    rng = np.random.default_rng(1)
    members = rng.random(200_000) < 0.5
    # Randomised response: the truth is told with probability e^2 / (1 + e^2), an epsilon of 2 exactly.
    told = np.where(rng.random(len(members)) < np.exp(2) / (1 + np.exp(2)), members, ~members) + 1e-3 * rng.random(len(members))
    assert 1.8 < epsilon_lower_bound(members, told, delta=1e-6) <= 2.0
    assert epsilon_lower_bound(members, rng.random(len(members)), delta=1e-6) < 0.1


def test_bad_shapes_and_too_few_models_are_refused():
    with pytest.raises(ValueError, match="both must be"):
        membership_scores(np.zeros((4, 3)), np.zeros((3, 4), bool))
    with pytest.raises(ValueError, match="three models"):
        membership_scores(np.zeros((4, 3)), np.tile([[1], [1], [0], [0]], (1, 3)).astype(bool))
    assert logit_confidence(np.array([0.5]))[0] == 0


@pytest.mark.skipif(importlib.util.find_spec("jax_privacy") is None, reason="jax-privacy is not installed; it is a rival to check by")
def test_rates_agree_with_jax_privacy():
    from jax_privacy.auditing import CanaryScoreAuditor

    rng = np.random.default_rng(5)
    members = rng.random(4000) < 0.5
    scores = rng.normal(size=4000) + 1.2 * members
    auditor = CanaryScoreAuditor(scores[members], scores[~members])
    found = attack_table(members[None], scores[None], num_samples=2).set_index("metric")["value"]
    # Its curve is the convex hull: an attacker may draw lots between two thresholds. So it is above ours, and not by much.
    assert 0 <= auditor.attack_auroc() - found["auc"] < 0.005
    assert 0 <= float(auditor.tpr_at_given_fpr(0.01)) - found["tpr at 1 % fpr"] < 0.02
