"""Continuing and scoring texts: what may be drawn, how often, where it stops, and that a score is the model's own."""

from slm_helpers import evaluation, generation
from slm_helpers.generation import MAX_PROMPT_TOKENS, TextGenerator
from slm_helpers.models import build_language_model
from slm_helpers.tokenizers import Tokenizer, train_bpe_tokenizer, train_char_tokenizer

import keras
import numpy as np
import pytest

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
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, scale, w.shape) for w in model.get_weights()])
    return model


def zeroed(model: keras.Model) -> keras.Model:
    """Set all weights to zero: every token is as likely as any other."""
    model.set_weights([np.zeros(w.shape) for w in model.get_weights()])
    return model


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
    ids = [END, *tokenizer.encode("dab").tolist()]
    for _ in range(20):
        ids.append(int(np.argmax(probabilities(next_logits(model, ids), never=(0, 1, END)))))
    assert found.token_ids[0] == ids[4:]
    assert found.samples[0] == tokenizer.decode(ids[4:])
    assert len(set(ids[4:])) > 1  # not one letter over and over


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
    num_samples = 6000
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


def test_samples_differ_and_the_first_begins_as_it_would_alone(generator):
    alone = generator.generate("ab", max_tokens=30, stop_at_end=False)
    among = generator.generate("ab", max_tokens=30, num_samples=4, stop_at_end=False)
    assert len(set(among.samples)) == 4
    assert among.num_tokens == 120
    # The random numbers of a block of 16 tokens are drawn sample by sample, so only the first block is shared.
    assert among.samples[0][:16] == alone.samples[0][:16]
    greedy = generator.generate("ab", max_tokens=30, num_samples=3, temperature=0, stop_at_end=False)
    assert len(set(greedy.samples)) == 1


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


@pytest.mark.parametrize("prompt", ["🙂👩‍👩‍👧", "中文句子。", "\x00\x07\u200f\ufeff", "<end><pad>", " \n\t\r\n", "naïve Ω"])
def test_bpe_reads_every_text(bpe_generator, prompt):
    found = bpe_generator.generate(prompt, max_tokens=8, stop_at_end=False)
    assert (found.num_tokens, found.prompt) == (8, prompt)
    assert bpe_generator.score(prompt)["num_bytes"] == len(prompt.encode())


def test_characters_the_model_never_saw_are_refused(generator):
    for use in (generator.generate, generator.score):
        with pytest.raises(ValueError, match=r"holds 2 character\(s\) that this character model never saw, e\.g\. 'é'.*BPE"):
            use("abé中é")


def test_a_prompt_that_is_too_long_is_refused(generator):
    with pytest.raises(ValueError, match="The prompt has 100,001 tokens, but at most 100,000 are read"):
        generator.generate("a" * MAX_PROMPT_TOKENS)  # <end> comes before it


def test_streamed_pieces_join_to_the_text(generator, bpe_generator):
    for used in (generator, bpe_generator):
        for stop_at_end in (True, False):
            pieces: list[str] = []
            found = used.generate("a", max_tokens=50, num_samples=2, temperature=1.2, stop_at_end=stop_at_end, on_text=pieces.append)
            assert "".join(pieces) == found.samples[0]
    assert len(pieces) > 2  # several, not all at the end


def test_a_streamed_character_is_shown_when_it_is_whole(bpe_generator, monkeypatch):
    # The model writes any bytes; let it write these, one token each: 16 tokens end inside the second sign.
    written = bpe_generator.tokenizer.encode("0123456789ab中文!")
    assert len(written) == 12 + 3 + 3 + 1

    def write(model, arguments):
        if "decoder" not in model.name:
            return run(model, arguments)
        start = write.count * 16
        write.count += 1
        new = np.resize(written[start : start + 16], (1, 16)).astype("int32")
        return [new, new[:, -1], np.zeros(1, "int32"), *arguments[7:]]

    run, write.count = generation._run, 0
    monkeypatch.setattr(generation, "_run", write)
    pieces: list[str] = []
    found = bpe_generator.generate("", max_tokens=19, on_text=pieces.append)
    assert pieces == ["0123456789ab中", "文!"]
    assert found.samples == ["0123456789ab中文!"]
    write.count, pieces = 0, []
    cut = bpe_generator.generate("", max_tokens=17, on_text=pieces.append)  # ends within the last sign
    assert "".join(pieces) == cut.samples[0] == "0123456789ab中\ufffd"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"num_samples": -1}, "num_samples is -1"),
        ({"temperature": -0.1}, "temperature is -0.1, but must be 0 or more. Use 0 for greedy choice"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 2.5}, "top_k is 2.5, but must be a whole number"),
        ({"top_p": 0.0}, r"top_p is 0.0, but must lie in \(0, 1\]"),
        ({"top_p": 1.1}, "top_p is 1.1"),
    ],
)
def test_a_bad_setting_is_named(generator, settings, message):
    with pytest.raises(ValueError, match=message):
        generator.generate("a", **settings)


def test_a_tokenizer_of_another_size_is_refused(generator):
    with pytest.raises(ValueError, match="tokeniser has 5 ids, but the model scores 13"):
        TextGenerator(generator.model, train_char_tokenizer(["ab"]))


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


def test_an_empty_text_has_no_score(generator):
    with pytest.raises(ValueError, match="The text is empty"):
        generator.score("")


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
