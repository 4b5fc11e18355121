"""Losses of language models, worked out by hand."""

from slm_helpers.metrics.language_model import bits_per_byte, bits_per_char, loss_nats, perplexity, token_losses

import numpy as np
import pytest


def test_uniform_logits_have_perplexity_of_vocab_size():
    logits, targets = np.zeros((2, 5, 7)), np.ones((2, 5), dtype="int32")
    assert perplexity(logits, targets) == pytest.approx(7.0)
    assert loss_nats(logits, targets) == pytest.approx(np.log(7))


def test_losses_equal_those_worked_out_by_hand():
    # Softmax of log 1, log 2, log 5 is 1/8, 2/8, 5/8, and adding a constant to the scores changes nothing.
    logits = np.log([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]) + np.array([[0.0], [1000.0]])
    np.testing.assert_allclose(token_losses(logits, np.array([0, 2])), [np.log(8), np.log(8 / 5)])
    # At temperature 1/2 the odds are 1 : 4 : 25.
    np.testing.assert_allclose(token_losses(logits, np.array([0, 2]), temperature=0.5), [np.log(30), np.log(30 / 25)])
    assert loss_nats(logits, np.array([0, 2])) == pytest.approx((np.log(8) + np.log(8 / 5)) / 2)
    assert perplexity(logits, np.array([0, 2])) == pytest.approx(8 / np.sqrt(5))


def test_losses_of_more_rows_than_a_block_holds_are_those_of_each_row():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(9, 40, 1000)).astype("float32"), rng.integers(0, 1000, (9, 40))
    each = [
        [token_losses(row, target) for row, target in zip(rows, right, strict=True)] for rows, right in zip(logits, targets, strict=True)
    ]
    np.testing.assert_allclose(token_losses(logits, targets), each)


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype="float32")
    np.testing.assert_allclose(token_losses(logits, np.array([0, 0])), [0.0, 2e4])


def test_masked_targets_do_not_count():
    logits = np.log([[[1.0, 1.0], [1.0, 3.0], [9.0, 1.0]]])
    targets = np.array([[0, 1, 1]])
    mask = np.array([[1, 1, 0]])
    expected = (np.log(2) + np.log(4 / 3)) / 2
    assert loss_nats(logits, targets, mask=mask) == pytest.approx(expected)
    assert loss_nats(logits, targets) == pytest.approx((np.log(2) + np.log(4 / 3) + np.log(10)) / 3)
    garbage = logits.copy()
    garbage[0, 2] = [1e6, -1e6]
    assert loss_nats(garbage, targets, mask=mask) == pytest.approx(expected)
    with pytest.raises(ValueError, match="mask leaves no target"):
        loss_nats(logits, targets, mask=np.zeros((1, 3)))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"logits have shape \(2, 5, 7\) and targets \(2, 4\).*need shape \(2, 5\)"):
        loss_nats(np.zeros((2, 5, 7)), np.zeros((2, 4), dtype=int))


def test_bits_are_nats_over_log_two_and_units():
    assert bits_per_char(12 * np.log(2), "abcd") == pytest.approx(3.0)
    assert bits_per_char(12 * np.log(2), "aé中🙂") == pytest.approx(3.0)
    assert bits_per_byte(12 * np.log(2), "abcd") == pytest.approx(3.0)
    assert bits_per_byte(12 * np.log(2), "aé中🙂") == pytest.approx(1.2)  # 1 + 2 + 3 + 4 bytes
    for bits in (bits_per_char, bits_per_byte):
        with pytest.raises(ValueError, match="The text is empty"):
            bits(1.0, "")
