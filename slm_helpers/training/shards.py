"""A collection of texts to files of token ids, by any number of processes, and one stream of tokens read from these files.

    python -m slm_helpers.training.shards --text FILE --tokenizer FILE --out DIR [--workers N]

The unit of work is a shard: so many rows of the file, in its order. What a shard holds depends on the file alone, and on nothing that
the number of workers changes. Worker w of n makes the shards w, w + n, w + 2 n and so on.
"""

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slm_helpers._checks import check_positive, check_share
from slm_helpers._signals import exit_on_sigterm
from slm_helpers.data.files import atomic_write, read_rows, sha256_of
from slm_helpers.text.tokenizers import Tokenizer, train_char_tokenizer
from slm_helpers.training.workers import WorkersFailed, connect_to_launcher, run_workers

import numpy as np
import pandas as pd

SPLITS = ("train", "valid")


def write_shards(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    rows_per_shard: int = 1000,
    valid_share: float = 0.0,
    worker: int = 0,
    workers: int = 1,
    on_shard: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> int:
    """Write the shards of one worker; memory holds one shard, and 8 bytes of hash for each different text.

    A text that has stood before is left out. Which split a text belongs to follows from its hash, not from its place.

    Args:
        texts: All texts, in order, the same for every worker.
        tokenizer: Encodes them; <end> follows each.
        out: Folder for the files shard-00000.train.npy, shard-00000.valid.npy and shard-00000.json.
        rows_per_shard: Texts in a shard, repeated ones among them.
        valid_share: Of the texts, that go to valid.
        worker: Which worker this is, from 0.
        workers: How many there are.
        on_shard: Told of each shard that was written: shard, rows, repeated, train_tokens, valid_tokens.

    Returns:
        The number of shards of all workers.
    """
    check_positive(rows_per_shard=rows_per_shard, workers=workers)
    check_share(valid_share=valid_share)
    if not 0 <= worker < workers:
        raise ValueError(f"worker is {worker}, but must lie in 0..{workers - 1}.")
    seen: set[bytes] = set()
    number = -1
    for number, rows in enumerate(_chunks(texts, rows_per_shard)):
        hashes = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in rows]
        kept = []
        # Every worker reads and hashes all rows: so each knows what has stood before, and nobody has to ask.
        for text, code in zip(rows, hashes, strict=True):
            if code not in seen:
                seen.add(code)
                kept.append((text, int.from_bytes(code, "big") / 2**64 < valid_share))
        if number % workers == worker:
            on_shard(_write_shard(Path(out), number, kept, tokenizer) | {"rows": len(rows), "repeated": len(rows) - len(kept)})
    if number < 0:
        raise ValueError("There is no text to make shards of.")
    return number + 1


def prepare_shards(
    source: str | Path, tokenizer_file: str | Path, out: str | Path, *, workers: int = 1, column: str = "text", **settings: Any
) -> pd.DataFrame:
    """Make the shards of a file with `workers` processes, and index.json, which says that all are there.

    Args:
        source: A file with a column of texts, see `read_rows`.
        tokenizer_file: What `Tokenizer.save` wrote.
        out: Folder; shards that stand there are written anew.
        workers: Processes.
        column: That of the texts.
        settings: `rows_per_shard` and `valid_share` of `write_shards`.

    Returns:
        One row a shard: shard, worker, rows, repeated, train_tokens, valid_tokens.
    """
    check_positive(workers=workers)
    shards: list[dict[str, Any]] = []
    totals: set[int] = set()

    def note(report: dict[str, Any]) -> None:
        worker = report.pop("rank")
        report.pop("pid")
        if "total" in report:
            totals.add(report["total"])
        else:
            shards.append(report | {"worker": worker})

    for old in [Path(out) / "index.json", *Path(out).glob("shard-*.npy")]:
        old.unlink(missing_ok=True)  # an index must not vouch for files that are being replaced
    job = {"source": str(source), "tokenizer": str(tokenizer_file), "out": str(out), "workers": workers, "column": column} | settings
    command = [sys.executable, "-m", "slm_helpers.training.shards", "--worker"]
    run_workers([command] * workers, [job | {"worker": worker} for worker in range(workers)], on_report=note)
    table = pd.DataFrame(shards).sort_values("shard", ignore_index=True)
    if totals != {len(table)}:
        raise WorkersFailed(f"The workers counted {sorted(totals)} shards and wrote {len(table)}: the file changed while it was read.")
    files = {path.name: sha256_of(path) for path in sorted(Path(out).glob("shard-*.npy"))}
    with atomic_write(Path(out) / "index.json") as file:
        json.dump({"vocab_size": Tokenizer.load(tokenizer_file).vocab_size, "shards": len(table), "files": files}, file, indent=1)
    return table[["shard", "worker", "rows", "repeated", "train_tokens", "valid_tokens"]]


def char_shards(texts: Sequence[str], folder: str | Path, *, workers: int = 1, rows_per_shard: int = 20, valid_share: float = 0.0) -> Path:
    """Make a character tokeniser and shards of a few texts: tokenizer.json, texts.jsonl and the folder shards, which is returned."""
    folder = Path(folder)
    train_char_tokenizer(texts).save(folder / "tokenizer.json")
    pd.DataFrame({"text": list(texts)}).to_json(folder / "texts.jsonl", orient="records", lines=True)
    settings = {"workers": workers, "rows_per_shard": rows_per_shard, "valid_share": valid_share}
    prepare_shards(folder / "texts.jsonl", folder / "tokenizer.json", folder / "shards", **settings)
    return folder / "shards"


class ShardedTokens:
    """One stream of token ids in many files, read where they are asked for: `WindowBatches` takes it in place of an array."""

    ndim = 1

    def __init__(self, folder: str | Path, split: str = "train"):
        """Open the shards that index.json names; raise FileNotFoundError if preparation has not ended."""
        index = Path(folder) / "index.json"
        if not index.exists():
            raise FileNotFoundError(f"{index} is missing: the shards are not complete. Run `python -m slm_helpers.training.shards` again.")
        facts = json.loads(index.read_text(encoding="utf-8"))
        self.vocab_size = facts["vocab_size"]
        names = sorted(name for name in facts["files"] if name.endswith(f".{split}.npy"))
        self.files = [np.load(Path(folder) / name, mmap_mode="r") for name in names]
        self.code = hashlib.sha256("".join(facts["files"][name] for name in names).encode()).hexdigest()[:16]
        self._ends = np.cumsum([len(file) for file in self.files])
        self.shape = (int(self._ends[-1]),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: slice | np.ndarray) -> np.ndarray:
        """Return the token ids at these positions, int32, in their shape; only what is asked for is read."""
        positions = np.arange(len(self))[positions] if isinstance(positions, slice) else np.asarray(positions)
        if positions.size and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"positions lie in {positions.min()}..{positions.max()}, but the stream has 0..{len(self) - 1}.")
        found = np.empty(positions.shape, "int32")
        numbers = np.searchsorted(self._ends, positions, side="right")
        for number in np.unique(numbers):
            here = numbers == number
            found[here] = self.files[number][positions[here] - (self._ends[number] - len(self.files[number]))]
        return found


def _chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _write_shard(out: Path, number: int, kept: list[tuple[str, bool]], tokenizer: Tokenizer) -> dict[str, Any]:
    facts: dict[str, Any] = {"shard": number}
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "int32"
    for split in SPLITS:
        texts = [text for text, is_valid in kept if is_valid == (split == "valid")]
        token_ids = tokenizer.encode_documents(texts).astype(dtype) if texts else np.zeros(0, dtype)
        with atomic_write(out / f"shard-{number:05d}.{split}.npy", "wb") as file:
            np.save(file, token_ids)
        facts[f"{split}_tokens"] = len(token_ids)
    return facts


def _read_texts(source: str, column: str) -> Iterator[str]:
    for row in read_rows(source):
        if column not in row:
            raise ValueError(f"{row.where}: there is no column {column!r}, but {', '.join(row)}. Name it with --column.")
        yield str(row[column])


def _work() -> None:
    job, report = connect_to_launcher()
    texts, tokenizer = _read_texts(job.pop("source"), job.pop("column")), Tokenizer.load(job.pop("tokenizer"))
    total = write_shards(texts, tokenizer, job.pop("out"), on_shard=report, **job)
    report({"total": total})


def main(arguments: list[str] | None = None) -> int:
    """Make shards by command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # its job comes through standard input
    parser.add_argument("--text", help="file with a column of texts")
    parser.add_argument("--column", default="text")
    parser.add_argument("--tokenizer", help="file that Tokenizer.save wrote, e.g. data/pretrained/slm-base-en/tokenizer.json")
    parser.add_argument("--out", help="folder for the shards")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--valid-share", type=float, default=0.0)
    options = parser.parse_args(arguments)
    if options.worker:
        _work()
        return 0
    if not (options.text and options.tokenizer and options.out):
        parser.error("--text, --tokenizer and --out are needed")
    settings = {"rows_per_shard": options.rows_per_shard, "valid_share": options.valid_share, "column": options.column}
    try:
        with exit_on_sigterm():
            table = prepare_shards(options.text, options.tokenizer, options.out, workers=options.workers, **settings)
    except (OSError, ValueError, WorkersFailed) as error:
        print(f"shards: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("shards: interrupted; all workers have ended", file=sys.stderr)
        return 130
    print(table.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
