"""Batches: windows of a stream, rows of examples, pairs of sequences."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from slm_helpers._checks import check_positive
from slm_helpers.models.rows import pad_rows
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np


class WindowBatches:
    """Batches of windows from one stream of token ids; each epoch cuts at a new offset and shuffles the windows.

    `batch(epoch, index)` depends on nothing but its arguments, so training can go on in the middle of an epoch. The stream may
    be a memory map: only the windows of one batch are read at a time.
    """

    def __init__(self, token_ids: np.ndarray, *, window: int, batch_size: int, seed: int = 42):
        """Prepare the batches.

        Args:
            token_ids: Shape (num_tokens,).
            window: Tokens in one example.
            batch_size: Windows in one batch; fewer if the stream has fewer.
            seed: Of offsets and order.
        """
        check_positive(window=window, batch_size=batch_size)
        if token_ids.ndim != 1 or len(token_ids) < 2 * window + 1:
            raise ValueError(
                f"token_ids has shape {token_ids.shape}, but training on windows of {window} needs a flat array of at least "
                f"{2 * window + 1} tokens. Use more text or a smaller window."
            )
        self.token_ids = token_ids
        self.window = window
        self.seed = seed
        # One window less than fits, so that every offset gives the same number.
        self._num_windows = (len(token_ids) - 1) // window - 1
        self.batch_size = min(batch_size, self._num_windows)
        self._epoch = -1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._num_windows // self.batch_size

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """Return inputs and targets of one batch, int32, shape (batch, window), weights (ones),
        and the carry mask, shape (batch,): 0 for a window that starts from a zero state."""
        if epoch != self._epoch:
            self._starts = self._arrange(np.random.default_rng([self.seed, epoch]))
            self._epoch = epoch
        starts = self._starts[index * self.batch_size : (index + 1) * self.batch_size]
        windows = self._read(starts[:, None] + np.arange(self.window + 1)).astype("int32")
        return windows[:, :-1], windows[:, 1:], np.ones((len(starts), self.window), "float32"), self._carry_mask(epoch, index)

    def fingerprint(self) -> str:
        """Return a short code of the stream."""
        return fingerprint_of_stream(self.token_ids)

    def _arrange(self, rng: np.random.Generator) -> np.ndarray:
        """Return where the windows of an epoch start, in the order of their use."""
        return int(rng.integers(0, self.window)) + self.window * rng.permutation(self._num_windows)

    def _read(self, positions: np.ndarray) -> np.ndarray:
        """Return the token ids at these positions of the stream as it is read in the present epoch."""
        return self.token_ids[positions]

    def _carry_mask(self, epoch: int, index: int) -> np.ndarray:
        return np.zeros(self.batch_size, dtype="float32")


class StreamBatches(WindowBatches):
    """Batches in which row i goes on where row i of the batch before ended, so that a recurrent state can be carried over.

    The stream is cut into `batch_size` parallel streams read side by side, at a new offset each epoch. One window in sixteen is said to
    start anew: a model must also learn to begin from a zero state.

    Reference:
        Merity et al. (2018), "Regularizing and Optimizing LSTM Language Models", arXiv:1708.02182.
    """

    def _arrange(self, rng: np.random.Generator) -> np.ndarray:
        offset = int(rng.integers(0, self.window))
        length = len(self) * self.window
        streams = offset + length * rng.permutation(self.batch_size)
        return (streams[None] + self.window * np.arange(len(self))[:, None]).reshape(-1)

    def _carry_mask(self, epoch: int, index: int) -> np.ndarray:
        if index == 0:
            return np.zeros(self.batch_size, dtype="float32")
        return (np.random.default_rng([self.seed, epoch, index]).random(self.batch_size) >= 1 / 16).astype("float32")


class DocumentStreams(StreamBatches):
    """`StreamBatches` over whole documents in a new random order each epoch; a document ends with <end>.

    Only the bounds of the documents are held in memory: the tokens are read where they stand, and are not copied.
    """

    def __init__(self, token_ids: np.ndarray, *, window: int, batch_size: int, seed: int = 42):
        """Prepare the batches; see `WindowBatches`."""
        super().__init__(token_ids, window=window, batch_size=batch_size, seed=seed)
        ends = np.flatnonzero(np.asarray(token_ids) == Tokenizer.end_id) + 1
        bounds = np.unique(np.concatenate([[0], ends, [len(token_ids)]]))
        self._starts_of_documents, self._lengths = bounds[:-1], np.diff(bounds)

    def _arrange(self, rng: np.random.Generator) -> np.ndarray:
        self._order = rng.permutation(len(self._lengths))
        self._ends = np.cumsum(self._lengths[self._order])  # of the documents in this order
        return super()._arrange(rng)

    def _read(self, positions: np.ndarray) -> np.ndarray:
        rank = np.searchsorted(self._ends, positions, side="right")
        document = self._order[rank]
        return self.token_ids[self._starts_of_documents[document] + positions - (self._ends[rank] - self._lengths[document])]


_POOL = 16  # batches' worth of rows that are sorted by length before they are cut into batches


class Examples:
    """Labelled rows of different lengths, and the batches made of them."""

    def __init__(
        self,
        inputs: dict[str, Sequence[np.ndarray]],
        targets: Sequence[Any],
        *,
        along: str | None = None,
        weights: np.ndarray | None = None,
        target_weights: Sequence[np.ndarray] | None = None,
        lengths: np.ndarray | None = None,
    ):
        """Bring inputs and targets together.

        Args:
            inputs: What the network reads, in the order of its inputs: for each a list of arrays, one a row. They may differ in
                length on their first axis and are padded on the right with 0; vectors of floats must have one length.
            targets: One whole number a row, or one array of them: the position of the right answer among the logits; -1 does not count.
            along: Name of the input whose first axis the targets run along, for networks that score each position of a row.
            weights: How much each row counts in the loss; all alike unless given.
            target_weights: How much each target of a row counts beside the row's others, arrays of the shape of the targets.
            lengths: By which rows are sorted into batches; that of the first input unless given.
        """
        self.inputs = {name: [np.asarray(row) for row in rows] for name, rows in inputs.items()}
        self.targets = [np.asarray(target) for target in targets]
        self.along = along
        sizes = {name: len(rows) for name, rows in self.inputs.items()} | {"targets": len(self.targets)}
        if len(set(sizes.values())) > 1 or not self.targets:
            raise ValueError(f"Inputs and targets must have one length of at least 1, but have {sizes}.")
        self.weights = np.ones(len(self.targets), "float32") if weights is None else np.asarray(weights, dtype="float32")
        self.target_weights = None if target_weights is None else [np.asarray(row, dtype="float32") for row in target_weights]
        self.lengths = np.array([row.shape[0] for row in next(iter(self.inputs.values()))]) if lengths is None else lengths

    def __len__(self) -> int:
        return len(self.targets)

    def subsample(self, share: int) -> "Examples":
        """Return every so many'th row."""
        kept = range(0, len(self), share)
        return Examples(
            {name: [rows[i] for i in kept] for name, rows in self.inputs.items()},
            [self.targets[i] for i in kept],
            along=self.along,
            weights=self.weights[kept],
            target_weights=None if self.target_weights is None else [self.target_weights[i] for i in kept],
            lengths=self.lengths[kept],
        )

    def fingerprint(self) -> str:
        """Return a short code of all rows."""
        columns = (*self.inputs.values(), self.targets, [self.weights], self.target_weights or [])
        return hash_arrays(row for column in columns for row in column)

    def batch(self, picked: np.ndarray, batch_size: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Return inputs, targets and weights (of the shape of the targets) of some rows, filled up with rows of weight 0."""
        inputs = [pad_rows([rows[i] for i in picked], batch_size) for rows in self.inputs.values()]
        targets = [self.targets[i] for i in picked]
        if self.along is None:
            targets = np.stack(targets)
            targets = np.pad(targets, [(0, batch_size - len(picked)), *[(0, 0)] * (targets.ndim - 1)], constant_values=-1)
        else:  # 0 is what pad_rows fills with
            targets = pad_rows([target + 1 for target in targets], batch_size) - 1
        weights = np.pad(self.weights[picked], (0, batch_size - len(picked)))
        weights = weights.reshape(-1, *[1] * (targets.ndim - 1)) * (targets >= 0)
        if self.target_weights is not None:
            for row, i in enumerate(picked):
                weights[(row, *(slice(size) for size in self.target_weights[i].shape))] *= self.target_weights[i]
        return inputs, np.maximum(targets, 0).astype("int32"), weights.astype("float32")


class RowBatches:
    """Batches of examples of like length; each epoch draws them anew."""

    def __init__(self, examples: Examples, *, batch_size: int, seed: int = 42):
        """Prepare the batches.

        Args:
            examples: The rows.
            batch_size: Rows in one batch at most; a few less where all batches are about equally full then.
            seed: Of the order.
        """
        self.examples, self.seed = examples, seed
        self._num_batches = -(-len(examples) // batch_size)
        self.batch_size = -(-len(examples) // self._num_batches)
        self._epoch = -1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._num_batches

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """Return the inputs, targets and weights of one batch of an epoch."""
        inputs, targets, weights = self.examples.batch(self.rows(epoch)[index], self.batch_size)
        return (*inputs, targets, weights)

    def rows(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch: drawn at random, but of like length, and in random order."""
        if epoch != self._epoch:
            rng, size = np.random.default_rng([self.seed, epoch]), _POOL * self.batch_size
            order = rng.permutation(len(self.examples))
            pools = [order[i : i + size] for i in range(0, len(order), size)]
            order = np.concatenate([pool[np.argsort(self.examples.lengths[pool], kind="stable")] for pool in pools])
            batches = np.array_split(order, self._num_batches)
            self._rows, self._epoch = [batches[i] for i in rng.permutation(self._num_batches)], epoch
        return self._rows

    def fingerprint(self) -> str:
        """Return a short code of all rows."""
        return self.examples.fingerprint()


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int = 256) -> list[np.ndarray]:
    """Return the token ids of each text after an <end>, as a document begins in pretraining: int32 arrays of 1 to `max_tokens`.

    A longer text loses its middle: openings and conclusions say most about its class.
    """
    check_positive(max_tokens=max_tokens)
    start = np.array([tokenizer.end_id], dtype="int32")
    encoded = []
    for ids in tokenizer.encode_batch(texts):
        kept = max_tokens - 1
        if len(ids) > kept:
            ids = np.concatenate([ids[: kept - kept // 2], ids[len(ids) - kept // 2 :]])
        encoded.append(np.concatenate([start, ids]))
    return encoded


def fingerprint_of_stream(token_ids: np.ndarray) -> str:
    """Return a short code of a stream, whatever type its numbers are stored in and however large it is."""
    pieces = (token_ids[start : start + 1_000_000].astype("int32") for start in range(0, len(token_ids), 1_000_000))
    return f"{len(token_ids)}-{hash_arrays(pieces)}"


def hash_arrays(arrays: Iterable[Any]) -> str:
    """Return a short code of the shapes, types and values of arrays."""
    code = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        code.update(f"{array.dtype}{array.shape}".encode())
        code.update(array.tobytes())
    return code.hexdigest()[:16]
