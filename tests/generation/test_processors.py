"""What the logits processors change, against plain loops."""

from slm_helpers.generation.processors import NoRepeatNgrams, RepetitionPenalty, repetition_processors

import numpy as np
import pytest


def plainly_held_back(logits: np.ndarray, written: list[int], *, penalty: float, window: int, size: int) -> np.ndarray:
    """Return one row of scores after both rules against repetition."""
    logits = logits.copy()
    for token in set(written[-window:]):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    runs = {tuple(written[i : i + size]) for i in range(len(written) - size + 1)}
    repeating = [t for t in range(len(logits)) if size and tuple([*written, t][-size:]) in runs]
    if not np.isneginf(np.delete(logits, repeating)).all():
        logits[repeating] = -np.inf
    return logits


@pytest.mark.parametrize("length", [0, 1, 2, 6])
@pytest.mark.parametrize(("penalty", "window", "size"), [(1.5, 64, 0), (1.5, 3, 0), (1.0, 64, 1), (1.0, 64, 2), (1.0, 64, 3), (1.3, 2, 2)])
def test_repetition_is_held_back_as_by_a_plain_loop(penalty, window, size, length):
    rng = np.random.default_rng(length)
    logits = rng.normal(size=(20, 4)).astype("float32")
    logits[:, 0] = -np.inf  # never drawn
    written = rng.integers(1, 4, (20, length))
    changed = logits.copy()
    for process in repetition_processors(repetition_penalty=penalty, repetition_window=window, no_repeat_ngram=size):
        process(changed, written, np.arange(20))
    plain = [
        plainly_held_back(row, tokens, penalty=penalty, window=window, size=size)
        for row, tokens in zip(logits, written.tolist(), strict=True)
    ]
    np.testing.assert_allclose(changed, plain, rtol=1e-6)
    if length == 6:
        assert not np.allclose(changed, logits)
    if (length, size) == (6, 1):
        assert np.isfinite(changed[:, 1:]).all(axis=1).any()  # rows in which every token would repeat: then each may


def test_nothing_is_done_at_the_defaults():
    assert repetition_processors(repetition_penalty=1.0, repetition_window=64, no_repeat_ngram=0) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepetitionPenalty(0.5), "repetition_penalty is 0.5, but must be 1 or more"),
        (lambda: RepetitionPenalty(float("nan")), "repetition_penalty is nan"),
        (lambda: RepetitionPenalty(1.2, 0), "repetition_window is 0, but must be a whole number of at least 1"),
        (lambda: NoRepeatNgrams(-1), "no_repeat_ngram is -1.*Use 0 for no such rule"),
    ],
)
def test_a_bad_setting_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
