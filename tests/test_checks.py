from slm_helpers._checks import check_choice, check_positive, check_share

import numpy as np
import pytest


@pytest.mark.parametrize("size", [1, 64, np.int32(3), np.int64(2**40)])
def test_whole_numbers_of_one_and_more_pass(size):
    check_positive(units=size)


@pytest.mark.parametrize("size", [0, -1, 2.0, "64", None, True, np.float32(3), float("nan")])
def test_everything_else_is_no_size(size):
    with pytest.raises(ValueError, match=r"units is .* whole number of at least 1.*Pass e\.g\. units=64"):
        check_positive(units=size)


def test_first_bad_size_is_the_one_named():
    with pytest.raises(ValueError, match="window is 0"):
        check_positive(units=8, window=0, stride=-1)


@pytest.mark.parametrize("share", [0, 0.0, 0.5, 0.999, np.float32(0.2)])
def test_shares_from_zero_to_below_one_pass(share):
    check_share(dropout=share)


@pytest.mark.parametrize("share", [1, 1.0, -0.1, 20, "0.2", None, float("nan")])
def test_everything_else_is_no_share(share):
    with pytest.raises(ValueError, match=r"dropout is .* \[0, 1\).*write dropout=0.2"):
        check_share(dropout=share)


def test_choice_lists_what_is_allowed():
    check_choice(("train", "valid"), split="valid")
    with pytest.raises(ValueError, match="split is 'dev', but must be one of 'train', 'valid'"):
        check_choice(("train", "valid"), split="dev")
