"""Shards depend on the texts, not on who makes them; and they read as one stream."""

import json

from slm_helpers.text.tokenizers import train_char_tokenizer
from slm_helpers.training.batches import WindowBatches
from slm_helpers.training.shards import ShardedTokens, main, prepare_shards, write_shards

import numpy as np
import pytest

TEXTS = [f"{word} {number}" for number in range(9) for word in ("one", "two", "three")]


@pytest.fixture
def tokenizer():
    return train_char_tokenizer(TEXTS)


@pytest.fixture
def source(tmp_path, tokenizer):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, *TEXTS[:4]]), encoding="utf-8")
    tokenizer.save(tmp_path / "tokenizer.json")
    return tmp_path


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.npy"))}


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path, tokenizer, workers):
    settings = {"rows_per_shard": 4, "valid_share": 0.3}
    assert write_shards(TEXTS, tokenizer, tmp_path / "one", **settings) == 7
    for worker in reversed(range(workers)):  # and in any order
        write_shards(TEXTS, tokenizer, tmp_path / "many", worker=worker, workers=workers, **settings)
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_processes_make_what_one_makes(source):
    one = prepare_shards(source / "texts.jsonl", source / "tokenizer.json", source / "one", rows_per_shard=5)
    two = prepare_shards(source / "texts.jsonl", source / "tokenizer.json", source / "two", rows_per_shard=5, workers=2)
    assert files(source / "one") == files(source / "two") and set(two["worker"]) == {0, 1}
    assert one.drop(columns="worker").equals(two.drop(columns="worker"))
    assert (source / "one" / "index.json").read_bytes() == (source / "two" / "index.json").read_bytes()


def test_repeated_texts_are_left_out_wherever_they_first_stood(source, tokenizer):
    table = prepare_shards(source / "texts.jsonl", source / "tokenizer.json", source / "out", rows_per_shard=5, workers=2)
    assert table["repeated"].sum() == 4 and table["rows"].sum() == 31
    assert tokenizer.decode(ShardedTokens(source / "out")[:]) == "".join(TEXTS)


def test_a_text_keeps_its_split_when_rows_are_put_before_it(tmp_path, tokenizer):
    before, after = tmp_path / "before", tmp_path / "after"
    write_shards(TEXTS, tokenizer, before, rows_per_shard=100, valid_share=0.4)
    write_shards([*TEXTS[10:], *TEXTS[:10]], tokenizer, after, rows_per_shard=100, valid_share=0.4)
    for split in ("train", "valid"):
        streams = [np.load(folder / f"shard-00000.{split}.npy") for folder in (before, after)]
        parts = [sorted(tuple(part) for part in np.split(s, np.flatnonzero(s == tokenizer.end_id) + 1)) for s in streams]
        assert parts[0] == parts[1] and len(parts[0]) > 3


def test_batches_from_shards_are_those_of_the_whole_array(source):
    prepare_shards(source / "texts.jsonl", source / "tokenizer.json", source / "out", rows_per_shard=5)
    stream = ShardedTokens(source / "out")
    assert len(stream.files) > 3
    sharded, whole = (WindowBatches(tokens, window=6, batch_size=4, seed=3) for tokens in (stream, stream[:]))
    assert len(sharded) == len(whole) > 2 and sharded.fingerprint() == whole.fingerprint()
    for index in range(len(whole)):
        for ours, theirs in zip(sharded.batch(1, index), whole.batch(1, index), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_positions_outside_and_missing_index_are_errors(source, tmp_path):
    prepare_shards(source / "texts.jsonl", source / "tokenizer.json", source / "out")
    stream = ShardedTokens(source / "out")
    with pytest.raises(IndexError, match=f"but the stream has 0..{len(stream) - 1}"):
        stream[np.array([0, len(stream)])]
    with pytest.raises(FileNotFoundError, match="shards are not complete"):
        ShardedTokens(tmp_path)


def test_the_command_says_what_it_wrote_and_errors_are_one_line(source, capsys):
    arguments = ["--text", str(source / "texts.jsonl"), "--tokenizer", str(source / "tokenizer.json"), "--out", str(source / "out")]
    assert main([*arguments, "--rows-per-shard", "10"]) == 0
    assert capsys.readouterr().out.split("\n")[0].split() == ["shard", "worker", "rows", "repeated", "train_tokens", "valid_tokens"]
    assert main([*arguments, "--column", "title"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "there is no column 'title', but text" in error
