from slm_helpers._checks import check_choice, check_positive, check_share, printable

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


def test_printable_escapes_what_a_terminal_would_obey_and_nothing_else():
    assert printable("red \x1b[31m, bell \a, C1 \x9b2J, back\r\x08, del \x7f, nul \0") == (
        "red \\x1b[31m, bell \\x07, C1 \\x9b2J, back\\r\\x08, del \\x7f, nul \\x00"
    )
    for text in ("two\nlines\tand a tab", "café 中文 עברית \u200f👩\u200d🔬\xa0"):
        assert printable(text) == text


def test_printable_text_can_always_be_encoded():
    assert printable("half \udc80").encode("utf-8") == b"half \\udc80"
