"""DP-SGD: the accounting, and gradients that are clipped row by row without being made."""

import importlib.util
from statistics import NormalDist

from slm_helpers._numerics import softmax
from slm_helpers.training.private import clip_factors, dp_epsilon, dp_noise, fit_probes, ghost_norms_squared, poisson_batch, probe_logits

import numpy as np
import pytest

ROWS = {"sample_rate": 0.5, "num_steps": 5}


def test_epsilon_is_that_of_the_reference():
    pytest.importorskip("dp_accounting")
    # Figures of dp-accounting 0.6.0 with its finest grid; moments accounting (RDP) says 2.10 for the first.
    assert dp_epsilon(1.0, sample_rate=0.01, num_steps=1000, delta=1e-5) == pytest.approx(1.8282, abs=0.002)


def test_without_sampling_epsilon_is_that_of_one_gaussian():
    """T steps of noise s are one step of noise s / sqrt(T), whose delta is known in closed form (Balle and Wang 2018)."""
    pytest.importorskip("dp_accounting")
    epsilon, shift = dp_epsilon(4.0, sample_rate=1.0, num_steps=16, delta=1e-5), 1.0
    cdf = NormalDist().cdf
    assert cdf(shift / 2 - epsilon / shift) - np.exp(epsilon) * cdf(-shift / 2 - epsilon / shift) == pytest.approx(1e-5, rel=0.02)


def test_noise_keeps_to_the_epsilon_it_was_asked_for():
    pytest.importorskip("dp_accounting")
    settings = {"sample_rate": 0.25, "num_steps": 40, "delta": 1e-5}
    noise = dp_noise(3.0, **settings)
    assert 2.97 < dp_epsilon(noise, **settings) <= 3.0 + 1e-3
    assert dp_noise(1.0, **settings) > 2 * noise


def test_batches_are_poisson_sampled():
    """Shuffled batches of one size would be another mechanism, with another epsilon."""
    rng = np.random.default_rng(0)
    sizes = [len(poisson_batch(1000, 0.25, rng)) for _ in range(2000)]
    assert np.mean(sizes) == pytest.approx(250, abs=2) and np.std(sizes) == pytest.approx(np.sqrt(1000 * 0.25 * 0.75), rel=0.1)


def test_ghost_norms_are_those_of_the_gradients():
    rng = np.random.default_rng(0)
    inputs, errors = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 2))
    gradients = np.einsum("nti,ntj->nij", inputs, errors)
    np.testing.assert_allclose(ghost_norms_squared(inputs, errors), (gradients**2).sum(axis=(1, 2)))
    ids = rng.integers(0, 3, (4, 5))  # some twice: their errors add up in one row of the embedding
    gradients = np.einsum("nti,ntj->nij", np.eye(3)[ids], errors)
    np.testing.assert_allclose(ghost_norms_squared(ids, errors), (gradients**2).sum(axis=(1, 2)))


def test_one_step_of_a_probe_is_the_clipped_mean_by_hand():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(6, 3)).astype("float32"), np.array([0, 1, 1, 0, 1, 0])
    (weights,) = fit_probes(features, labels, num_classes=2, clip_norm=0.7, sample_rate=1.0, num_steps=1, learning_rate=2.0)
    total = np.zeros((3, 2))
    for x, y in zip(features, labels, strict=True):
        gradient = np.outer(x, np.array([0.5, 0.5]) - np.eye(2)[y])
        total += gradient * min(1, 0.7 / np.linalg.norm(gradient))
    np.testing.assert_allclose(weights, -2.0 * total / (6 * 0.7), rtol=1e-5)


def test_no_row_can_move_the_weights_by_more_than_the_clipping_norm():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(20, 4)).astype("float32"), rng.integers(0, 3, 20)
    members = np.ones((1, 20), dtype=bool)
    settings = {"num_classes": 3, "clip_norm": 0.5, "sample_rate": 1.0, "num_steps": 1, "learning_rate": 1.0}
    wild = features.copy()
    wild[0] *= 1e6
    moved = fit_probes(wild, labels, members, **settings) - fit_probes(features, labels, members, **settings)
    assert np.linalg.norm(moved) * 20 <= 2 * 1.0 + 1e-4  # one gradient of length 0.5 taken out, another put in, in units of clip_norm


def test_probes_side_by_side_are_those_trained_alone_and_see_their_members_only():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(12, 3)).astype("float32"), rng.integers(0, 2, 12)
    members = np.stack([np.arange(12) < 8, np.arange(12) >= 4])
    settings = {"num_classes": 2, "sample_rate": 1.0, "num_steps": 20}
    both = fit_probes(features, labels, members, **settings)
    for weights, chosen in zip(both, members, strict=True):
        np.testing.assert_allclose(weights, fit_probes(features[chosen], labels[chosen], **settings)[0], atol=1e-5)
    assert probe_logits(features, both).shape == (12, 2, 2)


def test_noise_has_the_stated_size():
    features, labels = np.zeros((10, 200), dtype="float32"), np.zeros(10, dtype=int)
    settings = {"num_classes": 5, "noise_multiplier": 3.0, "clip_norm": 0.5, "sample_rate": 0.5, "num_steps": 1, "learning_rate": 1.0}
    (weights,) = fit_probes(features, labels, **settings)
    assert weights.std() == pytest.approx(3.0 / (0.5 * 10), rel=0.1)


def test_a_probe_learns_what_can_be_learned():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    features = (np.eye(3)[labels] + 0.1 * rng.normal(size=(300, 3))).astype("float32")
    (weights,) = fit_probes(features, labels, num_classes=3, noise_multiplier=1.0)
    assert (softmax(features @ weights).argmax(axis=1) == labels).mean() > 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"sample_rate": 0.0}, "sample_rate"), ({"num_steps": 0}, "num_steps"), ({"noise_multiplier": 1.0, "clip_norm": np.inf}, "clip_norm")],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    pytest.importorskip("dp_accounting")
    with pytest.raises(ValueError, match=message):
        fit_probes(np.zeros((2, 2)), np.array([0, 1]), **({"num_classes": 2} | ROWS | changes))


def test_clip_factors():
    np.testing.assert_allclose(clip_factors(np.array([0.0, 0.5, 2.0]), 1.0), [1, 1, 0.5])


@pytest.mark.skipif(importlib.util.find_spec("jax_privacy") is None, reason="jax-privacy is not installed; it is a rival to check by")
def test_noise_agrees_with_jax_privacy():
    from jax_privacy import accounting

    accountant = accounting.analysis.DpsgdTrainingAccountant(
        dp_accountant_config=accounting.accountants.PldAccountantConfig(value_discretization_interval=1e-4)
    )
    parameters = accounting.analysis.DpParams(noise_multipliers=1.0, batch_size=10, num_samples=1000, delta=1e-5)
    epsilon = accountant.compute_epsilon(dp_params=parameters, num_updates=1000)
    assert dp_epsilon(1.0, sample_rate=0.01, num_steps=1000, delta=1e-5) == pytest.approx(epsilon, rel=0.01)
