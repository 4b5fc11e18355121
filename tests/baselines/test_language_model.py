"""Kneser-Ney n-grams against brute force, and xz."""

import lzma
from collections import defaultdict

from slm_helpers.baselines.language_model import KneserNeyModel, xz_bits_per_byte

import numpy as np
import pytest

TEXT = (
    "the old sailor walked along the harbour and the young sailor followed the old one along the quiet harbour wall "
    "while the gulls cried over the boats and the boats rocked on the slow water of the harbour "
)
ALPHABET = sorted(set(TEXT))
STREAM = np.array([ALPHABET.index(c) for c in TEXT * 3])
VOCAB_SIZE = len(ALPHABET) + 2  # two tokens that never occur


class SlowKneserNey:
    """Interpolated Kneser-Ney from its formulas, with dictionaries and one n-gram at a time."""

    def __init__(self, order: int, vocab_size: int, stream: list[int]):
        self.order, self.vocab_size = order, vocab_size
        raw = [defaultdict(int) for _ in range(order + 1)]
        for n in range(1, order + 1):
            for i in range(len(stream) - n + 1):
                raw[n][tuple(stream[i : i + n])] += 1
        self.counts = [{} for _ in range(order + 1)]
        self.counts[order] = raw[order]
        for n in range(1, order):  # in how many different contexts of one token more?
            self.counts[n] = defaultdict(int)
            for gram in raw[n + 1]:
                self.counts[n][gram[1:]] += 1
        self.discounts = [0.0]
        for n in range(1, order + 1):
            values = list(self.counts[n].values())
            ones, twos = values.count(1), values.count(2)
            self.discounts.append(min(0.95, max(0.1, ones / max(1, ones + 2 * twos))))

    def probability(self, context: tuple[int, ...], token: int) -> float:
        context = context[len(context) - min(len(context), self.order - 1) :]
        shorter = self.probability(context[1:], token) if context else 1 / self.vocab_size
        n = len(context) + 1
        after = {gram[-1]: count for gram, count in self.counts[n].items() if gram[:-1] == context}
        if not after:
            return shorter
        discount, total = self.discounts[n], sum(after.values())
        return (max(after.get(token, 0) - discount, 0) + discount * len(after) * shorter) / total


@pytest.mark.parametrize("order", [1, 2, 3])
def test_kneser_ney_equals_brute_force(order):
    stream = np.random.default_rng(order).choice(6, 120, p=[0.4, 0.25, 0.15, 0.1, 0.07, 0.03])
    stream = np.concatenate([[6], stream])  # 6 stands at the start only: nothing ever stands before it
    fast = KneserNeyModel(order, 8).fit(stream)
    slow = SlowKneserNey(order, 8, stream.tolist())
    contexts = [(), (0,), (5,), (7,), (0, 1), (5, 5), (7, 0), (0, 7), (2, 0, 1), (6,), (6, int(stream[1])), (6, 6, 6)]
    for context in contexts:
        expected = [slow.probability(context, token) for token in range(8)]
        np.testing.assert_allclose(fast.next_probs(context), expected, atol=1e-12)
    other = np.random.default_rng(9).integers(0, 8, 40)
    expected = [np.log(slow.probability(tuple(other[:i].tolist()), int(other[i]))) for i in range(40)]
    np.testing.assert_allclose(fast.log_probs(other), expected, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one_after_every_kind_of_context(order):
    model = KneserNeyModel(order, VOCAB_SIZE).fit(STREAM)
    unseen = VOCAB_SIZE - 1
    seen = STREAM[40:46].tolist()
    contexts = {
        "none": [],
        "one token": seen[:1],
        "seen": seen,
        "last of the stream": STREAM[-6:].tolist(),
        "unseen token last": [*seen, unseen],
        "unseen token first": [unseen, *seen],
        "unseen run of seen tokens": [0] * 6,
        "all unseen": [unseen] * 6,
    }
    for name, context in contexts.items():
        probs = model.next_probs(context)
        assert probs.shape == (VOCAB_SIZE,), name
        assert probs.sum() == pytest.approx(1.0, abs=1e-12), name
        assert (probs > 0).all(), name


@pytest.mark.parametrize("order", [1, 2, 4])
def test_log_probs_equal_next_probs(order):
    model = KneserNeyModel(order, VOCAB_SIZE).fit(STREAM)
    ids = np.concatenate([STREAM[10:30], [VOCAB_SIZE - 1], STREAM[5:15]])
    expected = [np.log(model.next_probs(ids[:i])[ids[i]]) for i in range(len(ids))]
    np.testing.assert_allclose(model.log_probs(ids), expected, atol=1e-12)


def test_an_unseen_context_keeps_the_word_of_the_shorter_one():
    model = KneserNeyModel(3, VOCAB_SIZE).fit(STREAM)
    unseen = VOCAB_SIZE - 1
    np.testing.assert_allclose(model.next_probs([unseen, STREAM[7]]), model.next_probs([STREAM[7]]), atol=1e-15)
    np.testing.assert_allclose(model.next_probs([STREAM[7], unseen]), model.next_probs([]), atol=1e-15)


def test_longer_contexts_predict_new_text_better_than_chance():
    new = np.array([ALPHABET.index(c) for c in "the young sailor walked along the quiet water and the gulls followed the boats "])
    losses = [-KneserNeyModel(order, VOCAB_SIZE).fit(STREAM).log_probs(new).mean() for order in (1, 2, 4)]
    assert losses[0] < 0.95 * np.log(VOCAB_SIZE)
    assert losses[2] < losses[1] < losses[0]


def test_generated_ids_are_seeded_and_likely():
    model = KneserNeyModel(5, VOCAB_SIZE).fit(STREAM)
    prompt = STREAM[:10].tolist()
    first, again, other = (model.generate(prompt, num_tokens=60, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (60,)
    assert first.dtype == np.int32
    assert model.log_probs(np.concatenate([prompt, first]))[10:].mean() > -0.6 * np.log(VOCAB_SIZE)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_tokens_are_drawn_as_often_as_their_probabilities_say(order):
    model = KneserNeyModel(order, VOCAB_SIZE).fit(STREAM)
    rng = np.random.default_rng(order)
    for context in ([], STREAM[40:46].tolist(), STREAM[-6:].tolist(), [VOCAB_SIZE - 1, int(STREAM[7])]):
        expected = model.next_probs(context)
        drawn = np.bincount([model._draw(context, rng) for _ in range(4000)], minlength=VOCAB_SIZE) / 4000
        assert np.abs(drawn - expected).max() < 5 * np.sqrt(0.25 / 4000), context
        assert ((drawn - expected) ** 2 / expected).sum() * 4000 < VOCAB_SIZE + 6 * np.sqrt(2 * VOCAB_SIZE), context


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (np.array([1, 2, 3]), r"shape \(3,\), but a flat array of more than 3 tokens is needed"),
        (np.zeros((5, 5), dtype=int), r"shape \(5, 5\)"),
        (np.array([1, 2, 3, 4, 5]), r"token ids lie in 1\.\.5, but vocab_size is 5"),
        (np.array([1, -2, 3, 4]), r"token ids lie in -2\.\.4"),
    ],
)
def test_kneser_ney_refuses_a_bad_stream(stream, message):
    with pytest.raises(ValueError, match=message):
        KneserNeyModel(3, 5).fit(stream)


def test_kneser_ney_refuses_bad_sizes():
    with pytest.raises(ValueError, match="order is 0"):
        KneserNeyModel(0, 5)
    with pytest.raises(ValueError, match=r"vocab_size is 2\.5"):
        KneserNeyModel(2, 2.5)


def test_xz_bits_per_byte_are_those_of_the_compressor():
    assert xz_bits_per_byte("a" * 10_000) < 0.1
    letters = "".join(np.random.default_rng(0).choice(list("abcd"), 20_000))
    assert 2.0 < xz_bits_per_byte(letters) < 2.6  # two bits each, and xz cannot do better
    size = len(lzma.compress(letters.encode(), preset=9 | lzma.PRESET_EXTREME))
    assert xz_bits_per_byte(letters) == pytest.approx(8 * size / 20_000, rel=0.02)  # but for the file's header


def test_a_primer_helps_xz_and_its_own_size_is_not_counted():
    letters = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 20_000))
    alone, primed = xz_bits_per_byte(letters), xz_bits_per_byte(letters, primer=letters)
    assert alone > 3.0
    assert 0 < primed < 0.1
    other = "".join(np.random.default_rng(1).choice(list("abcdefgh"), 20_000))
    assert xz_bits_per_byte(letters, primer=other) == pytest.approx(alone, rel=0.05)


def test_xz_counts_bytes_of_utf8():
    text = "".join(np.random.default_rng(0).choice(list("äöüß"), 5000))
    assert 1.0 < xz_bits_per_byte(text) < 1.5  # two bits a sign of two bytes
    with pytest.raises(ValueError, match="The text is empty"):
        xz_bits_per_byte("", primer="abc")
