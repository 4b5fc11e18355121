"""Text to token ids and back: characters and byte-level BPE, both through Hugging Face `tokenizers`.

Both are lossless on text they know: `decode(encode(text)) == text`. BPE falls back to bytes and so knows every text; a
character vocabulary turns an unseen character into <unk>.

Reference:
    Sennrich et al. (2016), "Neural Machine Translation of Rare Words with Subword Units", arXiv:1508.07909.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from slm_helpers._checks import check_positive
from slm_helpers.data.files import atomic_write

import numpy as np
import tokenizers as hf
from tokenizers import decoders, models, pre_tokenizers, trainers

PAD, UNK, END = "<pad>", "<unk>", "<end>"  # ids 0, 1, 2
SPECIAL_TOKENS = (PAD, UNK, END)


class Tokenizer:
    """A trained tokeniser. Ids 0, 1, 2 are <pad>, <unk> and <end> (the end of a document)."""

    pad_id, unk_id, end_id = 0, 1, 2

    def __init__(self, inner: hf.Tokenizer):
        self._inner = inner
        # "<end>" typed by a person is ordinary text; only code puts the id into a stream.
        self._inner.encode_special_tokens = True
        for index, token in enumerate(SPECIAL_TOKENS):
            if inner.token_to_id(token) != index:
                raise ValueError(
                    f"This tokeniser has no {token} with id {index}. Train it with train_char_tokenizer or train_bpe_tokenizer."
                )

    @property
    def kind(self) -> str:
        """Either "char" or "bpe"."""
        return "bpe" if isinstance(self._inner.model, models.BPE) else "char"

    @property
    def vocab_size(self) -> int:
        """Number of distinct token ids."""
        return self._inner.get_vocab_size()

    @property
    def vocabulary(self) -> list[str]:
        """The tokens as readable strings, in the order of their ids."""
        tokens = sorted(self._inner.get_vocab().items(), key=lambda item: item[1])
        if self.kind == "char":
            return [token for token, _ in tokens]
        byte_level = decoders.ByteLevel()
        return [token if token in SPECIAL_TOKENS else byte_level.decode([token]) for token, _ in tokens]

    def encode(self, text: str) -> np.ndarray:
        """Return the token ids of `text`: int32, shape (num_tokens,)."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of each text (in parallel over the cores)."""
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"encode needs text, but got {type(text).__name__} {text!r:.40}.")
        return [np.array(encoding.ids, dtype="int32") for encoding in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each text its token ids and where each token stands: first character and end, int32, shape (num_tokens, 2).

        A token of whole characters holds the space before it. Tokens that are parts of one character all stand at its place.
        """
        found = self._inner.encode_batch(list(texts), add_special_tokens=False)
        return [(np.array(each.ids, dtype="int32"), np.array(each.offsets, dtype="int32").reshape(-1, 2)) for each in found]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids; <pad> and <end> vanish, <unk> shows as U+FFFD."""
        ids = [int(i) for i in token_ids]
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise ValueError(f"token ids lie in {min(ids)}..{max(ids)}, but this vocabulary has 0..{self.vocab_size - 1}.")
        if self.kind == "char":
            vocabulary = self._inner.id_to_token
            return "".join("\ufffd" if i == self.unk_id else vocabulary(i) for i in ids if i not in (self.pad_id, self.end_id))
        return self._inner.decode(ids, skip_special_tokens=True)

    def encode_documents(self, texts: Iterable[str], *, chunk: int = 256) -> np.ndarray:
        """Return one stream of token ids for many documents, <end> after each: int32, shape (num_tokens,)."""
        parts: list[np.ndarray] = []
        waiting: list[str] = []
        end = np.array([self.end_id], dtype="int32")
        for text in texts:
            waiting.append(text)
            if len(waiting) == chunk:
                parts += [part for ids in self.encode_batch(waiting) for part in (ids, end)]
                waiting = []
        parts += [part for ids in self.encode_batch(waiting) for part in (ids, end)]
        if not parts:
            raise ValueError("There is no document to encode.")
        return np.concatenate(parts)

    def save(self, path: str | Path) -> None:
        """Write the tokeniser as one JSON file."""
        with atomic_write(path) as file:
            file.write(self._inner.to_str(pretty=False))

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what `save` wrote."""
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: there is no such tokeniser file.")
        try:
            return cls(hf.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{path}: not a tokeniser file ({error}).") from error


def train_char_tokenizer(texts: Iterable[str], *, min_count: int = 1) -> Tokenizer:
    """Make a tokeniser with one id for each character that occurs at least `min_count` times in `texts`.

    Example:
        >>> train_char_tokenizer(["abba"]).encode("ab").tolist()
        [3, 4]
    """
    check_positive(min_count=min_count)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    characters = sorted(c for c, count in counts.items() if count >= min_count)
    if not characters:
        raise ValueError("The texts are empty: there is no character to give an id.")
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *characters))}
    inner = hf.Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    inner.pre_tokenizer = pre_tokenizers.Split(hf.Regex(r"[\s\S]"), behavior="isolated")
    return Tokenizer(inner)


def train_bpe_tokenizer(texts: Iterable[str], *, vocab_size: int = 4096) -> Tokenizer:
    """Learn a byte-level BPE vocabulary: start from the 256 bytes and merge the commonest pair until it is full.

    Args:
        texts: Training texts only; a tokeniser that has seen the test split leaks.
        vocab_size: Number of ids, the three special ones and 256 bytes among them; so at least 260.

    Returns:
        The tokeniser. On little text fewer merges are found, and `tokenizer.vocab_size` is smaller than asked.
    """
    check_positive(vocab_size=vocab_size)
    if vocab_size < 260:
        raise ValueError(f"vocab_size is {vocab_size}, but byte-level BPE needs at least 260: 256 bytes, 3 special tokens, 1 merge.")
    inner = hf.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer=trainer)
    return Tokenizer(inner)
