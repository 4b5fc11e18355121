"""Control codes, lengths, and a generator that refuses what cannot be meant."""

from slm_helpers.generation.control import (
    ControlledGenerator,
    Request,
    add_control_codes,
    as_script,
    count_length,
    cut_to_length,
    pick_words,
    text_nats,
    vary_request,
)
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import SavedModel
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import numpy as np
import pytest


@pytest.fixture(scope="module")
def saved():
    """A model of random weights; it writes noise, but under the same rules."""
    tokenizer = train_bpe_tokenizer(["The owl sat on the roof. The owl said nothing at all."], vocab_size=300)
    model = build_language_model(tokenizer.vocab_size, embedding_dim=8, units=12, tie_embeddings=False)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return SavedModel(model=model, tokenizer=tokenizer, settings={"control_codes": True, "topics": ["home", "travel"], "unit": "turns"})


@pytest.fixture
def writer(saved):
    return ControlledGenerator(saved)


def test_control_code_holds_what_was_asked_and_no_more():
    assert Request().code == "[]\n"
    assert Request(words=("ticket", "sea")).code == "[words: ticket, sea]\n"
    assert Request(topic="travel", length=6, unit="turns").code == "[topic: travel; length: 6 turns]\n"


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"length": 0}, ValueError, "length is 0"),
        ({"length": 2.5}, ValueError, "length is 2.5"),
        ({"topic": "a]b"}, ValueError, "belong to the control code"),
        ({"words": ("two\nlines",)}, ValueError, "belong to the control code"),
        ({"words": ("ticket", " ")}, ValueError, "words is empty"),
        ({"words": "ticket"}, TypeError, "must be several words"),
        ({"topic": 3}, TypeError, "must be text"),
        ({"unit": "pages"}, ValueError, "unit is 'pages'"),
    ],
)
def test_requests_that_cannot_be_meant_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        Request(**fields)


def test_varied_requests_lose_fields_as_often_as_told():
    whole, rng = Request(topic="travel", length=6, words=("sea",)), np.random.default_rng(0)
    found = [vary_request(whole, rng, drop_field=0.2, drop_all=0.3) for _ in range(4000)]
    kept = np.array([[bool(r.topic), r.length is not None, bool(r.words)] for r in found])
    np.testing.assert_allclose(kept.mean(axis=0), 0.7 * 0.8, atol=0.03)
    assert abs((~kept).all(axis=1).mean() - (0.3 + 0.7 * 0.2**3)) < 0.03
    assert vary_request(whole, rng, drop_field=0.0, drop_all=0.0) == whole


def test_length_is_counted_in_words_or_turns():
    assert count_length("Tom: Hello there.\n\nAnn: Hi.", "words") == 5
    assert count_length("Tom: Hello there.\n\nAnn: Hi.\n", "turns") == 2


def test_cut_ends_at_the_nearest_sentence_or_turn():
    text = 'One two three. "Four five six!" Seven eight nine ten eleven. Twelve'
    assert cut_to_length(text, 4) == "One two three."
    assert cut_to_length(text, 6) == 'One two three. "Four five six!"'
    assert cut_to_length("word " * 100, 10) == "word " * 9 + "word"  # no sentence ends anywhere near
    assert cut_to_length("A: x\nB: y\n\nA: z", 2, "turns") == "A: x\nB: y"
    with pytest.raises(ValueError, match="length is 0"):
        cut_to_length(text, 0)


def test_words_that_say_most_are_picked_without_names():
    train = ["the ferry left with Anna and the ferry came back", "the baker with bread came", "the boat came with bread"]
    assert pick_words(["the ferry came with ferry and unheard things"], train, 1) == [("ferry",)]
    assert pick_words(["Anna came with bread", "the boat came"], train) == [("bread", "came"), ("boat", "came")]


def test_coded_texts_hold_every_text_once_a_copy():
    texts, requests = ["one text", "another text"], [Request(topic="home"), Request(topic="travel", length=2)]
    found = add_control_codes(texts, requests, num_copies=50)
    assert len(found) == 100 and found == add_control_codes(texts, requests, num_copies=50) != add_control_codes(
        texts, requests, num_copies=50, seed=1
    )
    for text, own in zip(texts, requests, strict=True):
        mine = [each for each in found if each.endswith(text)]
        assert len(mine) == 50 and {text, "[]\n" + text, own.code + text} <= set(mine)
    assert all(("travel" in each) <= each.endswith("another text") for each in found)


def test_script_has_a_line_a_turn():
    assert as_script([{"speaker": "Ann", "text": "Hi."}, {"speaker": "Bo", "text": "Hello."}]) == "Ann: Hi.\nBo: Hello."


def test_nats_after_a_line_are_those_of_the_text_alone(saved):
    generator = TextGenerator(saved.model, saved.tokenizer)
    texts, lines = ["The owl sat.", "The roof said nothing"], [Request(topic="home").code, ""]
    both = [generator.token_losses(line + text).sum() for line, text in zip(lines, texts, strict=True)]
    head = [generator.token_losses(line).sum() if line else 0.0 for line in lines]
    np.testing.assert_allclose(text_nats(generator, texts, lines), np.subtract(both, head), rtol=1e-4)
    np.testing.assert_allclose(text_nats(generator, texts)[1], both[1], rtol=1e-4)


def test_same_seed_same_texts_and_the_line_is_not_shown(writer):
    first, again = (writer.generate("The owl", topic="home", num_samples=2, max_tokens=20) for _ in range(2))
    assert first == again and len(first) == 2 and all(text.startswith("The owl") for text in first)
    assert first != writer.generate("The owl", topic="travel", num_samples=2, max_tokens=20)
    assert first != writer.generate("The owl", topic="home", num_samples=2, max_tokens=20, seed=1)


def test_guidance_of_one_is_the_model_itself_and_of_zero_ignores_the_wish(writer):
    options = {"num_samples": 3, "max_tokens": 24, "temperature": 0.7}
    plain, asked = writer.generate("The", **options), writer.generate("The", topic="home", **options)
    near = writer.generate("The", topic="home", guidance=1 + 1e-9, **options)
    assert near == asked != plain
    assert writer.generate("The", topic="home", guidance=0, **options) == plain


def test_guidance_raises_what_the_line_makes_likelier(writer):
    texts = {g: writer.generate(topic="home", guidance=g, num_samples=24, max_tokens=12, temperature=1.0, top_p=1.0) for g in (1, 4)}
    lines = [Request(topic="home").code] * 24
    gains = {g: text_nats(writer.generator, t, [Request().code] * 24) - text_nats(writer.generator, t, lines) for g, t in texts.items()}
    assert gains[4].mean() > gains[1].mean()


def test_held_length_is_kept(saved):
    by_words = ControlledGenerator(SavedModel(model=saved.model, tokenizer=saved.tokenizer))
    for text in by_words.generate("The owl", length=12, force_length=True, num_samples=4):
        assert text.startswith("The owl") and 6 <= count_length(text) <= 18


def test_writer_refuses_with_a_way_out(writer, saved):
    for arguments, error, message in [
        ({"topic": "war"}, ValueError, "unknown to this model: it knows home, travel"),
        ({"length": 0}, ValueError, "length is 0"),
        ({"start": "  "}, ValueError, "spaces only"),
        ({"start": 7}, TypeError, "must be text"),
        ({"start": "A: x\nB: y", "length": 2}, ValueError, "has 2 turns already"),
        ({"force_length": True}, ValueError, "needs a length"),
        ({"temperature": -1}, ValueError, "temperature is -1"),
        ({"guidance": -1}, ValueError, "guidance is -1"),
        ({"words": "sea"}, TypeError, "several words"),
    ]:
        with pytest.raises(error, match=message):
            writer.generate(**arguments)
    with pytest.raises(ValueError, match="not trained with control codes"):
        ControlledGenerator(SavedModel(model=saved.model, tokenizer=saved.tokenizer)).generate(words=("sea",))
    with pytest.raises(ValueError, match="trained without topics"):
        ControlledGenerator(SavedModel(model=saved.model, tokenizer=saved.tokenizer)).generate(topic="home")
