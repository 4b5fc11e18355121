from collections import Counter

from slm_helpers.data.splits import find_shared_runs, make_splits, make_windows, normalise_text

import numpy as np
import pandas as pd
import pytest

WORDS = [
    "amber", "birch", "cloud", "delta", "ember", "frost", "grove", "hazel", "inlet", "jetty",
    "knoll", "lemon", "maple", "night", "ocean", "pearl", "quill", "river", "stone", "tulip",
]  # fmt: skip


@pytest.mark.parametrize("num_rows", [10, 37, 100, 1001])
@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.7, 0.3, 0.0)])
def test_shares_are_right_to_the_row(num_rows, shares):
    counts = Counter(make_splits([f"{i}" for i in range(num_rows)], shares=shares))
    for split, share in zip(("train", "valid", "test"), shares, strict=True):
        assert abs(counts[split] - share * num_rows) <= 1


def test_deal_depends_on_the_seed_alone():
    keys = [f"text {word}" for word in WORDS * 5]
    first = make_splits(keys, seed=3)
    np.testing.assert_array_equal(first, make_splits(iter(keys), seed=3))
    assert (first != make_splits(keys, seed=4)).any()


def test_equal_texts_stay_on_one_side():
    keys = [text for word in WORDS for text in (f"{word} is 5 years old.", f"{word.upper()} IS 72 years old!", f"{word}  is years\nold")]
    splits = make_splits(keys).reshape(-1, 3)
    assert (splits == splits[:, :1]).all()
    assert set(splits[:, 0]) == {"train", "valid", "test"}


def test_exact_keys_keep_numbers_apart():
    keys = [f"student-{i}" for i in range(50)]
    assert set(make_splits(keys)) == {"train"}  # one text when digits do not count
    assert Counter(make_splits(keys, exact=True)) == {"train": 40, "valid": 5, "test": 5}


def test_keys_of_digits_and_signs_only_are_compared_as_they_stand():
    assert len(set(make_splits(["1", "2", "3", "?!", "...", "👍", "👎", "7", "8", "9"]))) == 3


def test_every_label_is_dealt_in_its_share():
    labels = ["rare"] * 10 + ["common"] * 90
    table = pd.crosstab(np.array(labels), make_splits([f"t{chr(97 + i % 26)}{'x' * (i // 26)}" for i in range(100)], labels=labels))
    assert table.loc["rare", ["train", "valid", "test"]].tolist() == [8, 1, 1]
    assert table.loc["common", ["train", "valid", "test"]].tolist() == [72, 9, 9]


@pytest.mark.parametrize("seed", range(5))
def test_deal_of_random_sets_is_a_partition(seed):
    rng = np.random.default_rng(seed)
    keys = [f"{WORDS[i]} {WORDS[j]}" for i, j in rng.integers(0, 20, size=(int(rng.integers(1, 300)), 2))]
    labels = rng.choice(["a", "b", "c"], size=len(keys)).tolist()
    splits = make_splits(keys, labels=labels, seed=seed)
    assert len(splits) == len(keys)
    assert set(splits) <= {"train", "valid", "test"}
    assert pd.Series(splits).groupby(pd.Series(keys)).nunique().max() == 1


def test_one_row_and_no_row():
    assert make_splits(["only"]).tolist() == ["train"]
    assert len(make_splits([])) == 0


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.8, 0.1, 0.2), (1.1, -0.1, 0.0), (80, 10, 10)])
def test_shares_must_sum_to_one(shares):
    with pytest.raises(ValueError, match=r"three shares of 0 or more that sum to 1, e.g. \(0.8, 0.1, 0.1\)"):
        make_splits(["a"], shares=shares)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 5 o'clock, HERE!", "its oclock here"),
        ("¿Cómo\n estás?", "cómo estás"),
        ("你好，世界", "你好世界"),
        ("snake_case 12", "snakecase"),
        ("?!", ""),
    ],
)
def test_normalise_text_by_hand(text, expected):
    assert normalise_text(text) == expected


def test_shared_runs_by_hand():
    texts = ["The cat sat on the mat.", "My dog said: the CAT sat, on 3 stones", "the cat sat on a chair", "A cat sat"]
    found = find_shared_runs(texts, ["train", "test", "train", "valid"], num_words=4)
    assert found.to_dict("records") == [{"run": "the cat sat on", "splits": "test+train", "num_rows": 3}]
    found = find_shared_runs(texts, ["train", "test", "train", "valid"], num_words=2).set_index("run")
    assert found.loc["cat sat"].tolist() == ["test+train+valid", 4]
    assert set(found.index) == {"the cat", "cat sat", "sat on"}


def test_runs_within_one_split_and_short_texts_are_no_leak():
    assert find_shared_runs(["a b c d", "a b c d"], ["train", "train"], num_words=2).empty
    assert find_shared_runs(["a b", "a b"], ["train", "test"], num_words=3).empty
    assert list(find_shared_runs([], []).columns) == ["run", "splits", "num_rows"]


def test_shared_runs_want_as_many_splits_as_texts():
    with pytest.raises(ValueError, match="shorter"):
        find_shared_runs(["a", "b"], ["train"])
    with pytest.raises(ValueError, match="num_words is 0"):
        find_shared_runs(["a"], ["train"], num_words=0)


@pytest.mark.parametrize(
    ("num_tokens", "window", "stride"), [(7, 3, None), (100, 7, None), (50, 10, 4), (5, 4, 1), (30, 1, None), (40, 5, 9)]
)
def test_targets_are_inputs_shifted_by_one(num_tokens, window, stride):
    stream = np.random.default_rng(0).integers(0, 50, num_tokens)
    inputs, targets = make_windows(stream, window, stride=stride)
    step = stride or window
    assert inputs.shape == targets.shape == ((num_tokens - window - 1) // step + 1, window)
    assert inputs.dtype == targets.dtype == np.int32
    for i in range(len(inputs)):
        start = i * step
        np.testing.assert_array_equal(inputs[i], stream[start : start + window])
        np.testing.assert_array_equal(targets[i], stream[start + 1 : start + window + 1])


def test_every_token_but_the_first_is_predicted_once():
    inputs, targets = make_windows(np.arange(21), 5)
    assert targets.ravel().tolist() == list(range(1, 21))
    assert inputs.ravel().tolist() == list(range(20))


def test_no_window_crosses_a_split():
    splits = make_splits(WORDS)
    streams = {name: np.flatnonzero(splits == name).repeat(6) for name in ("train", "valid", "test")}  # row number as token id
    for name, stream in streams.items():
        inputs, targets = make_windows(stream, 4)
        assert set(splits[np.concatenate([inputs.ravel(), targets.ravel()])]) == {name}


def test_windows_are_copies():
    stream = np.zeros(10, dtype="int32")
    inputs, _ = make_windows(stream, 3)
    inputs[:] = 9
    assert stream.sum() == 0


@pytest.mark.parametrize("token_ids", [np.arange(5), np.arange(0), np.zeros((3, 9), dtype=int)])
def test_stream_too_short_or_not_flat(token_ids):
    with pytest.raises(ValueError, match=r"a window of 5 needs a flat array of at least 6 tokens.*more text or a smaller window"):
        make_windows(token_ids, 5)


def test_window_and_stride_must_be_positive():
    with pytest.raises(ValueError, match="window is 0"):
        make_windows(np.arange(9), 0)
    with pytest.raises(ValueError, match="stride is 0"):
        make_windows(np.arange(9), 3, stride=0)
