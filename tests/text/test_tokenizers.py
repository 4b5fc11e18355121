import json

from slm_helpers.data.loading import load_dataset
from slm_helpers.text.tokenizers import END, PAD, SPECIAL_TOKENS, UNK, Tokenizer, train_bpe_tokenizer, train_char_tokenizer

import numpy as np
import pytest

ODD_TEXTS = [
    "",
    " ",
    "plain text",
    "  two  spaces, tab\tand a space at the end ",
    "Windows\r\nlines\r\nand an old Mac\rline\n\n",
    "👩‍👩‍👧‍👦 🇧🇷 👍🏽 e\u0301 é",
    "\x00\x01\x07\x1b\x7f\x85",
    "\ufeff\u2028\u200b\u202e\ufffd",
    "<end> <pad><unk> </s> [CLS]",
    "שלום עולם مرحبا 你好，世界",
    "\u0120 \u010a \u0100",  # the letters that byte-level BPE writes for space, line end and zero
    "#@!?%&/()=[]{}\\^~`´|<>\"'",
]


@pytest.fixture(scope="module")
def bpe():
    return train_bpe_tokenizer(load_dataset("stories", split="train")["text"], vocab_size=600)


@pytest.fixture(scope="module")
def char():
    return train_char_tokenizer(ODD_TEXTS)


@pytest.mark.parametrize("text", ODD_TEXTS, ids=repr)
def test_bpe_gives_back_every_text_unseen(bpe, text):
    token_ids = bpe.encode(text)
    assert bpe.decode(token_ids) == text
    assert bpe.unk_id not in token_ids


@pytest.mark.parametrize("text", ODD_TEXTS, ids=repr)
def test_characters_give_back_every_text_they_know(char, text):
    token_ids = char.encode(text)
    assert len(token_ids) == len(text)
    assert char.decode(token_ids) == text


@pytest.mark.parametrize("seed", range(3))
def test_random_unicode_survives_bpe(bpe, seed):
    points = np.random.default_rng(seed).integers(0, 0x110000, 300)
    text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
    assert bpe.decode(bpe.encode(text)) == text


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_special_tokens_come_first_and_cannot_be_typed(request, kind):
    tokenizer = request.getfixturevalue(kind)
    assert tokenizer.kind == kind
    assert tokenizer.vocabulary[:3] == list(SPECIAL_TOKENS) == [PAD, UNK, END]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.end_id) == (0, 1, 2)
    assert min(tokenizer.encode("a<end>b <pad>")) > 2


def test_character_ids_by_hand():
    tokenizer = train_char_tokenizer(["abba", "c"])
    assert tokenizer.vocabulary == [*SPECIAL_TOKENS, "a", "b", "c"]
    assert tokenizer.vocab_size == 6
    assert tokenizer.encode("cab").tolist() == [5, 3, 4]
    assert tokenizer.encode("cab").dtype == np.int32


def test_unseen_character_is_unknown_and_shows():
    tokenizer = train_char_tokenizer(["abba"])
    assert tokenizer.encode("axb").tolist() == [3, 1, 4]
    assert tokenizer.decode([3, 1, 4]) == "a\ufffdb"


def test_pad_and_end_vanish_in_decoding(bpe, char):
    for tokenizer in (bpe, char):
        ids = tokenizer.encode("text")
        assert tokenizer.decode([*ids, tokenizer.end_id, tokenizer.pad_id, *ids]) == "texttext"


def test_rare_characters_get_no_id():
    assert train_char_tokenizer(["aab", "abc"], min_count=2).vocabulary[3:] == ["a", "b"]
    with pytest.raises(ValueError, match="min_count is 0"):
        train_char_tokenizer(["a"], min_count=0)


def test_only_training_texts_shape_the_vocabulary():
    """What stands in test alone has no id of its own."""
    train, test = ["the cat sat", "the hat sat"], ["the zebra ß"]
    tokenizer = train_char_tokenizer(train)
    assert not set("zß") & set(tokenizer.vocabulary)
    assert tokenizer.encode(test[0]).tolist().count(tokenizer.unk_id) == len("zbrß")
    words = train_bpe_tokenizer(train * 50, vocab_size=300)
    assert "the" in words.vocabulary
    assert not any("z" in token and len(token) > 1 for token in words.vocabulary)


def test_same_texts_same_tokenizer(bpe, tmp_path):
    again = train_bpe_tokenizer(iter(load_dataset("stories", split="train")["text"]), vocab_size=600)
    assert again.vocabulary == bpe.vocabulary


def test_merges_make_text_shorter(bpe):
    text = load_dataset("stories", split="test")["text"].iloc[0]
    bytes_only = train_bpe_tokenizer(["x"], vocab_size=260)
    assert len(bytes_only.encode(text)) == len(text.encode())
    assert len(bpe.encode(text)) < 0.6 * len(text)


def test_vocabulary_sizes(bpe):
    assert bpe.vocab_size == len(bpe.vocabulary) == 600
    assert train_bpe_tokenizer(["ab"], vocab_size=4096).vocab_size < 300  # too little text for more merges
    assert train_bpe_tokenizer(["ababab"], vocab_size=260).vocab_size == 260
    for size in (259, 1):
        with pytest.raises(ValueError, match=rf"vocab_size is {size}, but byte-level BPE needs at least 260"):
            train_bpe_tokenizer(["ab"], vocab_size=size)
    for size in (0, -5, 300.0):
        with pytest.raises(ValueError, match=r"vocab_size is .* whole number"):
            train_bpe_tokenizer(["ab"], vocab_size=size)


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_saved_and_loaded_is_equal(request, tmp_path, kind):
    tokenizer = request.getfixturevalue(kind)
    tokenizer.save(tmp_path / "new" / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "new" / "tokenizer.json")
    assert (loaded.kind, loaded.vocabulary) == (tokenizer.kind, tokenizer.vocabulary)
    for text in ODD_TEXTS:
        np.testing.assert_array_equal(loaded.encode(text), tokenizer.encode(text))  # typed "<end>" stays text here too
        assert loaded.decode(loaded.encode(text)) == text


def test_files_that_are_no_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.json: there is no such tokeniser file"):
        Tokenizer.load(tmp_path / "gone.json")
    for content in ("", "not json", json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}})):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(ValueError, match=r"t\.json: not a tokeniser file"):
            Tokenizer.load(tmp_path / "t.json")


def test_documents_become_one_stream_with_an_end_after_each(char):
    texts = ["plain", "", " ", "text"]
    stream = char.encode_documents(texts)
    assert stream.dtype == np.int32
    expected = [token_id for text in texts for token_id in [*char.encode(text), char.end_id]]
    assert stream.tolist() == expected
    assert (stream == char.end_id).sum() == len(texts)


@pytest.mark.parametrize("chunk", [1, 2, 3, 256])
def test_stream_does_not_depend_on_the_chunk(bpe, chunk):
    texts = [f"document {i}" for i in range(6)]
    np.testing.assert_array_equal(bpe.encode_documents(iter(texts), chunk=chunk), bpe.encode_documents(texts))


def test_batch_equals_one_by_one(bpe):
    for text, ids in zip(ODD_TEXTS, bpe.encode_batch(ODD_TEXTS), strict=True):
        np.testing.assert_array_equal(ids, bpe.encode(text))
    assert bpe.encode_batch([]) == []


@pytest.mark.parametrize("value", [5, None, b"bytes", ["a"], float("nan")])
def test_only_text_is_encoded(bpe, value):
    with pytest.raises(TypeError, match=f"encode needs text, but got {type(value).__name__}"):
        bpe.encode(value)


def test_ids_outside_the_vocabulary_are_refused(bpe, char):
    for tokenizer in (bpe, char):
        for token_ids in ([3, tokenizer.vocab_size], [-1]):
            with pytest.raises(ValueError, match=rf"token ids lie in .*this vocabulary has 0\.\.{tokenizer.vocab_size - 1}"):
                tokenizer.decode(token_ids)
        assert tokenizer.decode([]) == ""


def test_nothing_to_learn_from_or_to_encode(char):
    for texts in ([], [""]):
        with pytest.raises(ValueError, match="The texts are empty"):
            train_char_tokenizer(texts)
    with pytest.raises(ValueError, match="no document to encode"):
        char.encode_documents([])
