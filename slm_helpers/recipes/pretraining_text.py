"""The text of the base models: sources with licences that allow products, cleaned, tokenised once, stored as a memory map.

Each source is one line of SOURCES. A document is an article, a story, a dialogue, a list of short lines, or a part of a book of
about PART_CHARS characters; <end> stands after each. Half of the dialogues begin every turn with "- ", the other half have one turn a
line without a mark, since transcripts come in both forms.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slm_helpers.data.files import atomic_write
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.splits import normalise_text
from slm_helpers.text.tokenizers import Tokenizer, train_bpe_tokenizer

import numpy as np
import pandas as pd

SEED = 42
PART_CHARS = 20_000  # books are cut into parts of about this length, so that shuffling mixes the sources
SHARED_WORDS = 13  # a training paragraph that shares this many words in a row with a held-out text is left out
REPEAT_CHARS = 200  # of paragraphs at least this long only the first copy is kept
LINES_PER_DOCUMENT = 30
VALIDATION_SETS = (
    "story_books", "childrens_books", "story_books_2", "textbooks", "wikipedia_en", "self_dialogue", "multiwoz21", "schema_guided_dialogue"
)  # fmt: skip
VALID_CHARS = 30_000  # of the valid part of each of them in the validation stream

Texts = Callable[[pd.DataFrame], list[str]]


def _own_texts(frame: pd.DataFrame) -> list[str]:
    return frame["text"].tolist()


def _dialogues(frame: pd.DataFrame) -> list[str]:
    marks = ("- ", "")
    return ["\n".join(marks[i % 2] + " ".join(turn["text"].split()) for turn in turns) for i, turns in enumerate(frame["turns"])]


def _column(name: str) -> Texts:
    return lambda frame: frame[name].tolist()


def _questions(frame: pd.DataFrame) -> list[str]:
    return (frame["question"] + " " + frame["answer"]).tolist()


@dataclass(frozen=True)
class Source:
    """Where training text comes from.

    `form` is "paragraphs" (paragraphs may be left out), "whole" (the whole document is left out) or "lines" (short texts, put
    together in random order, LINES_PER_DOCUMENT in a document).
    """

    licence: str
    form: str = "paragraphs"
    texts: Texts = _own_texts


_PUBLIC_DOMAIN, _CC_BY_SA, _CDLA = "public domain (USA)", "CC BY-SA 4.0", "CDLA-Sharing 1.0"
SOURCES: dict[str, Source] = {
    "story_books": Source(_PUBLIC_DOMAIN),
    "childrens_books": Source(_PUBLIC_DOMAIN),
    "story_books_2": Source(_PUBLIC_DOMAIN),
    "fairytaleqa_stories": Source("Apache 2.0"),
    "tinystories_sample": Source(_CDLA),
    "tinystories_more": Source(_CDLA),
    "wikipedia_en": Source("CC BY-SA 3.0"),
    "textbooks": Source("CC BY 4.0"),
    "onestopenglish": Source(_CC_BY_SA),
    "self_dialogue": Source("BSD 3-Clause", "whole", _dialogues),
    "taskmaster4": Source("CC BY 4.0", "whole", _dialogues),
    "multiwoz21": Source("MIT", "whole", _dialogues),
    "topical_chat": Source(_CDLA, "whole", _dialogues),
    "schema_guided_dialogue": Source(_CC_BY_SA, "whole", _dialogues),
    "chatterbot_corpus": Source("BSD 3-Clause", "whole", _dialogues),
    "multidogo_customers": Source("CDLA-Permissive 1.0", "whole", _dialogues),
    "banking77": Source("CC BY 4.0", "lines"),
    "clinc150": Source("CC BY 3.0", "lines"),
    "bitext_customer_service": Source(_CDLA, "lines"),
    "snips": Source("CC0 1.0", "lines", _column("tokens")),
    "open_trivia_qa": Source(_CC_BY_SA, "lines", _questions),
    "e2e_nlg": Source(_CC_BY_SA, "lines", _column("target")),
    **{f"tatoeba_en_{to}": Source("CC BY 2.0 FR", "lines", _column("source")) for to in ("es", "fr", "de", "zh")},
}
SCORED_ONLY = {"imdb": "test", "abc_news": "test", "wikitext2": "test", "ptb": "test"}  # never trained on


def held_out_texts(names: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the documents that are never trained on, by set and part ("story_books/valid").

    Args:
        names: Of SOURCES and SCORED_ONLY; all of both unless given. Of a dialogue set with a valid part alone every second dialogue
            makes up its test part.
    """
    held_out: dict[str, list[str]] = {}
    for name in (*SOURCES, *SCORED_ONLY) if names is None else names:
        frame = load_dataset(name)
        if name in SCORED_ONLY:
            held_out[f"{name}/{SCORED_ONLY[name]}"] = frame.loc[frame["split"] == SCORED_ONLY[name], "text"].tolist()
            continue
        parts = {split: SOURCES[name].texts(rows) for split, rows in frame.groupby("split") if split != "train"}
        if set(parts) == {"valid"} and SOURCES[name].form == "whole":
            parts = {"valid": parts["valid"][::2], "test": parts["valid"][1::2]}
        held_out |= {f"{name}/{split}": texts for split, texts in parts.items()}
    return held_out


def gather_documents(*, seed: int = SEED) -> Iterator[tuple[str, list[str], dict[str, int]]]:
    """Yield each source's name, its training documents, and its numbers of paragraphs and of paragraphs_left_out.

    Left out is what shares SHARED_WORDS words in a row with a held-out text, repeats a paragraph of at least REPEAT_CHARS
    characters, or repeats a line of a set of lines (held-out lines among them); letter case, punctuation and digits ignored.
    """
    held_out = held_out_texts()
    words: dict[str, int] = {}
    known = np.unique(np.concatenate([_ngram_codes(text, words) for texts in held_out.values() for text in texts]))
    seen = {_code(text) for name, texts in held_out.items() for text in texts if _form(name) == "lines"}
    rng = np.random.default_rng(seed)
    for name, source in SOURCES.items():
        frame = load_dataset(name, split="train")
        counts = {"paragraphs": 0, "paragraphs_left_out": 0}
        documents: list[str] = []
        for text in source.texts(frame):
            remaining = []
            units = text.split("\n") if source.form == "paragraphs" else [text]
            for unit in units:
                code = _code(unit) if len(unit) >= REPEAT_CHARS or source.form == "lines" else None
                counts["paragraphs"] += bool(unit)
                if code in seen or (unit and _any_in(_ngram_codes(unit, words), known)):
                    counts["paragraphs_left_out"] += 1
                else:
                    remaining.append(unit)
                seen |= {code} - {None}
            documents += _parts(remaining)
        if source.form == "lines":
            lines = [documents[i] for i in rng.permutation(len(documents))]
            documents = ["\n".join(lines[i : i + LINES_PER_DOCUMENT]) for i in range(0, len(lines), LINES_PER_DOCUMENT)]
        yield name, documents, counts


def _form(name: str) -> str:
    """Return the form of a held-out set such as "snips/test"."""
    source = SOURCES.get(name.split("/")[0])
    return source.form if source else ""


def _parts(paragraphs: list[str]) -> Iterator[str]:
    """Join paragraphs to documents of about PART_CHARS characters at most."""
    part: list[str] = []
    length = 0
    for paragraph in paragraphs:
        part.append(paragraph)
        length += len(paragraph)
        if length >= PART_CHARS and not paragraph:
            yield _joined(part)
            part, length = [], 0
    if any(part):
        yield _joined(part)


def _joined(paragraphs: list[str]) -> str:
    """Join lines, with one empty line at most where some were left out between them."""
    lines = [line for i, line in enumerate(paragraphs) if line or (i and paragraphs[i - 1])]
    return "\n".join(lines).strip()


def _code(text: str) -> bytes:
    return hashlib.blake2b(normalise_text(text).encode(), digest_size=12).digest()


def _ngram_codes(text: str, words: dict[str, int]) -> np.ndarray:
    """Return one 64-bit code for each n-gram of SHARED_WORDS words of `text`; `words` numbers the words and grows."""
    numbers = np.array([words.setdefault(word, len(words)) for word in normalise_text(text).split()], dtype="uint64")
    if len(numbers) < SHARED_WORDS:
        return np.zeros(0, dtype="uint64")
    ngrams = np.lib.stride_tricks.sliding_window_view(numbers + np.uint64(1), SHARED_WORDS)
    powers = np.array([pow(0x9E3779B97F4A7C15, k, 2**64) for k in range(SHARED_WORDS)], dtype="uint64")
    return (ngrams * powers).sum(axis=1, dtype="uint64")


def _any_in(codes: np.ndarray, known: np.ndarray) -> bool:
    """Whether one of `codes` is in the sorted array `known`."""
    positions = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return bool((known[positions] == codes).any())


def write_documents(folder: Path, *, seed: int = SEED) -> pd.DataFrame:
    """Write all training documents to documents.jsonl in `folder`, and the table sources.csv; unless they are there.

    Returns:
        One row a source: source, licence, documents, bytes, paragraphs, paragraphs_left_out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, path = folder / "sources.csv", folder / "documents.jsonl"
    if table.exists():
        return pd.read_csv(table)
    rows = []
    with atomic_write(path) as file:
        for name, documents, counts in gather_documents(seed=seed):
            file.writelines(json.dumps([name, text], ensure_ascii=False) + "\n" for text in documents)
            size = sum(len(text.encode()) for text in documents)
            rows.append({"source": name, "licence": SOURCES[name].licence, "documents": len(documents), "bytes": size} | counts)
    with atomic_write(table) as file:
        pd.DataFrame(rows).to_csv(file, index=False)
    return pd.read_csv(table)


def _read_documents(folder: Path) -> Iterator[tuple[str, str]]:
    with open(folder / "documents.jsonl", encoding="utf-8") as file:
        yield from (json.loads(line) for line in file)


def encode_text(folder: Path, *, vocab_size: int, seed: int = SEED) -> tuple[Tokenizer, Path]:
    """Train a vocabulary on every second document and encode all of them, unless it is done.

    Args:
        folder: Of the documents. The results are put into its folder vocab_<vocab_size>: tokenizer.json, tokens.npy and
            valid.npy (uint16, <end> after each document), sources.csv with tokens per source.
        vocab_size: Number of token ids.
        seed: Of the order of short lines.

    Returns:
        The tokeniser and its folder.
    """
    work = folder / f"vocab_{vocab_size}"
    if (work / "sources.csv").exists():
        return Tokenizer.load(work / "tokenizer.json"), work
    table = write_documents(folder, seed=seed).set_index("source")
    work.mkdir(exist_ok=True)
    tokenizer = train_bpe_tokenizer((text for i, (_, text) in enumerate(_read_documents(folder)) if i % 2 == 0), vocab_size=vocab_size)
    tokenizer.save(work / "tokenizer.json")
    groups = itertools.groupby(_read_documents(folder), key=lambda document: document[0])
    streams = {name: tokenizer.encode_documents(text for _, text in group).astype("uint16") for name, group in groups}
    held_out = held_out_texts()
    valid = [_cut(held_out[f"{name}/valid"], VALID_CHARS) for name in VALIDATION_SETS]
    _save(work / "tokens.npy", np.concatenate(list(streams.values())))
    _save(work / "valid.npy", tokenizer.encode_documents(valid).astype("uint16"))
    table["tokens"] = [len(streams[name]) for name in table.index]
    with atomic_write(work / "sources.csv") as file:
        table.reset_index().to_csv(file, index=False)
    return tokenizer, work


def _save(path: Path, values: np.ndarray) -> None:
    with atomic_write(path, "wb") as file:
        np.save(file, values)


def _cut(texts: list[str], num_chars: int) -> str:
    """Return the beginnings of all `texts`, together about `num_chars` characters long."""
    share = max(200, num_chars // len(texts))
    return "\n\n".join(text[:share] for text in texts)[:num_chars]
