"""DP-SGD: train so that no single row can be told from the result; its accounting, and clipping without per-example gradients.

Gradients are clipped row by row, batches are drawn by Poisson sampling (each row with the same probability, on its own), and noise in
proportion to the clipping norm is added to their sum. The three belong together: `dp_epsilon` holds for no other way of drawing.

Reference:
    Abadi et al. (2016), "Deep Learning with Differential Privacy", arXiv:1607.00133.
    Koskela et al. (2020), "Computing Tight Differential Privacy Guarantees Using FFT", arXiv:1906.03049, for the accounting.
    Li et al. (2022), "Large Language Models Can Be Strong Differentially Private Learners", arXiv:2110.05679, for ghost clipping.
"""

from functools import partial

from slm_helpers._checks import check_positive
from slm_helpers._numerics import softmax

import numpy as np

_NOISE_TOLERANCE = 1e-3  # of the noise that is searched for


def dp_epsilon(noise_multiplier: float, *, sample_rate: float, num_steps: int, delta: float) -> float:
    """Return the epsilon of DP-SGD by privacy loss distributions (PLD): rows are added or removed, batches Poisson sampled.

    Args:
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        sample_rate: Probability of a row to be in a batch, above 0 and at most 1.
        num_steps: Batches.
        delta: Probability that the promise of epsilon is broken; well below 1 / rows.

    Example:
        >>> round(dp_epsilon(1.0, sample_rate=0.01, num_steps=1000, delta=1e-5), 3)
        1.828
    """
    from dp_accounting.pld import PLDAccountant

    if not noise_multiplier > 0:
        raise ValueError(f"noise_multiplier is {noise_multiplier}, but must be above 0: without noise there is no epsilon.")
    return float(PLDAccountant().compose(_event(noise_multiplier, sample_rate=sample_rate, num_steps=num_steps)).get_epsilon(_delta(delta)))


def dp_noise(epsilon: float, *, sample_rate: float, num_steps: int, delta: float) -> float:
    """Return the least noise multiplier with which DP-SGD keeps to an epsilon; the arguments are those of `dp_epsilon`."""
    from dp_accounting import calibrate_dp_mechanism
    from dp_accounting.pld import PLDAccountant

    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon}, but must be above 0, e.g. 3.")
    _delta(delta)
    # A coarse grid of losses errs on the side of too much noise, here by less than a thousandth, and is ten times as fast.
    accountant = partial(PLDAccountant, value_discretization_interval=3e-3)
    event = partial(_event, sample_rate=sample_rate, num_steps=num_steps)
    return float(calibrate_dp_mechanism(accountant, event, epsilon, delta, tol=_NOISE_TOLERANCE))


def poisson_batch(num_rows: int, sample_rate: float, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of a batch: every row is in it with the same probability, whatever the others do. It may be empty."""
    return np.flatnonzero(rng.random(num_rows) < sample_rate)


def ghost_norms_squared(inputs: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return each row's squared gradient norm of a weight matrix that is used at every position, without making the gradient.

    The gradient of a row is the sum over positions of outer products u_t v_t'; its squared norm is the sum over pairs of positions of
    (u_t . u_s)(v_t . v_s).

    Args:
        inputs: What the matrix was multiplied with, u, shape (rows, time, in); token ids, shape (rows, time), for an embedding.
        errors: Gradient of the row's loss by the products, v, shape (rows, time, out).

    Returns:
        Shape (rows,).

    Example:
        >>> ghost_norms_squared(np.array([[[1.0], [2.0]]]), np.array([[[3.0], [1.0]]])).tolist()  # (1 * 3 + 2 * 1) ** 2
        [25.0]
    """
    alike = inputs[:, :, None] == inputs[:, None] if inputs.ndim == 2 else inputs @ inputs.transpose(0, 2, 1)
    return np.maximum((alike * (errors @ errors.transpose(0, 2, 1))).sum(axis=(1, 2)), 0.0)


def clip_factors(norms: np.ndarray, clip_norm: float) -> np.ndarray:
    """Return what each row's gradient is multiplied by so that its norm is `clip_norm` at most."""
    return np.minimum(1.0, clip_norm / np.maximum(norms, 1e-12))


def fit_probes(
    features: np.ndarray,
    labels: np.ndarray,
    members: np.ndarray | None = None,
    *,
    num_classes: int,
    noise_multiplier: float = 0.0,
    clip_norm: float = 0.5,
    sample_rate: float = 0.5,
    num_steps: int = 30,
    learning_rate: float = 4.0,
    momentum: float = 0.9,
    seed: int = 42,
) -> np.ndarray:
    """Train linear probes (multinomial logistic regression from zero weights) by DP-SGD, many side by side as one matrix product.

    The gradient of a row is features x (probabilities - one-hot label), an outer product: its norm is the product of two norms.

    Args:
        features: Shape (rows, dims). Scale them by nothing that was learned from these rows.
        labels: Class of each row, from 0.
        members: Which rows each probe learns from, bool, shape (probes, rows); None: one probe, all rows. The number of members is
            taken to be public.
        num_classes: Number of classes.
        noise_multiplier: From `dp_noise`; 0 trains without noise, which promises nothing.
        clip_norm: Most that a row's gradient may be long; inf clips nothing.
        sample_rate: Probability of a member to be in a batch.
        num_steps: Batches.
        learning_rate: For the mean of the clipped gradients, which is divided by `clip_norm` if that is finite.
        momentum: Of the updates; it works on what is private already and costs no epsilon.
        seed: Of sampling and noise.

    Returns:
        Weights, float32, shape (probes, dims, num_classes).
    """
    check_positive(num_classes=num_classes, num_steps=num_steps)
    _event(1.0, sample_rate=sample_rate, num_steps=num_steps)  # checks both
    if noise_multiplier and not np.isfinite(clip_norm):
        raise ValueError("Noise is scaled by clip_norm, which is infinite. Give a finite one, e.g. clip_norm=0.5.")
    features, rng = np.asarray(features, dtype="float32"), np.random.default_rng(seed)
    members = np.ones((1, len(features)), dtype=bool) if members is None else np.asarray(members)
    one_hot = np.eye(num_classes, dtype="float32")[labels][:, None]
    lengths = np.linalg.norm(features, axis=1)[:, None]
    scale = clip_norm if np.isfinite(clip_norm) else 1.0
    expected = sample_rate * members.sum(axis=1)[:, None, None] * scale
    weights = np.zeros((len(members), features.shape[1], num_classes), dtype="float32")
    update = np.zeros_like(weights)
    for _ in range(num_steps):
        errors = softmax(probe_logits(features, weights)) - one_hot  # (rows, probes, classes)
        drawn = (members & (rng.random(members.shape) < sample_rate)).T
        errors *= (drawn * clip_factors(lengths * np.linalg.norm(errors, axis=2), clip_norm))[:, :, None]
        gradients = (features.T @ errors.reshape(len(features), -1)).reshape(-1, len(members), num_classes).transpose(1, 0, 2)
        if noise_multiplier:
            gradients = gradients + noise_multiplier * clip_norm * rng.standard_normal(weights.shape, dtype="float32")
        update = momentum * update + gradients / expected
        weights -= learning_rate * update
    return weights


def probe_logits(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the logits of probes, shape (rows, probes, classes), from features, (rows, dims), and weights, (probes, dims, classes)."""
    num_probes, dims, num_classes = weights.shape
    return (features @ weights.transpose(1, 0, 2).reshape(dims, -1)).reshape(len(features), num_probes, num_classes)


def _event(noise_multiplier: float, *, sample_rate: float, num_steps: int):
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate is {sample_rate}, but must lie above 0 and be 1 at most. For half of the rows write 0.5.")
    check_positive(num_steps=num_steps)
    return SelfComposedDpEvent(PoissonSampledDpEvent(sample_rate, GaussianDpEvent(noise_multiplier)), num_steps)


def _delta(delta: float) -> float:
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}, but must lie between 0 and 1, well below 1 / rows. Give e.g. 1e-5.")
    return delta
