"""Texts as vectors: padding and company change nothing, and scaling looks at public texts alone."""

from slm_helpers._paths import PRETRAINED_DIR
from slm_helpers.analysis.text_states import PublicScaling, mean_states
from slm_helpers.deploy.engine import open_saved

import numpy as np
import pytest


@pytest.fixture(scope="module")
def base():
    return open_saved(PRETRAINED_DIR / "slm-base-en")


def test_a_text_has_the_same_states_alone_and_beside_longer_ones(base):
    texts = ["A short one.", "Another text that is quite a bit longer than the first one, with a clause.", "Mid length text here."]
    together = mean_states(base.model, base.tokenizer, texts)
    for text, states in zip(texts, together, strict=True):
        np.testing.assert_allclose(mean_states(base.model, base.tokenizer, [text])[0], states, atol=1e-5)
    assert not np.allclose(together[0], together[1])


def test_no_texts_give_no_rows(base):
    assert mean_states(base.model, base.tokenizer, []).shape == (0, together_size(base))


def together_size(base):
    return sum(state.shape[1] for state in base.model.zero_states(1))


def test_whitening_makes_public_directions_alike():
    rng = np.random.default_rng(0)
    public = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    white = PublicScaling(public, rank=4, power=1.0)(public, unit=False)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(4), atol=1e-2)
    scaled = PublicScaling(public, rank=4)(rng.normal(size=(9, 6)))
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-5)


def test_more_directions_than_there_are_is_refused():
    with pytest.raises(ValueError, match="rank is 7"):
        PublicScaling(np.zeros((9, 6)), rank=7)
