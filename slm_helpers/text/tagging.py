"""What a tagger reads of sentences and learns from tags: subword tokens, spellings, windows of long sentences, label indices."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

from slm_helpers.text.hashing import hash_words
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np

MAX_WORDS = 128  # read in one window; a longer sentence is read in windows that overlap
MAX_CHARACTERS = 16  # bytes of a word that a tagger reads, with a sign before and behind it
NUM_CHARACTERS = 259  # padding, the 256 bytes, and the two signs
_CONTEXT = 16  # words at the edge of a window that only serve as context
_MAX_TOKENS = 16  # of one word; a longer word loses its middle
_CLOSING = re.compile(r"[.,;:!?)\]}%…]+|n't|['’](s|S|re|ve|ll|d|m|t)")  # words that follow the one before without a space
_OPENING = frozenset("([{$£€#¿¡")  # and those that the next one follows without a space
_WORD_START, _WORD_END = 257, 258  # character ids; 0 is padding, 1 to 256 are the bytes


def token_lists(sentences: Sequence[str | Sequence[str]], *, name: str = "X") -> list[list[str]]:
    """Return sentences as lists of tokens; strings are split at single spaces, and an empty one has no token.

    Raises:
        TypeError: If one string is given instead of a list of sentences, or a token is not a string.
        ValueError: If a token of a list holds a space, which would make it two.

    Example:
        >>> token_lists(["Ada met Bo", ["Ada", "slept"], []])
        [['Ada', 'met', 'Bo'], ['Ada', 'slept'], []]
    """
    if isinstance(sentences, str):
        raise TypeError(f"{name} is one string ({sentences!r:.40}), but a list of sentences is needed: pass [{sentences!r:.40}].")
    found = []
    for row, sentence in enumerate(sentences, 1):
        tokens = (sentence.split(" ") if sentence else []) if isinstance(sentence, str) else list(sentence)
        for position, token in enumerate(tokens, 1):
            if not isinstance(token, str):
                raise TypeError(f"{name}, sentence {row}, token {position}: {token!r:.40} is {type(token).__name__}, but must be a string.")
            if " " in token:
                raise ValueError(f"{name}, sentence {row}, token {position}: {token!r:.40} holds a space. Make it two tokens.")
        found.append(tokens)
    return found


def iob_labels(tags: Sequence[str]) -> list[str]:
    """Return O and, of each type in the tags (joined by spaces), B and I, whether both occur or not: a new text may need either.

    Example:
        >>> iob_labels(["O B-PER", "B-LOC I-LOC"])
        ['O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER']
    """
    kinds = sorted({tag[2:] for row in tags for tag in row.split(" ") if tag != "O"})
    if not kinds:
        raise ValueError("All tags in train are O, but a tagger needs one kind of entity at least. Add sentences with entities.")
    return ["O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]


def check_known_tags(tags: Sequence[str], labels: Sequence[str], where: str, problem: str) -> None:
    """Raise ValueError for the first row with a tag that is no label."""
    known = set(labels)
    for row, sentence in enumerate(tags, 1):
        unknown = [tag for tag in sentence.split(" ") if tag not in known]
        if unknown:
            raise ValueError(
                f"{where} {row}: the tag {unknown[0]!r} {problem} {', '.join(labels[:10])}{' ...' if len(labels) > 10 else ''}. "
                "Correct its spelling or leave such rows out."
            )


def tag_codes(tags: Sequence[str], labels: Sequence[str]) -> list[np.ndarray]:
    """Return the tags of each sentence, joined by spaces, as indices of labels."""
    index = {label: code for code, label in enumerate(labels)}
    return [np.array([index[tag] for tag in row.split(" ")], dtype="int64") for row in tags]


def windows_of(num_words: int) -> list[tuple[int, int, int, int]]:
    """Return the windows that a sentence is read in, as (start, stop, first word that counts, word after the last that counts).

    Windows overlap, so that every word that counts has context on both sides.
    """
    windows, start, first = [], 0, 0
    while first < num_words:
        stop = min(start + MAX_WORDS, num_words)
        last = num_words if stop == num_words else stop - _CONTEXT
        windows.append((start, stop, first, last))
        start, first = last - _CONTEXT, last
    return windows


def window_targets(codes: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the words of each window of a sentence and their targets: label indices, or -1 for words that are read as context only."""
    for start, stop, first, last in windows_of(len(codes)):
        index = np.arange(start, stop)
        yield slice(start, stop), np.where((index >= first) & (index < last), codes[start:stop], -1)


def encode_sentences(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], *, num_buckets: int = 0) -> dict[str, list[np.ndarray]]:
    """Return what a tagger reads of each sentence, see `slm_helpers.models.taggers.build_tagger`.

    Args:
        tokenizer: Of the language model's layers.
        sentences: Lists of words, one word at least in each.
        num_buckets: If above 0, hashed features of each word are added.

    Returns:
        For each sentence token_ids (<end> first), word_ends (index of each word's last token), characters, shape
        (words, MAX_CHARACTERS), and with `num_buckets` features: int32 arrays.
    """
    spaced = [_with_spaces(words) for words in sentences]
    known = list(dict.fromkeys(chain.from_iterable(spaced)))
    tokens = {word: _without_middle(ids, _MAX_TOKENS) for word, ids in zip(known, tokenizer.encode_batch(known), strict=True)}
    spellings = {word: _spelling(word) for word in dict.fromkeys(chain.from_iterable(sentences))}
    inputs: dict[str, list[np.ndarray]] = {"token_ids": [], "word_ends": [], "characters": []}
    for words, spaced_words in zip(sentences, spaced, strict=True):
        ids = [tokens[word] for word in spaced_words]
        inputs["token_ids"].append(np.concatenate([np.array([tokenizer.end_id], dtype="int32"), *ids]))
        inputs["word_ends"].append(np.cumsum([len(part) for part in ids], dtype="int32"))
        inputs["characters"].append(np.stack([spellings[word] for word in words]))
    if num_buckets:
        inputs["features"] = hash_words(sentences, num_buckets=num_buckets)
    return inputs


def _with_spaces(words: Sequence[str]) -> list[str]:
    """Return the words as they stand in running text, which the base was trained on: with a space before them, but for
    punctuation. A sentence all in capitals is read as a title, Like This; its spelling still says so.
    """
    if len(words) > 1 and " ".join(words).isupper():
        words = [word.capitalize() for word in words]
    spaced = [words[0] or " "]
    for before, word in pairwise(words):
        spaced.append(word if _CLOSING.fullmatch(word) or (word and before in _OPENING) else f" {word}")
    return spaced


def _without_middle(values: Any, size: int) -> Any:
    return values if len(values) <= size else np.concatenate([values[: size - size // 2], values[len(values) - size // 2 :]])


def _spelling(word: str) -> np.ndarray:
    """Return the character ids of a word, its bytes between two signs: int32, shape (MAX_CHARACTERS,)."""
    signs = _without_middle(np.frombuffer(word.encode(), dtype="uint8"), MAX_CHARACTERS - 2).astype("int32") + 1
    ids = np.zeros(MAX_CHARACTERS, dtype="int32")
    ids[: len(signs) + 2] = [_WORD_START, *signs, _WORD_END]
    return ids
