"""Continuing and scoring texts: what may be drawn, how often, where it stops, and that a score is the model's own."""

import string
from concurrent.futures import ThreadPoolExecutor

from slm_helpers.generation import generator as generation
from slm_helpers.generation.generator import MAX_PROMPT_TOKENS, TextGenerator
from slm_helpers.generation.processors import NoRepeatNgrams
from slm_helpers.generation.runtime import open_runtime
from slm_helpers.generation.sampling import Sampler
from slm_helpers.metrics import language_model as evaluation
from slm_helpers.models.fast_rnn import FastGRU
from slm_helpers.models.language_model import build_language_model, build_transformer_language_model
from slm_helpers.text.tokenizers import Tokenizer, train_bpe_tokenizer, train_char_tokenizer

import keras
import numpy as np
import pytest
from threadpoolctl import threadpool_info

LETTERS = "abcdefghij"  # with the three special tokens 13 ids
END = Tokenizer.end_id


def random_model(
    vocab_size: int, *, cell: str = "gru", num_layers: int = 1, tie_embeddings: bool = False, scale: float = 0.5, seed: int = 2
) -> keras.Model:
    """Return a model with random weights: its next token depends on what it has read.

    Random tied embeddings would make each token its own likeliest successor, and hide mistakes.
    """
    model = build_language_model(
        vocab_size, cell=cell, embedding_dim=8, units=12, num_layers=num_layers, dropout=0.2, tie_embeddings=tie_embeddings
    )
    return scrambled(model, scale=scale, seed=seed)


def zeroed(model: keras.Model) -> keras.Model:
    """Set all weights to zero: every token is as likely as any other."""
    model.set_weights([np.zeros(w.shape) for w in model.get_weights()])
    return model


def scrambled(model: keras.Model, *, scale: float = 0.5, seed: int) -> keras.Model:
    """Give a model new random weights."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, scale, w.shape) for w in model.get_weights()])
    return model


def model_without_numpy_form(vocab_size: int) -> keras.Model:
    """Return a random recurrent model that has to run compiled: a normalisation, and a GRU of the older kind."""
    token_ids = keras.Input(shape=(None,), dtype="int32")
    x = keras.layers.Embedding(vocab_size, 8)(token_ids)
    x, *_ = keras.layers.LSTM(12, return_sequences=True, return_state=True)(x)
    x = keras.layers.LayerNormalization()(x)
    x, *_ = FastGRU(12, reset_after=False, return_sequences=True, return_state=True)(x)
    return scrambled(keras.Model(token_ids, keras.layers.Dense(vocab_size)(x)), scale=1.5, seed=2)


def reciting(tokenizer: Tokenizer, text: str) -> TextGenerator:
    """Return a generator that writes `text`, whose tokens must differ, and then ends: each token makes the next one certain."""
    ids = [END, *tokenizer.encode(text).tolist(), END]
    assert len(set(ids)) == len(ids) - 1
    size = tokenizer.vocab_size
    model = build_language_model(size, cell="rnn", embedding_dim=size, units=size, tie_embeddings=False)
    follows = np.zeros((size, size))
    follows[ids[:-1], ids[1:]] = 100
    # One-hot vectors, 20 times themselves through tanh, nothing remembered, no bias.
    model.set_weights([np.eye(size), 20 * np.eye(size), np.zeros((size, size)), np.zeros(size), follows, np.zeros(size)])
    return TextGenerator(model, tokenizer)


def plainly_cut(text: str, stops: list[str]) -> str:
    """Return what stands before the first stop string that gets complete, the longest if several end there."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


def next_logits(model: keras.Model, token_ids: list[int]) -> np.ndarray:
    """Return the scores after `token_ids` by one full pass, shape (vocab_size,)."""
    return keras.ops.convert_to_numpy(model(np.array([token_ids], dtype="int32")))[0, -1].astype("float64")


def all_logits(model: keras.Model, token_ids: list[int] | np.ndarray) -> np.ndarray:
    """Return the scores after each token by one full pass, shape (num_tokens, vocab_size)."""
    return np.asarray(model.predict_on_batch(np.array(token_ids, dtype="int32")[None]))[0].astype("float64")


def probabilities(logits: np.ndarray, *, temperature: float = 1.0, never: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """Return the softmax of scores, shape (..., vocab_size), without the tokens that are never drawn."""
    logits = logits / temperature
    logits[..., list(never)] = -np.inf
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def tokenizer():
    return train_char_tokenizer([LETTERS])


@pytest.fixture(scope="module")
def generator(tokenizer):
    return TextGenerator(random_model(tokenizer.vocab_size), tokenizer)


@pytest.fixture(scope="module")
def bpe_generator():
    tokenizer = train_bpe_tokenizer(["the cat sat on the mat and the rat sat on the cat"], vocab_size=280)
    return TextGenerator(random_model(tokenizer.vocab_size), tokenizer)


# Generation


def test_same_seed_same_text_and_other_seed_other_text(generator):
    first, again, other = (generator.generate("abc", max_tokens=40, seed=seed, stop_at_end=False) for seed in (1, 1, 2))
    assert first.samples == again.samples
    assert first.samples != other.samples
    assert first.num_tokens == len(first.samples[0]) == 40
    assert first.prompt == "abc"
    assert first.tokens_per_second == first.num_tokens / first.seconds
    assert 0 < first.first_token_seconds <= first.seconds


def test_a_new_generator_writes_the_same_text(generator):
    fresh = TextGenerator(generator.model, generator.tokenizer)
    assert fresh.generate("abc", max_tokens=20, top_p=0.9).samples == generator.generate("abc", max_tokens=20, top_p=0.9).samples


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_temperature_zero_is_the_most_likely_token_of_the_full_model_each_time(tokenizer, cell, num_layers):
    model = random_model(tokenizer.vocab_size, cell=cell, num_layers=num_layers, scale=2.0, seed=0)
    found = TextGenerator(model, tokenizer).generate("dab", max_tokens=20, temperature=0, stop_at_end=False)
    read = [END, *tokenizer.encode("dab").tolist(), *found.token_ids[0]]
    assert found.token_ids[0] == probabilities(all_logits(model, read[:-1])[3:], never=(0, 1, END)).argmax(axis=1).tolist()
    assert found.samples[0] == tokenizer.decode(found.token_ids[0])
    assert len(set(found.token_ids[0])) > 1  # not one letter over and over


def test_top_k_of_one_is_greedy(generator):
    greedy = generator.generate("ab", max_tokens=40, temperature=0, stop_at_end=False)
    assert len(set(greedy.samples[0])) > 2
    for seed in (1, 2):
        assert generator.generate("ab", max_tokens=40, temperature=1.5, top_k=1, seed=seed, stop_at_end=False).samples == greedy.samples


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.6), (4, 0.5)])
def test_filters_never_draw_a_token_outside_the_allowed_set(generator, top_k, top_p):
    found = generator.generate("a", max_tokens=60, temperature=1.3, top_k=top_k, top_p=top_p, num_samples=3, stop_at_end=False)
    num_filtered = 0
    for row in found.token_ids:
        read = [END, *generator.tokenizer.encode("a").tolist(), *row[:-1]]
        after_each = probabilities(all_logits(generator.model, read)[1:], temperature=1.3, never=(0, 1, END))
        for token, probs in zip(row, after_each, strict=True):
            ranked = np.argsort(-probs)
            before = np.cumsum(probs[ranked]) - probs[ranked]  # of the more likely tokens
            allowed = set(ranked[(before < top_p) & (np.arange(len(ranked)) < (top_k or len(ranked)))].tolist())
            assert token in allowed
            num_filtered += len(allowed) < 10
    assert num_filtered > 100  # the filter had something to keep out


def test_a_tiny_top_p_still_leaves_the_most_likely_token(generator):
    found = generator.generate("ab", max_tokens=20, temperature=1.0, top_p=1e-6, stop_at_end=False)
    assert found.samples == generator.generate("ab", max_tokens=20, temperature=0, stop_at_end=False).samples


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.97)])
def test_tokens_are_drawn_as_often_as_the_softmax_says(generator, temperature, top_k, top_p):
    num_samples = 4000
    found = generator.generate("b", max_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p, num_samples=num_samples)
    drawn = np.bincount([row[0] if row else END for row in found.token_ids], minlength=13)
    ids = [END, *generator.tokenizer.encode("b").tolist()]
    probs = probabilities(next_logits(generator.model, ids), temperature=temperature)
    ranked = np.argsort(-probs)
    num_kept = top_k or int((np.cumsum(probs[ranked]) < top_p - 1e-9).sum()) + 1  # with the token that reaches top_p
    probs[ranked[num_kept:]] = 0.0
    probs /= probs.sum()
    assert (probs > 0).sum() == (11 if (top_k, top_p) == (0, 1.0) else num_kept) >= 2
    assert not drawn[probs == 0].any()
    expected = num_samples * probs[probs > 0]
    chi_square = ((drawn[probs > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)  # mean and deviation of the chi-square distribution
    assert probs.max() > 2 * probs[probs > 0].min()  # a uniform sampler would not pass


@pytest.mark.parametrize(
    "settings", [{"stop_at_end": False}, {"stop": ["jb", "gg"]}, {"repetition_penalty": 1.3, "no_repeat_ngram": 3, "stop_at_end": False}]
)
def test_a_sample_depends_on_its_number_and_the_seed_alone(generator, settings):
    many = generator.generate("ab", max_tokens=60, temperature=1.1, num_samples=7, **settings)
    assert len(set(many.samples)) > 4
    if "stop" in settings:
        assert len({len(text) for text in many.samples}) > 4  # rows were left while others were still written
    for num_samples in (1, 3):
        few = generator.generate("ab", max_tokens=60, temperature=1.1, num_samples=num_samples, **settings)
        assert few.samples == many.samples[:num_samples]
        assert few.token_ids == many.token_ids[:num_samples]


@pytest.mark.parametrize("rules", [{}, {"repetition_penalty": 1.3, "no_repeat_ngram": 3}])
def test_samples_that_end_do_not_change_those_still_written(generator, rules):
    stops = ["jb", "gg"]
    settings = {"max_tokens": 70, "temperature": 1.1, "num_samples": 7, "stop_at_end": False} | rules
    whole = generator.generate("ab", **settings).samples
    found = generator.generate("ab", stop=stops, **settings).samples
    assert found == [plainly_cut(text, stops) for text in whole]
    lengths = [len(text) for text in found]
    assert min(lengths) < 17 and max(lengths) > 33  # looks at the text come after 1, 17, 33 ... tokens
    assert np.argmin(lengths) < np.argmax(lengths)  # those still written moved up


def test_greedy_samples_are_all_the_same(generator):
    greedy = generator.generate("ab", max_tokens=30, num_samples=3, temperature=0, stop_at_end=False)
    assert len(set(greedy.samples)) == 1
    assert greedy.num_tokens == 90


def test_a_shorter_text_is_the_beginning_of_a_longer_one(generator):
    long = generator.generate("ab", max_tokens=40, stop_at_end=False).samples[0]
    for max_tokens in (1, 15, 16, 17, 39):
        assert generator.generate("ab", max_tokens=max_tokens, stop_at_end=False).samples[0] == long[:max_tokens]


def test_pad_and_unknown_are_never_drawn_and_end_only_if_asked_for(tokenizer):
    uniform = TextGenerator(zeroed(random_model(tokenizer.vocab_size)), tokenizer)
    for filters in ({}, {"top_k": 11, "top_p": 0.999}):
        endless = uniform.generate(max_tokens=300, temperature=1.0, num_samples=4, stop_at_end=False, **filters)
        assert [len(row) for row in endless.token_ids] == [300] * 4
        assert {token for row in endless.token_ids for token in row} == set(range(3, 13))
    stopping = uniform.generate(max_tokens=300, temperature=1.0, num_samples=200)
    lengths = [len(row) for row in stopping.token_ids]
    assert {token for row in stopping.token_ids for token in row} == set(range(3, 13))  # the end itself is not part of the text
    assert max(lengths) < 300
    assert np.mean(lengths) == pytest.approx(10, abs=3)  # one token in eleven is the end
    assert stopping.num_tokens == sum(lengths)


def test_greedy_choice_keeps_off_the_special_tokens_too(tokenizer):
    model = build_language_model(tokenizer.vocab_size, embedding_dim=8, units=8, tie_embeddings=False)
    weights = [np.zeros(w.shape) for w in model.get_weights()]
    weights[-1][:] = [9, 8, 7, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0]  # the output bias: <pad>, <unk>, <end> lead, then "c"
    model.set_weights(weights)
    loaded = TextGenerator(model, tokenizer)
    assert loaded.generate(max_tokens=5, temperature=0, stop_at_end=False).samples == ["ccccc"]
    ended = loaded.generate(max_tokens=5, temperature=0)
    assert (ended.samples, ended.token_ids, ended.num_tokens) == ([""], [[]], 0)


def test_an_empty_prompt_begins_a_new_document(generator):
    found = generator.generate(max_tokens=10, temperature=0, stop_at_end=False)
    assert found.token_ids[0][0] == np.argmax(probabilities(next_logits(generator.model, [END]), never=(0, 1, END)))
    assert found.prompt == ""


def test_a_long_prompt_is_read_to_its_end(generator):
    letters = np.random.default_rng(0).choice(list(LETTERS), 3000)
    prompt = "".join(letters)
    found = generator.generate(prompt, max_tokens=3, temperature=0, stop_at_end=False)
    read = [END, *generator.tokenizer.encode(prompt).tolist(), *found.token_ids[0][:-1]]
    assert found.token_ids[0] == probabilities(all_logits(generator.model, read)[3000:], never=(0, 1, END)).argmax(axis=1).tolist()


def test_the_state_is_carried_between_the_parts_of_a_prompt(generator, monkeypatch):
    prompts = ["".join(np.random.default_rng(seed).choice(list(LETTERS), 8)) for seed in range(12)]
    whole = [generator.generate(prompt, max_tokens=6, temperature=0, stop_at_end=False).samples for prompt in prompts]
    monkeypatch.setattr(generation, "_READ_CHUNK", 3)
    assert [generator.generate(prompt, max_tokens=6, temperature=0, stop_at_end=False).samples for prompt in prompts] == whole


@pytest.mark.parametrize("prompt", ["🙂👩‍👩‍👧", "中文句子。", "\x00\x07\u200f\ufeff", "<end><pad>", " \n\t\r\n", "naïve Ω"])
def test_bpe_reads_every_text(bpe_generator, prompt):
    found = bpe_generator.generate(prompt, max_tokens=8, stop_at_end=False)
    assert (found.num_tokens, found.prompt) == (8, prompt)
    assert bpe_generator.score(prompt)["num_bytes"] == len(prompt.encode())


def test_characters_the_model_never_saw_are_refused(generator):
    for use in (generator.generate, generator.score):
        with pytest.raises(ValueError, match=r"holds 2 character\(s\) that this character model never saw, e\.g\. 'é'.*BPE"):
            use("abé中é")


def test_a_prompt_of_the_greatest_length_is_read_and_a_longer_one_refused(generator, bpe_generator):
    assert generator.generate("ab" * (MAX_PROMPT_TOKENS // 2), max_tokens=2, stop_at_end=False).num_tokens == 2
    with pytest.raises(ValueError, match="The prompt has 100,001 tokens, but at most 100,000 are read"):
        generator.generate("a" * (MAX_PROMPT_TOKENS + 1))
    with pytest.raises(ValueError, match="The prompt has 400,000 tokens"):
        bpe_generator.generate("🙂" * 100_000)


@pytest.mark.parametrize("prompt", [None, 5, b"ab", ["ab"]])
def test_a_prompt_that_is_no_text_is_refused(generator, prompt):
    for use in (generator.generate, generator.beam, generator.score):
        with pytest.raises(TypeError, match=rf"\({type(prompt).__name__}\), but must be a string"):
            use(prompt)


def test_half_a_character_is_refused(generator, bpe_generator):
    for used in (generator, bpe_generator):
        with pytest.raises(ValueError, match=r"half a character \(U\+DCFF\) at position 2.*Read it again as UTF-8"):
            used.generate("ab\udcff")


# Repetition


@pytest.mark.parametrize(("window", "size"), [(64, 0), (5, 0), (64, 2), (64, 3)])
def test_repetition_is_held_back_as_by_a_plain_loop(generator, window, size):
    penalty = 1.0 if size else 1.6
    found = generator.generate(
        "abcabc",
        max_tokens=40,
        temperature=0,
        repetition_penalty=penalty,
        repetition_window=window,
        no_repeat_ngram=size,
        stop_at_end=False,
    )
    written = found.token_ids[0]
    logits = all_logits(generator.model, [END, *generator.tokenizer.encode("abcabc").tolist(), *written[:-1]])[6:]
    logits[:, [0, 1, END]] = -np.inf
    num_changed = 0
    for place, row in enumerate(logits):
        plain = row.argmax()
        before = written[:place]  # the prompt does not count
        for token in set(before[-window:]):
            row[token] = row[token] / penalty if row[token] > 0 else row[token] * penalty
        runs = {tuple(before[i : i + size]) for i in range(place - size + 1)}
        row[[token for token in range(13) if size and tuple([*before, token][-size:]) in runs]] = -np.inf
        assert written[place] == row.argmax()
        num_changed += plain != row.argmax()
    assert num_changed > 2


def test_no_run_is_written_twice(generator):
    found = generator.generate("a", max_tokens=80, temperature=0.3, no_repeat_ngram=3, num_samples=4, stop_at_end=False)
    for text in found.samples:
        runs = [text[i : i + 3] for i in range(78)]
        assert len(set(runs)) == 78


def test_where_everything_would_repeat_it_may():
    tokenizer = train_char_tokenizer(["ab"])
    generator = TextGenerator(random_model(tokenizer.vocab_size), tokenizer)
    text = generator.generate(max_tokens=30, no_repeat_ngram=2, stop_at_end=False).samples[0]
    assert len(text) == 30  # there are but four pairs
    pairs = [text[i : i + 2] for i in range(29)]
    for place, pair in enumerate(pairs):
        assert pair not in pairs[:place] or {pair[0] + "a", pair[0] + "b"} <= set(pairs[:place])


# Stop strings


def test_stop_strings_cut_where_a_plain_search_does():
    tokenizer = train_char_tokenizer(["ab"])
    generator = TextGenerator(random_model(tokenizer.vocab_size), tokenizer)
    rng = np.random.default_rng(0)
    num_cut = 0
    for seed in range(60):
        whole = generator.generate(max_tokens=60, temperature=1.0, seed=seed, stop_at_end=False).samples[0]
        stops = ["".join(rng.choice(["a", "b"], rng.integers(3, 9))) for _ in range(rng.integers(1, 4))]
        pieces: list[str] = []
        found = generator.generate(max_tokens=60, temperature=1.0, seed=seed, stop_at_end=False, stop=stops, on_text=pieces.append)
        assert found.samples == [plainly_cut(whole, stops)] == ["".join(pieces)]
        assert found.token_ids == [tokenizer.encode(found.samples[0]).tolist()]
        assert found.num_tokens == len(found.samples[0])
        num_cut += found.samples[0] != whole
    assert 30 < num_cut < 60


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("a", ""),
        ("ab", ""),  # streamed are the first token, then 16 at a time: this one stands across the first gap ...
        ("qr", "abcdefghijklmnop"),  # ... and this one across the second
        ("opqrstuvw", "abcdefghijklmn"),
        (["xyz", "mn"], "abcdefghijkl"),
        (["cdefg", "ef"], "abcd"),  # the second is complete first
        (["ef", "cdef"], "ab"),  # both end together
        ("pqx", string.ascii_lowercase),  # begins, but never completes
        ("z!", string.ascii_lowercase),  # what was held back at the end comes at last
        ((), string.ascii_lowercase),
    ],
)
def test_nothing_of_a_stop_string_is_shown_and_nothing_else_is_held_back(stop, expected):
    tokenizer = train_char_tokenizer([string.ascii_lowercase])
    pieces: list[str] = []
    found = reciting(tokenizer, string.ascii_lowercase).generate(stop=stop, on_text=pieces.append)
    assert found.samples == [expected] == ["".join(pieces)]
    assert "" not in pieces
    assert found.token_ids == [tokenizer.encode(expected).tolist()]


def test_what_may_begin_a_stop_string_is_shown_when_the_text_is_cut():
    tokenizer = train_char_tokenizer([string.ascii_lowercase])
    pieces: list[str] = []
    found = reciting(tokenizer, string.ascii_lowercase).generate(stop="qrs", max_tokens=17, on_text=pieces.append)
    assert pieces == ["a", "bcdefghijklmnop", "q"]
    assert found.samples == ["abcdefghijklmnopq"]


def test_token_ids_are_those_that_the_cut_text_needs(bpe_generator):
    decode = bpe_generator.tokenizer.decode
    num_inside = 0
    for seed in range(20):
        whole = bpe_generator.generate(max_tokens=60, temperature=1.0, seed=seed, stop_at_end=False)
        stop = next(c for c in whole.samples[0][10:] if c.isalpha() and c != "\ufffd")
        found = bpe_generator.generate(max_tokens=60, temperature=1.0, seed=seed, stop_at_end=False, stop=stop)
        text, ids = found.samples[0], found.token_ids[0]
        assert text == plainly_cut(whole.samples[0], [stop])
        assert ids == whole.token_ids[0][: len(ids)]
        assert decode(ids).startswith(text)
        assert not ids or not decode(ids[:-1]).startswith(text)
        num_inside += decode(ids) != text
    assert num_inside  # some stood inside a token


def test_a_character_of_several_tokens_before_a_stop_string_stays_whole():
    tokenizer = train_bpe_tokenizer(["ab"], vocab_size=260)
    found = reciting(tokenizer, "a中!?").generate(stop="!")
    assert found.samples == ["a中"]
    assert found.token_ids == [tokenizer.encode("a中").tolist()]
    assert reciting(tokenizer, "a中!?").generate(stop=["中!", "?"]).samples == ["a"]


@pytest.mark.parametrize(
    ("stop", "error", "message"),
    [
        ("", ValueError, "A stop string is empty"),
        (["a", ""], ValueError, "A stop string is empty"),
        ([5], TypeError, r"A stop string is 5 \(int\), but must be text"),
        (b"a", TypeError, r"A stop string is 97 \(int\)"),
        (None, TypeError, "stop is None, but must be a string or several"),
    ],
)
def test_a_bad_stop_string_is_named(generator, stop, error, message):
    with pytest.raises(error, match=message):
        generator.generate("a", stop=stop)


# Streaming


def test_streamed_pieces_join_to_the_text(generator, bpe_generator):
    for used in (generator, bpe_generator):
        for stop_at_end in (True, False):
            pieces: list[str] = []
            found = used.generate("a", max_tokens=50, num_samples=2, temperature=1.2, stop_at_end=stop_at_end, on_text=pieces.append)
            assert "".join(pieces) == found.samples[0]
    assert len(pieces) > 2  # several, not all at the end


def test_a_streamed_character_is_shown_when_it_is_whole():
    tokenizer = train_bpe_tokenizer(["ab"], vocab_size=260)
    generator = reciting(tokenizer, "0123456789cd中文!")  # 12 tokens, twice 3, and one: the second look falls into the second sign
    pieces: list[str] = []
    found = generator.generate(on_text=pieces.append)
    assert pieces == ["0", "123456789cd中", "文!"]
    assert found.samples == ["0123456789cd中文!"]
    pieces = []
    cut = generator.generate(max_tokens=17, on_text=pieces.append)  # ends within the last sign
    assert pieces == ["0", "123456789cd中", "\ufffd"]
    assert cut.samples == ["0123456789cd中\ufffd"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"num_samples": -1}, "num_samples is -1"),
        ({"num_samples": 10**9}, "num_samples is 1,000,000,000, but at most 4,096"),
        ({"temperature": -0.1}, "temperature is -0.1, but must be 0 or more"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"repetition_penalty": 0.9}, "repetition_penalty is 0.9"),
        ({"repetition_window": 0}, "repetition_window is 0"),
        ({"no_repeat_ngram": 1.5}, "no_repeat_ngram is 1.5"),
        ({"seed": -1}, "seed is -1, but must be a whole number of 0 or more"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_a_bad_setting_is_named(generator, settings, message):
    with pytest.raises(ValueError, match=message):
        generator.generate("a", **settings)


def test_a_tokenizer_of_another_size_is_refused(generator):
    with pytest.raises(ValueError, match="tokeniser has 5 ids, but the model scores 13"):
        TextGenerator(generator.model, train_char_tokenizer(["ab"]))


# Weights, and models without a NumPy form


@pytest.mark.parametrize("build", [random_model, model_without_numpy_form])
def test_weights_changed_after_construction_are_seen(tokenizer, build):
    model = build(tokenizer.vocab_size)
    generator = TextGenerator(model, tokenizer)

    def use(used):
        found = used.generate("abc", max_tokens=30, stop_at_end=False)
        return found.samples, used.beam("abc", max_tokens=8, beam_size=2, stop_at_end=False).samples, used.token_losses("abcabc").tolist()

    old = use(generator)
    scrambled(model, seed=8)
    new = use(generator)
    assert new == use(TextGenerator(model, tokenizer))
    assert all(before != after for before, after in zip(old, new, strict=True))


def test_a_model_without_numpy_form_runs_compiled(tokenizer):
    model = model_without_numpy_form(tokenizer.vocab_size)
    with pytest.raises(TypeError, match="NumPy"):
        open_runtime(model)
    generator = TextGenerator(model, tokenizer)
    greedy = generator.generate("dab", max_tokens=20, temperature=0, num_samples=2, stop_at_end=False)
    read = [END, *tokenizer.encode("dab").tolist(), *greedy.token_ids[0]]
    logits = all_logits(model, read)
    assert greedy.token_ids[0] == probabilities(logits[3:-1], never=(0, 1, END)).argmax(axis=1).tolist()
    assert len(set(greedy.token_ids[0])) > 2
    text = tokenizer.decode(read)
    expected = evaluation.token_losses(all_logits(model, read[:-1]), np.array(read[1:]))
    np.testing.assert_allclose(generator.token_losses(text), expected, atol=1e-5)


def test_compiled_and_numpy_write_the_same_text(generator):
    def use(used):
        found = used.generate("cab", max_tokens=40, temperature=1.2, num_samples=3, repetition_penalty=1.2, stop=["jj"])
        return found.samples, found.token_ids

    assert use(TextGenerator(generator.model, generator.tokenizer, compiled=True)) == use(generator)


def test_a_model_that_carries_no_state_is_refused(tokenizer):
    model = build_transformer_language_model(tokenizer.vocab_size, size=8, num_layers=1, num_heads=2)
    generator = TextGenerator(model, tokenizer)
    for use in (generator.generate, generator.beam, generator.score):
        with pytest.raises(TypeError, match="transformer_language_model has no recurrent layer"):
            use("abc")


# Beam search


def beam_scores(generator: TextGenerator, prompt: str, rows: list[list[int]], *, max_tokens: int, length_penalty: float) -> list[float]:
    """Return the score of each row of token ids by full passes; a row shorter than `max_tokens` has ended."""
    start = [END, *generator.tokenizer.encode(prompt).tolist()]
    scores = []
    for row in rows:
        row = row if len(row) == max_tokens else [*row, END]
        log_probs = np.log(probabilities(all_logits(generator.model, [*start, *row[:-1]])[len(start) - 1 :], never=()))
        scores.append(log_probs[np.arange(len(row)), row].sum() / ((5 + len(row)) / 6) ** length_penalty)
    return scores


@pytest.mark.parametrize("length_penalty", [0.0, 1.2])
def test_beam_search_finds_the_best_of_all_continuations(generator, length_penalty):
    found = generator.beam("dab", beam_size=12, max_tokens=2, length_penalty=length_penalty)
    letters = range(3, 13)  # all ten go on after the first token, so a beam of 12 drops none
    every = [[], *([a] for a in letters), *([a, b] for a in letters for b in letters)]
    scores = beam_scores(generator, "dab", every, max_tokens=2, length_penalty=length_penalty)
    best = np.argsort(scores)[::-1][:12]
    assert found.token_ids == [every[i] for i in best]
    np.testing.assert_allclose(found.scores, np.array(scores)[best], atol=1e-5)


def test_beam_search_returns_its_beam_best_first_with_their_scores(bpe_generator):
    prompt = "the 猫 sat"
    found = bpe_generator.beam(prompt, beam_size=3, max_tokens=12)
    assert found.prompt == prompt
    assert found.samples == [bpe_generator.tokenizer.decode(row) for row in found.token_ids]
    assert found.num_tokens == sum(map(len, found.token_ids))
    assert found.scores == sorted(found.scores, reverse=True) and len(found.scores) == 3
    np.testing.assert_allclose(
        found.scores, beam_scores(bpe_generator, prompt, found.token_ids, max_tokens=12, length_penalty=0.6), atol=1e-4
    )
    endless = bpe_generator.beam(prompt, beam_size=3, max_tokens=12, stop_at_end=False)
    assert [len(row) for row in endless.token_ids] == [12] * 3
    assert not {0, 1, END} & {token for row in endless.token_ids for token in row}


def test_a_beam_of_one_without_end_is_greedy_choice(generator):
    for prompt in ("", "jab"):
        greedy = generator.generate(prompt, max_tokens=25, temperature=0, stop_at_end=False)
        assert generator.beam(prompt, beam_size=1, max_tokens=25, stop_at_end=False).samples == greedy.samples


def test_a_wider_beam_finds_a_likelier_text(generator):
    settings = {"max_tokens": 20, "length_penalty": 0.0, "stop_at_end": False}
    narrow, wide = (generator.beam("ab", beam_size=size, **settings).scores[0] for size in (1, 8))
    assert wide > narrow + 0.1


# Scores


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_token_losses_are_the_cross_entropy_of_the_full_model(tokenizer, cell, num_layers):
    model = random_model(tokenizer.vocab_size, cell=cell, num_layers=num_layers, tie_embeddings=True, seed=4)
    text = "cabbagefade" * 30  # 330 tokens: more than are read at once
    ids = np.array([END, *tokenizer.encode(text)], dtype="int32")
    expected = evaluation.token_losses(all_logits(model, ids[:-1]), ids[1:])
    np.testing.assert_allclose(TextGenerator(model, tokenizer).token_losses(text), expected, atol=1e-5)


@pytest.mark.parametrize("num_tokens", [2048, 2049, 5000])
def test_a_long_text_is_scored_as_in_one_pass(generator, num_tokens):
    text = "".join(np.random.default_rng(1).choice(list(LETTERS), num_tokens))
    ids = np.array([END, *generator.tokenizer.encode(text)], dtype="int32")
    logits = all_logits(generator.model, ids[:-1])
    losses = generator.token_losses(text)
    assert losses.shape == (num_tokens,)
    np.testing.assert_allclose(losses, evaluation.token_losses(logits, ids[1:]), atol=1e-4)


def test_a_uniform_model_has_perplexity_of_vocab_size(tokenizer):
    uniform = TextGenerator(zeroed(random_model(tokenizer.vocab_size)), tokenizer)
    scores = uniform.score("abcd")
    assert scores["perplexity"] == pytest.approx(13.0, rel=1e-5)
    assert scores["bits_per_char"] == scores["bits_per_byte"] == pytest.approx(np.log2(13), rel=1e-5)  # one token a byte
    assert (scores["num_tokens"], scores["num_bytes"]) == (4, 4)


def test_bits_per_byte_count_bytes_and_bits_per_char_characters():
    tokenizer = train_char_tokenizer(["aé中🙂x"])  # 5 characters: 8 ids, 3 bits each under a uniform model
    uniform = TextGenerator(zeroed(random_model(tokenizer.vocab_size)), tokenizer)
    scores = uniform.score("aé中🙂")  # 1 + 2 + 3 + 4 bytes
    assert scores["num_bytes"] == 10
    assert scores["bits_per_char"] == pytest.approx(3.0, rel=1e-5)
    assert scores["bits_per_byte"] == pytest.approx(4 * 3.0 / 10, rel=1e-5)


def test_a_score_sums_the_losses_of_the_tokens(bpe_generator):
    text = "the cat sat, 猫"
    losses = bpe_generator.token_losses(text).astype("float64")
    scores = bpe_generator.score(text)
    assert scores["num_tokens"] == len(losses) < scores["num_bytes"]  # merges were used
    assert scores["bits_per_byte"] == pytest.approx(losses.sum() / np.log(2) / len(text.encode()))
    assert scores["perplexity"] == pytest.approx(np.exp(losses.mean()))


def test_texts_scored_side_by_side_get_what_each_gets_alone(generator, monkeypatch):
    monkeypatch.setattr("slm_helpers.generation.scoring._SIDE_BY_SIDE", 3)
    rng = np.random.default_rng(2)
    texts = ["".join(rng.choice(list(LETTERS), size)) for size in (5, 300, 1, 5, 2100, 40, 2048)]
    together = generator.text_losses(texts)
    assert [len(losses) for losses in together] == [len(text) for text in texts]
    for text, losses in zip(texts, together, strict=True):
        np.testing.assert_allclose(losses, generator.token_losses(text), atol=1e-5)
    assert generator.text_losses([]) == []
    with pytest.raises(TypeError, match="must be a list of texts"):
        generator.text_losses("abc")


def test_an_empty_text_has_no_score(generator):
    with pytest.raises(ValueError, match="The text is empty"):
        generator.score("")
    with pytest.raises(ValueError, match="Text 2 of 3 is empty"):
        generator.text_losses(["a", "", "b"])


def test_padding_on_the_right_leaves_the_loss_unchanged(generator):
    texts = ["abc", "jihgfedcba"]
    rows = [np.array([END, *generator.tokenizer.encode(text)], dtype="int32") for text in texts]
    inputs = np.zeros((2, 10), dtype="int32")
    targets = np.zeros((2, 10), dtype="int32")
    mask = np.zeros((2, 10))
    for i, row in enumerate(rows):
        inputs[i, : len(row) - 1], targets[i, : len(row) - 1], mask[i, : len(row) - 1] = row[:-1], row[1:], 1
    assert mask.sum() == 13  # 7 tokens are masked
    logits = keras.ops.convert_to_numpy(generator.model(inputs))
    expected = np.mean(np.concatenate([generator.token_losses(text) for text in texts]))
    assert evaluation.loss_nats(logits, targets, mask=mask) == pytest.approx(expected, abs=1e-5)
    assert abs(evaluation.loss_nats(logits, targets) - expected) > 1e-3  # without the mask padding would count


def test_several_prompts_side_by_side_give_what_each_gives_alone():
    tokenizer = train_char_tokenizer(LETTERS)
    for model in (random_model(tokenizer.vocab_size, scale=0.8), model_without_numpy_form(tokenizer.vocab_size)):
        writer = TextGenerator(model, tokenizer)
        prompts = ["abc", "", "jihgfedcba", "d"]
        greedy = writer.generate_batch(prompts, sampler=Sampler(temperature=0.0), max_tokens=20)
        assert greedy == [writer.generate(prompt, temperature=0.0, max_tokens=20).samples[0] for prompt in prompts]
        drawn = writer.generate_batch(
            prompts, sampler=Sampler(temperature=0.9), processors=[NoRepeatNgrams(2)], max_tokens=20, seed=3, stop="e"
        )
        same = [writer.generate(p, temperature=0.9, no_repeat_ngram=2, max_tokens=20, seed=3, stop="e", num_samples=4) for p in prompts]
        assert drawn == [found.samples[place] for place, found in enumerate(same)]
    assert writer.generate_batch([], sampler=Sampler()) == []
    with pytest.raises(TypeError, match="a list of prompts"):
        writer.generate_batch("abc", sampler=Sampler())


def test_threads_share_one_generator(generator):
    """Four threads at once write what each would alone, and leave the number of BLAS threads as it was."""
    before = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    options = [{"max_tokens": 30, "seed": seed, "num_samples": 1 + seed % 3, "repetition_penalty": 1.2} for seed in range(24)]
    alone = [generator.generate("abc", **each).token_ids for each in options]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: generator.generate("abc", **each).token_ids, options))
        scores = list(pool.map(generator.score, ["abc", "dab"] * 6))
    assert together == alone and scores == [generator.score("abc"), generator.score("dab")] * 6
    assert [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"] == before


def test_an_interrupted_text_leaves_the_threads_as_they_were(generator):
    def interrupt(piece):
        raise KeyboardInterrupt

    before = [library["num_threads"] for library in threadpool_info()]
    with pytest.raises(KeyboardInterrupt):
        generator.generate("abc", on_text=interrupt)
    assert [library["num_threads"] for library in threadpool_info()] == before


@pytest.mark.parametrize("num_tokens", [3000, 9000])
def test_the_state_is_carried_through_a_text_of_any_length(tokenizer, num_tokens):
    """A cell that never forgets shows what the first token was after thousands of others."""
    model = build_language_model(tokenizer.vocab_size, cell="rnn", embedding_dim=13, units=13, tie_embeddings=False)
    latch = np.zeros((13, 13))
    latch[3, 3] = 3.0  # holds +1 or -1
    vectors = np.zeros((13, 13))
    vectors[3, 3], vectors[4, 3] = 9, -9  # "a" sets it, "b" clears it, the others leave it
    output = np.zeros((13, 13))
    output[3, 5] = 4.0  # "c" is likelier after "a"
    model.set_weights([vectors, np.eye(13), latch, np.zeros(13), output, np.zeros(13)])
    after_a, after_b = (TextGenerator(model, tokenizer).token_losses(first + "c" * num_tokens)[50:] for first in "ab")
    np.testing.assert_allclose(after_a, after_a[-1], atol=1e-4)
    np.testing.assert_allclose(after_b - after_a, (after_b - after_a)[-1], atol=1e-4)
    assert (after_b - after_a)[-1] > 1
