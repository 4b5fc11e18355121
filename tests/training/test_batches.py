"""Batches: what is in them, in which order, and the code by which a checkpoint knows its data again."""

from slm_helpers.training.batches import DocumentStreams, Examples, RowBatches, StreamBatches, WindowBatches, fingerprint_of_stream
from slm_helpers.training.pairs import PairBatches

import numpy as np
import pytest

NOISE = np.random.default_rng(0).integers(3, 8, 300).astype("int32")


def test_targets_are_inputs_shifted_by_one_and_every_window_is_from_the_stream():
    stream = np.arange(1000, 1000 + 103)
    batches = WindowBatches(stream, window=5, batch_size=4, seed=3)
    assert len(batches) == 4  # (102 // 5 - 1) // 4
    offsets = set()
    for epoch in range(6):
        seen = []
        for index in range(len(batches)):
            inputs, targets, weights, carry_mask = batches.batch(epoch, index)
            assert not carry_mask.any() and (weights == 1).all() and weights.shape == targets.shape
            assert inputs.shape == targets.shape == (4, 5)
            assert inputs.dtype == targets.dtype == np.int32
            np.testing.assert_array_equal(targets, inputs + 1)  # the stream counts upwards by one
            np.testing.assert_array_equal(inputs, inputs[:, :1] + np.arange(5))
            assert inputs.min() >= stream[0]
            assert targets.max() <= stream[-1]
            seen += inputs[:, 0].tolist()
        assert len(set(seen)) == 16  # no window twice in an epoch
        offsets.add(seen[0] % 5)
    assert len(offsets) > 1  # epochs cut at different places


def test_a_batch_depends_on_epoch_and_index_alone():
    def fresh(seed=7):
        return WindowBatches(NOISE, window=6, batch_size=3, seed=seed)

    wandering = fresh()
    for epoch, index in [(2, 1), (0, 0), (2, 1), (1, 3), (0, 0)]:
        for ours, theirs in zip(wandering.batch(epoch, index), fresh().batch(epoch, index), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(fresh().batch(0, 0)[0], fresh().batch(1, 0)[0])
    assert not np.array_equal(fresh().batch(0, 0)[0], fresh(seed=8).batch(0, 0)[0])


def test_batches_read_a_memory_map(tmp_path):
    path = tmp_path / "stream.npy"
    np.save(path, NOISE.astype("uint16"))
    mapped = WindowBatches(np.load(path, mmap_mode="r"), window=6, batch_size=3)
    in_memory = WindowBatches(NOISE, window=6, batch_size=3)
    assert isinstance(mapped.token_ids, np.memmap)
    assert mapped.fingerprint() == in_memory.fingerprint()
    for ours, theirs in zip(mapped.batch(1, 2), in_memory.batch(1, 2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("changed", [0, 1, 999_999, 1_000_000, 2_345_677, -1])
def test_a_fingerprint_reads_every_token(changed):
    stream = np.random.default_rng(0).integers(3, 5000, 2_345_679).astype("uint16")
    other = stream.copy()
    other[changed] ^= 1
    codes = {WindowBatches(ids, window=6, batch_size=3).fingerprint() for ids in (stream, other, stream[:-1])}
    assert len(codes) == 3
    assert fingerprint_of_stream(stream.astype("int64")) == fingerprint_of_stream(stream)


def test_a_fingerprint_of_rows_reads_inputs_targets_and_weights():
    def rows(**changes):
        parts = {"texts": [[3, 4], [5]], "targets": [[1, 0], [1]], "weights": [1.0, 1.0], "target_weights": [[1, 1], [1]]} | changes
        target_weights = [np.array(row, "float32") for row in parts["target_weights"]]
        texts, targets = ([np.array(row, "int32") for row in parts[name]] for name in ("texts", "targets"))
        examples = Examples(
            {"token_ids": texts}, targets, along="token_ids", weights=np.array(parts["weights"]), target_weights=target_weights
        )
        return RowBatches(examples, batch_size=2).fingerprint()

    others = [
        {"texts": [[3, 4], [6]]},
        {"texts": [[3], [4, 5]], "targets": [[1], [0, 1]], "target_weights": [[1], [1, 1]]},
        {"targets": [[1, 0], [0]]},
        {"weights": [1.0, 0.5]},
        {"target_weights": [[1, 0.5], [1]]},
    ]
    assert rows() == rows()
    assert len({rows(), *(rows(**changes) for changes in others)}) == 6


def test_a_fingerprint_of_pairs_reads_sources_targets_and_where_one_ends():
    def code(sources, targets, start_id=2):
        sides = ([np.array(ids, "int32") for ids in side] for side in (sources, targets))
        return PairBatches(*sides, start_id=start_id, batch_size=2).fingerprint()

    codes = [
        code([[3, 4], [5]], [[6, 2], [7, 2]]),
        code([[3], [4, 5]], [[6, 2], [7, 2]]),
        code([[3, 4], [5]], [[6, 2], [8, 2]]),
        code([[3, 4], [9]], [[6, 2], [7, 2]]),
        code([[3, 4], [5]], [[6, 2], [7, 2]], start_id=1),
    ]
    assert len(set(codes)) == 5 and code([[3, 4], [5]], [[6, 2], [7, 2]]) == codes[0]


def test_batches_refuse_a_stream_that_is_too_short():
    assert len(WindowBatches(np.arange(9), window=4, batch_size=64)) == 1  # fewer windows than a batch: a smaller batch
    with pytest.raises(ValueError, match=r"shape \(8,\).*windows of 4 needs .* at least 9 tokens\. Use more text or a smaller window"):
        WindowBatches(np.arange(8), window=4, batch_size=2)
    with pytest.raises(ValueError, match="flat array"):
        WindowBatches(np.zeros((4, 100), "int32"), window=4, batch_size=2)
    with pytest.raises(ValueError, match="batch_size is 0"):
        WindowBatches(np.arange(100), window=4, batch_size=0)


def test_streams_go_on_where_they_stopped_and_some_windows_begin_anew():
    batches = StreamBatches(np.arange(100_000), window=7, batch_size=4, seed=5)
    new = 0
    for index in range(1, len(batches)):
        (_, targets, *_), (inputs, *_, carry_mask) = batches.batch(3, index - 1), batches.batch(3, index)
        np.testing.assert_array_equal(inputs[:, 0], targets[:, -1])
        new += (carry_mask == 0).mean()
    assert 0.04 < new / (len(batches) - 1) < 0.09
    assert not batches.batch(3, 0)[3].any()
    assert set(batches.batch(2, 0)[0][:, 0]) != set(batches.batch(3, 0)[0][:, 0])


def test_documents_stay_whole_and_come_in_another_order_each_epoch(tmp_path):
    rng = np.random.default_rng(0)
    documents = [np.append(100 * (i + 1) + np.arange(rng.integers(0, 60)), 2) for i in range(50)]
    path = tmp_path / "stream.npy"
    np.save(path, np.concatenate(documents).astype("uint16"))
    known = {tuple(document.tolist()) for document in documents}
    orders = []
    for epoch in range(3):
        batches = DocumentStreams(np.load(path, mmap_mode="r"), window=4, batch_size=3, seed=1)
        rows = [np.concatenate([batches.batch(epoch, i)[0][row] for i in range(len(batches))]) for row in range(3)]
        whole = [tuple(part.tolist()) for row in rows for part in np.split(row, np.flatnonzero(row == 2) + 1)[1:-1]]
        assert set(whole) <= known
        assert len(whole) > 35 and len(set(whole) - {(2,)}) == len([document for document in whole if document != (2,)])
        orders.append(whole)
    assert orders[0] != orders[1] != orders[2]
    again = DocumentStreams(np.load(path), window=4, batch_size=3, seed=1)
    np.testing.assert_array_equal(again.batch(2, 7)[1], batches.batch(2, 7)[1])
    assert again.fingerprint() == batches.fingerprint()


def test_shuffled_documents_go_on_where_they_stopped():
    stream = np.arange(100_000)
    stream[::50] = 2
    batches = DocumentStreams(stream, window=7, batch_size=4, seed=5)
    for index in range(1, 200):
        np.testing.assert_array_equal(batches.batch(3, index)[0][:, 0], batches.batch(3, index - 1)[1][:, -1])


def test_a_stream_without_an_end_is_one_document():
    plain, documents = (kind(NOISE, window=6, batch_size=3) for kind in (StreamBatches, DocumentStreams))
    for index in range(len(plain)):
        assert set(documents.batch(0, index)[0].ravel()) <= set(NOISE)
        assert documents.batch(0, index)[0].shape == plain.batch(0, index)[0].shape
