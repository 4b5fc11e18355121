"""A GRU in NumPy that knows what each row would change: language models small enough for DP-SGD on a laptop.

A framework's backward pass returns the gradient of a batch; clipping needs that of every row. Here the backward pass ends one step
earlier, at the errors of each row and position, from which `ghost_norms_squared` has the norms and one product the clipped sum.
The gates are those of Keras (the update gate keeps the old state, reset after the matrix product), so that weights can be shared.

Reference:
    Cho et al. (2014), arXiv:1406.1078, for the GRU; Kingma and Ba (2015), arXiv:1412.6980, for Adam.
"""

from collections.abc import Callable

from slm_helpers._checks import check_choice, check_positive
from slm_helpers._numerics import log_softmax
from slm_helpers.training.private import clip_factors, ghost_norms_squared, poisson_batch

import numpy as np

Weights = dict[str, np.ndarray]
Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # for each weight matrix what it was multiplied with, and the errors of the products
ReadRows = Callable[[Weights, np.ndarray], tuple[np.ndarray, Parts]]
_ROWS = 256  # read at a time where only losses are wanted


def new_language_model(vocab_size: int, *, embedding_dim: int = 48, units: int = 96, seed: int = 42) -> Weights:
    """Return random weights of a GRU language model: embedding, kernel, recurrent, biases, output and output_bias."""
    check_positive(vocab_size=vocab_size, embedding_dim=embedding_dim, units=units)
    rng = np.random.default_rng(seed)
    shapes = {"embedding": (vocab_size, embedding_dim), "kernel": (embedding_dim, 3 * units), "recurrent": (units, 3 * units)}
    weights = {name: rng.normal(scale=shape[-2] ** -0.5, size=shape) for name, shape in (shapes | {"output": (units, vocab_size)}).items()}
    weights["embedding"] *= vocab_size**0.5 / 2  # a vector is looked up, not summed
    weights |= {"bias": np.zeros((1, 3 * units)), "recurrent_bias": np.zeros((1, 3 * units)), "output_bias": np.zeros((1, vocab_size))}
    return {name: values.astype("float32") for name, values in weights.items()}


def gru_step(weights: Weights, products: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return the next state, shape (batch, units), and the gates, from the products of the input, shape (batch, 3 units)."""
    units = state.shape[1]
    recurrent = state @ weights["recurrent"] + weights["recurrent_bias"]
    gates = 1 / (1 + np.exp(-(products[:, : 2 * units] + recurrent[:, : 2 * units])))
    update, reset = gates[:, :units], gates[:, units:]
    candidate = np.tanh(products[:, 2 * units :] + reset * recurrent[:, 2 * units :])
    return update * state + (1 - update) * candidate, (update, reset, candidate, recurrent[:, 2 * units :])


def gru_forward(weights: Weights, token_ids: np.ndarray) -> tuple[np.ndarray, list]:
    """Read token ids, shape (batch, time); returns the states, shape (batch, time + 1, units), zeros first, and the gates of each step."""
    products = weights["embedding"][token_ids] @ weights["kernel"] + weights["bias"]
    states, steps = [np.zeros((len(token_ids), len(weights["recurrent"])), dtype="float32")], []
    for position in range(token_ids.shape[1]):
        state, gates = gru_step(weights, products[:, position], states[-1])
        states.append(state)
        steps.append(gates)
    return np.stack(states, axis=1), steps


def gru_errors(weights: Weights, states: np.ndarray, steps: list, state_errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Go back through time: from the gradient by each state, shape (batch, time, units), to those by the products of the input and of
    the state before, both of shape (batch, time, 3 units).
    """
    from_input, from_state = (np.empty((*state_errors.shape[:2], 3 * state_errors.shape[2]), dtype="float32") for _ in range(2))
    error = np.zeros_like(states[:, 0])
    for position in reversed(range(state_errors.shape[1])):
        update, reset, candidate, before_reset = steps[position]
        error = error + state_errors[:, position]
        inner = error * (1 - update) * (1 - candidate**2)
        of_update = error * (states[:, position] - candidate) * update * (1 - update)
        of_reset = inner * before_reset * reset * (1 - reset)
        from_input[:, position] = np.concatenate([of_update, of_reset, inner], axis=1)
        from_state[:, position] = np.concatenate([of_update, of_reset, inner * reset], axis=1)
        error = error * update + from_state[:, position] @ weights["recurrent"].T
    return from_input, from_state


def gru_parts(weights: Weights, token_ids: np.ndarray, states: np.ndarray, from_input: np.ndarray, from_state: np.ndarray) -> Parts:
    """Return the parts of the embedding, of both matrices and of their biases."""
    ones = np.ones((*token_ids.shape, 1), dtype="float32")
    return {
        "embedding": (token_ids, from_input @ weights["kernel"].T),
        "kernel": (weights["embedding"][token_ids], from_input),
        "bias": (ones, from_input),
        "recurrent": (states[:, :-1], from_state),
        "recurrent_bias": (ones, from_state),
    }


def read_language_rows(weights: Weights, token_ids: np.ndarray) -> tuple[np.ndarray, Parts]:
    """Return the summed cross-entropy of each row in nats, shape (batch,), and the parts of its gradient.

    Args:
        weights: From `new_language_model`.
        token_ids: Shape (batch, time + 1): each token but the first is predicted from those before it; 0 is padding on the right.
    """
    inputs, targets = token_ids[:, :-1], token_ids[:, 1:]
    states, steps = gru_forward(weights, inputs)
    losses, errors = _cross_entropy(states[:, 1:] @ weights["output"] + weights["output_bias"], targets)
    from_input, from_state = gru_errors(weights, states, steps, errors @ weights["output"].T)
    parts = gru_parts(weights, inputs, states, from_input, from_state)
    ones = np.ones((*inputs.shape, 1), dtype="float32")
    return losses, parts | {"output": (states[:, 1:], errors), "output_bias": (ones, errors)}


def language_losses(weights: Weights, token_ids: np.ndarray) -> np.ndarray:
    """Return the summed cross-entropy of each row in nats, shape (rows,), see `read_language_rows`."""
    losses = []
    for start in range(0, len(token_ids), _ROWS):
        rows = token_ids[start : start + _ROWS]
        states, _ = gru_forward(weights, rows[:, :-1])
        losses.append(_cross_entropy(states[:, 1:] @ weights["output"] + weights["output_bias"], rows[:, 1:])[0])
    return np.concatenate(losses)


def continuation_losses(weights: Weights, prompt: np.ndarray, symbols: np.ndarray, length: int) -> np.ndarray:
    """Return the cross-entropy in nats of every sequence of so many symbols behind a prompt: shape (len(symbols) ** length,).

    The order is that of counting, the last symbol fastest. Sequences that begin alike share the reading of their beginning, so that
    ten thousand four-digit codes cost no more than a thousand steps.

    Args:
        weights: From `new_language_model`.
        prompt: Token ids, shape (time,), one at least.
        symbols: Token ids, shape (num_symbols,).
        length: Symbols in a sequence.
    """
    states, _ = gru_forward(weights, np.asarray(prompt)[None])
    state, total = states[:, -1], np.zeros(1)
    for position in range(length):
        log_probs = log_softmax(state @ weights["output"] + weights["output_bias"])[:, symbols]
        total = (total[:, None] - log_probs).ravel()
        if position + 1 < length:
            products = weights["embedding"][np.tile(symbols, len(state))] @ weights["kernel"] + weights["bias"]
            state, _ = gru_step(weights, products, np.repeat(state, len(symbols), axis=0))
    return total


def clipped_gradients(parts: Parts, clip_norm: float, sizes: dict[str, tuple[int, ...]]) -> tuple[Weights, np.ndarray]:
    """Return the sum of the rows' gradients, each clipped to a norm over all weights together, and the norms before, shape (batch,).

    With an infinite `clip_norm` norms are not computed, and none are returned.
    """
    norms, factors = np.zeros(0), None
    if np.isfinite(clip_norm):
        norms = np.sqrt(sum(ghost_norms_squared(inputs, errors) for inputs, errors in parts.values()))
        factors = clip_factors(norms, clip_norm).astype("float32")[:, None, None]
    gradients = {}
    for name, (inputs, errors) in parts.items():
        errors = (errors if factors is None else errors * factors).reshape(-1, errors.shape[-1])
        if inputs.ndim == 2:
            gradients[name] = np.zeros(sizes[name], dtype="float32")
            np.add.at(gradients[name], inputs.ravel(), errors)
        else:
            gradients[name] = inputs.reshape(len(errors), inputs.shape[-1]).T @ errors
    return gradients, norms


def fit_rows(
    weights: Weights,
    rows: np.ndarray,
    *,
    sample_rate: float,
    num_steps: int,
    read_rows: ReadRows = read_language_rows,
    noise_multiplier: float = 0.0,
    clip_norm: float = np.inf,
    optimizer: str = "adam",
    learning_rate: float | dict[str, float] = 4e-3,
    seed: int = 42,
    on_step: Callable[[int, Weights], None] | None = None,
) -> Weights:
    """Train on Poisson sampled batches, with clipping and noise or without: one loop for both.

    Args:
        weights: Stay as they are.
        rows: What `read_rows` takes, one row a unit of privacy.
        sample_rate: Probability of a row to be in a batch.
        num_steps: Batches.
        read_rows: From weights and rows to losses and parts; only weights that have a part are trained.
        noise_multiplier: From `dp_noise`; 0 trains without noise, which promises nothing.
        clip_norm: Most that a row's gradient may be long; inf clips nothing.
        optimizer: "adam", or "sgd" with a momentum of 0.9. What is done with private gradients costs no epsilon.
        learning_rate: One for all weights or one for each name; it falls to 0 in a line.
        seed: Of sampling and noise.
        on_step: Is called with the number of each step, from 1, and the weights after it.

    Returns:
        The new weights.
    """
    if noise_multiplier and not np.isfinite(clip_norm):
        raise ValueError("Noise is scaled by clip_norm, which is infinite. Give a finite one, e.g. clip_norm=1.0.")
    check_choice(("adam", "sgd"), optimizer=optimizer)
    weights, rng = dict(weights), np.random.default_rng(seed)
    sizes = {name: values.shape for name, values in weights.items()}
    moments: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    expected = sample_rate * len(rows)
    for step in range(1, num_steps + 1):
        # An empty batch gets its noise too: leaving it out would tell that it was empty.
        batch = rows[poisson_batch(len(rows), sample_rate, rng)]
        gradients, _ = clipped_gradients(read_rows(weights, batch)[1], clip_norm, sizes)
        for name, gradient in gradients.items():
            if noise_multiplier:
                gradient = gradient + noise_multiplier * clip_norm * rng.standard_normal(gradient.shape, dtype="float32")
            moments[name], change = _change(moments.get(name), gradient / expected, step, optimizer)
            rate = learning_rate[name] if isinstance(learning_rate, dict) else learning_rate
            weights[name] = weights[name] - np.float32(rate * (1 - (step - 1) / num_steps)) * change
        if on_step is not None:
            on_step(step, dict(weights))  # a copy: it can be kept
    return weights


def _change(moments: tuple | None, gradient: np.ndarray, step: int, optimizer: str) -> tuple[tuple, np.ndarray]:
    """Return the running means of gradients, and what a learning rate is multiplied with."""
    mean, square = moments or (0.0, 0.0)
    if optimizer == "sgd":
        mean = 0.9 * mean + gradient
        return (mean, square), mean
    mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
    return (mean, square), mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the summed loss of each row and the gradient by the logits; target 0 is padding and has neither."""
    log_probs = log_softmax(logits)
    real = (targets > 0).astype("float32")
    losses = -(np.take_along_axis(log_probs, targets[:, :, None], axis=2)[:, :, 0] * real).sum(axis=1)
    errors = np.exp(log_probs)
    np.put_along_axis(errors, targets[:, :, None], np.take_along_axis(errors, targets[:, :, None], axis=2) - 1, axis=2)
    return losses, errors * real[:, :, None]
