"""The networks of data/results/privacy.csv: their gradients are the slopes of their losses, and a low rank changes one matrix alone."""

from slm_helpers.analysis.text_states import PublicScaling
from slm_helpers.recipes.privacy_results import Topics, public_sentences
from slm_helpers.training.private_gru import clipped_gradients, new_language_model

import numpy as np
import pytest

UNITS, CLASSES, RANK = 6, 3, 2


@pytest.fixture
def task():
    """A task without the pretrained base: only what `_read` looks at."""
    topics = Topics.__new__(Topics)
    rng = np.random.default_rng(0)
    topics.scalings = {"": PublicScaling(rng.normal(size=(40, UNITS)), rank=4)}
    return topics


@pytest.fixture
def weights():
    rng = np.random.default_rng(1)
    found = new_language_model(12, embedding_dim=5, units=UNITS, seed=3)
    found |= {"head": rng.normal(size=(4, CLASSES)), "head_bias": rng.normal(size=(1, CLASSES))}
    found |= {"left": rng.normal(size=(UNITS, RANK)), "right": rng.normal(size=(RANK, 3 * UNITS))}
    return {name: values.astype("float64") for name, values in found.items()}


ROWS = np.array([[0, 3, 5, 2, 7, 0], [2, 9, 4, 0, 0, 0], [1, 1, 8, 3, 2, 6]])  # label first, padding last


@pytest.mark.parametrize(
    ("method", "names"),
    [("low rank", ("left", "right", "head", "head_bias")), ("all weights", ("embedding", "kernel", "bias", "recurrent", "head"))],
)
def test_gradients_are_the_slopes_of_the_loss(task, weights, method, names):
    parts = task._read(method, weights, ROWS)[1]
    gradients, _ = clipped_gradients(parts, np.inf, {name: values.shape for name, values in weights.items()})
    for name in names:
        direction = np.random.default_rng(2).normal(size=weights[name].shape)
        step = 1e-3
        ahead, behind = (task._read(method, weights | {name: weights[name] + sign * step * direction}, ROWS)[0].sum() for sign in (1, -1))
        assert (gradients[name] * direction).sum() == pytest.approx((ahead - behind) / (2 * step), rel=2e-3, abs=1e-4), name


def test_each_method_trains_the_weights_it_names_and_no_other(task, weights):
    for method in ("low rank", "all weights"):
        assert set(task._read(method, weights, ROWS)[1]) == set(task.trained(method))


def test_public_sentences_are_sentences():
    found = public_sentences(20)
    assert len(found) == 20 and all(len(sentence) > 40 and sentence[-1] in ".!?\"'”’" for sentence in found)
