"""Make the base model from scratch: gather the public pretraining text, learn the tokeniser, train for hours, write the folder.

    SLM_DATA_DIR=... python -m slm_helpers.pretrain --hours 3

One command, one fixed seed. It may be stopped at any time: the same command goes on from the last checkpoint in runs/pretrain/.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from slm_helpers.data import load_dataset, normalise_text
from slm_helpers.files import atomic_write
from slm_helpers.tokenizers import Tokenizer, train_bpe_tokenizer

import numpy as np

SOURCES = (
    "story_books",
    "childrens_books",
    "wikipedia_en",
    "imdb_unlabelled",
    "imdb",
    "abc_news",
    "fairytaleqa_stories",
    "tinystories_sample",
)
SHARED_WORDS = 13  # a training paragraph with a run of this many words from a held-out text is left out
PIECE_CHARS = 20_000  # books are cut into pieces of about this length, so that shuffling mixes the sources


def gather_text(*, seed: int = 42) -> tuple[list[str], dict[str, list[str]], dict[str, int]]:
    """Collect the training documents, and the held-out ones of the same sources.

    Returns:
        Training documents in shuffled order, books in pieces; held-out documents by name ("story_books/valid"); counts of what was
        read and left out.
    """
    train: list[tuple[str, str]] = []
    held_out: dict[str, list[str]] = {}
    for name in SOURCES:
        frame = load_dataset(name)
        train += [(name, text) for text in frame.loc[frame["split"] == "train", "text"]]
        for split in ("valid", "test"):
            texts = frame.loc[frame["split"] == split, "text"].tolist()
            if texts:
                held_out[f"{name}/{split}"] = texts
    for name in ("wikitext2", "ptb"):
        held_out[f"{name}/test"] = load_dataset(name)["text"].tolist()
    words: dict[str, int] = {}
    known = np.unique(np.concatenate([_run_codes(text, words) for texts in held_out.values() for text in texts]))
    counts = {"documents": len(train), "paragraphs": 0, "paragraphs_left_out": 0, "bytes": 0}
    seen: set[bytes] = set()
    pieces = []
    for _, text in train:
        kept = []
        for paragraph in text.split("\n\n"):
            counts["paragraphs"] += 1
            code = hashlib.blake2b(paragraph.encode(), digest_size=12).digest()
            # Word for word the same paragraph twice (films reviewed twice, tales in two books) teaches nothing new.
            double = len(paragraph) > 200 and code in seen
            seen.add(code)
            if double or _any_in(_run_codes(paragraph, words), known):
                counts["paragraphs_left_out"] += 1
            else:
                kept.append(paragraph)
        pieces += list(_pieces(kept))
    order = np.random.default_rng(seed).permutation(len(pieces))
    texts = [pieces[i] for i in order]
    counts["bytes"] = sum(len(text.encode()) for text in texts)
    return texts, held_out, counts


def _pieces(paragraphs: list[str]) -> Iterator[str]:
    piece: list[str] = []
    length = 0
    for paragraph in paragraphs:
        piece.append(paragraph)
        length += len(paragraph)
        if length >= PIECE_CHARS:
            yield "\n\n".join(piece)
            piece, length = [], 0
    if piece:
        yield "\n\n".join(piece)


def _run_codes(text: str, words: dict[str, int]) -> np.ndarray:
    """Return one 64-bit code for each run of SHARED_WORDS words of `text`; `words` numbers the words and grows."""
    numbers = np.array([words.setdefault(word, len(words)) for word in normalise_text(text).split()], dtype="uint64")
    if len(numbers) < SHARED_WORDS:
        return np.zeros(0, dtype="uint64")
    runs = np.lib.stride_tricks.sliding_window_view(numbers + np.uint64(1), SHARED_WORDS)
    powers = np.array([pow(0x9E3779B97F4A7C15, k, 2**64) for k in range(SHARED_WORDS)], dtype="uint64")
    return (runs * powers).sum(axis=1, dtype="uint64")


def _any_in(codes: np.ndarray, known: np.ndarray) -> bool:
    """Whether one of `codes` stands in the sorted array `known`."""
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return bool((known[places] == codes).any())


def prepare(folder: Path, *, vocab_size: int, seed: int = 42) -> Tokenizer:
    """Write tokenizer.json, tokens.npy (uint16, all training text) and sources.json into `folder`, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "sources.json").exists():
        return Tokenizer.load(folder / "tokenizer.json")
    texts, _, counts = gather_text(seed=seed)
    tokenizer = train_bpe_tokenizer(texts, vocab_size=vocab_size)
    tokenizer.save(folder / "tokenizer.json")
    ids = tokenizer.encode_documents(texts).astype("uint16")
    with atomic_write(folder / "tokens.npy", "wb") as file:
        np.save(file, ids)
    with atomic_write(folder / "sources.json") as file:
        json.dump(counts | {"tokens": len(ids), "vocab_size": vocab_size}, file, indent=1)
    return tokenizer
