"""Make the base model from scratch: gather the public pretraining text, learn the tokeniser, train for hours, write the folder.

    SLM_DATA_DIR=... python -m slm_helpers.recipes.pretrain

One command, one fixed seed. It may be stopped at any time: the same command goes on from the last checkpoint in runs/pretrain/.
"""

import argparse
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from slm_helpers._backend import keras
from slm_helpers._paths import PRETRAINED_DIR, RUNS_DIR
from slm_helpers._processor import describe_machine
from slm_helpers.baselines.language_model import KneserNeyModel
from slm_helpers.data.files import atomic_write
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.results import read_results, write_results
from slm_helpers.data.splits import normalise_text
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.metrics.intervals import bootstrap_interval
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.registry import BUILDERS
from slm_helpers.models.saved import load_pretrained, save_model
from slm_helpers.text.tokenizers import Tokenizer, train_bpe_tokenizer
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.streams import count_tokens_trained, evaluate_loss, fit_model

import numpy as np
import pandas as pd

SEED = 42
NETWORK = {"vocab_size": 8192, "cell": "gru", "embedding_dim": 256, "units": 768}
TRANSFORMER = {"builder": "build_transformer_language_model", "vocab_size": 8192, "size": 256, "num_layers": 3, "num_heads": 4}
TRAINING = TrainConfig(
    batch_size=128,
    window=64,
    optimizer="muon",
    learning_rate=5e-3,
    schedule="warmup_stable_decay",
    warmup_steps=200,
    weight_decay=0.02,
    eval_steps=500,
    carry_state=True,
    precision="auto",
    seed=SEED,
)

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
TRIALS = {
    "GRU 768, V 8192, Muon": (NETWORK, {}),
    "GRU 640, V 8192, Muon": (NETWORK | {"units": 640}, {}),
    "2 x GRU 512, V 8192, Muon": (NETWORK | {"units": 512, "num_layers": 2}, {}),
    "GRU 896, V 4096, Muon": (NETWORK | {"units": 896, "vocab_size": 4096}, {}),
    "GRU 768, V 4096, Muon": (NETWORK | {"vocab_size": 4096}, {}),
    "LSTM 640, V 8192, Muon": (NETWORK | {"units": 640, "cell": "lstm"}, {}),
    "GRU 768, V 8192, AdamW": (NETWORK, {"optimizer": "adamw", "learning_rate": 4e-3}),
    "GRU 768, V 8192, SGD with momentum": (NETWORK, {"optimizer": "momentum", "learning_rate": 0.5}),
    "GRU 768, V 8192, Muon, learning rate 0.015": (NETWORK, {"learning_rate": 0.015}),
    "GRU 768, V 8192, Muon, 32 lanes": (NETWORK, {"batch_size": 32}),
    "GRU 768, V 8192, Muon, 64 lanes of 128": (NETWORK, {"batch_size": 64, "window": 128}),
    "GRU 768, V 8192, Muon, state not carried": (NETWORK, {"carry_state": False}),
    "GRU 768, V 8192, Muon, dropout 0.1": (NETWORK | {"dropout": 0.1}, {}),
    "GRU 768, V 8192, Muon, float32": (NETWORK, {"precision": "float32"}),
    "Transformer 3 x 256, V 8192, Muon": (TRANSFORMER, {"batch_size": 32, "window": 256, "carry_state": False}),
    "Transformer 3 x 256, V 8192, Muon, learning rate 0.015": (
        TRANSFORMER,
        {"batch_size": 32, "window": 256, "carry_state": False, "learning_rate": 0.015},
    ),
    "Transformer 3 x 256, V 8192, Muon, 8 windows": (TRANSFORMER, {"batch_size": 8, "window": 256, "carry_state": False}),
    "Transformer 3 x 256, V 8192, AdamW": (
        TRANSFORMER,
        {"batch_size": 32, "window": 256, "carry_state": False, "optimizer": "adamw", "learning_rate": 2e-3},
    ),
}
SHARED_WORDS = 13  # a training paragraph with a run of this many words from a held-out text is left out
VALID_CHARS = 60_000  # of each source
WATTS_PER_CORE = 8  # assumed, for the estimate of energy: a server processor under load, memory and losses included
SCORED_CHARS = 600_000  # of each held-out set in the scores of the card
# A second round goes on from the first with the words in another order: at the level of the first the loss stood still from half of
# the first pass on and fell only where the rate did, so this one starts lower and falls all the way.
FURTHER = dataclasses.replace(TRAINING, learning_rate=1.5e-3, schedule="linear", seed=SEED + 1)
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


def prepare(folder: Path, *, vocab_size: int, seed: int = SEED) -> Tokenizer:
    """Write the tokeniser, all training text as token ids (tokens.npy, uint16) and a validation stream, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "sources.json").exists():
        return Tokenizer.load(folder / "tokenizer.json")
    texts, held_out, counts = gather_text(seed=seed)
    tokenizer = train_bpe_tokenizer(texts, vocab_size=vocab_size)
    tokenizer.save(folder / "tokenizer.json")
    valid = [_cut(held_out[name], VALID_CHARS) for name in held_out if name.endswith("/valid")]
    ids = tokenizer.encode_documents(texts).astype("uint16")
    for name, values in (("tokens", ids), ("valid", tokenizer.encode_documents(valid).astype("uint16"))):
        with atomic_write(folder / f"{name}.npy", "wb") as file:
            np.save(file, values)
    counts |= {"tokens": len(ids), "valid_bytes": sum(len(text.encode()) for text in valid)}
    with atomic_write(folder / "sources.json") as file:
        json.dump(counts, file, indent=1)
    return tokenizer


def pretrain(folder: Path, *, epochs: Sequence[int], start: str | None = None) -> tuple[keras.Model, Tokenizer, pd.DataFrame]:
    """Train, or go on training; checkpoints go into `folder`.

    Args:
        folder: Of text, tokeniser and checkpoints.
        epochs: Passes over the text in the first round, with the settings TRAINING, and in a second with FURTHER, if there is one.
        start: Name of a pretrained model that stands for a first round, which is not run then: its checkpoint need not be kept.

    Returns:
        Model, tokeniser and the history of all rounds; its `attrs["cpu_seconds"]` too are those of all.
    """
    tokenizer = prepare(folder, vocab_size=NETWORK["vocab_size"])
    tokens, valid = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", "valid"))
    keras.utils.set_random_seed(SEED)
    model = build_language_model(**NETWORK)
    rounds = [dataclasses.replace(config, epochs=n) for config, n in zip((TRAINING, FURTHER), epochs, strict=False)]
    histories = []
    for i, config in enumerate(rounds):
        if i == 0 and start is not None:
            histories.append(_take_over(model, tokenizer, start, epochs=epochs[0]))
            continue
        place = folder if i == 0 else folder / "further"
        histories.append(fit_model(model, tokens, np.asarray(valid), config=config, checkpoint_dir=place, checkpoint_steps=500))
    history = _one_after_the_other(histories)
    return model, tokenizer, history


def _take_over(model: keras.Model, tokenizer: Tokenizer, name: str, *, epochs: int) -> pd.DataFrame:
    """Put the weights of a pretrained model into `model`; returns its history."""
    base = load_pretrained(name)
    if base.tokenizer.vocabulary != tokenizer.vocabulary:
        raise ValueError(f"{name} has another vocabulary than this text gives: the text has changed. Train from scratch, without --start.")
    history = pd.read_csv(base.folder / "history.csv")
    if history["epoch"].max() != epochs:
        raise ValueError(f"{name} has read the text {history['epoch'].max():g} times, so it cannot stand for a first round of {epochs}.")
    model.set_weights(base.model.get_weights())
    history.attrs["cpu_seconds"] = base.settings["cost"]["core_hours"] * 3600
    return history


def _one_after_the_other(histories: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the histories of rounds into one whose steps, epochs and seconds run on."""
    joined = histories[0]
    for history in histories[1:]:
        counts = ["step", "epoch", "seconds"]
        cpu_seconds = joined.attrs["cpu_seconds"] + history.attrs["cpu_seconds"]
        joined = pd.concat([joined, history.assign(**(history[counts] + joined[counts].max()))], ignore_index=True)
        joined.attrs["cpu_seconds"] = cpu_seconds
    return joined


def run_trials(work: Path, *, seconds: float, names: list[str] | None = None) -> None:
    """Train each of TRIALS for the same time and write bits per byte on held-out text to data/results/pretraining_trials.csv.

    Scored on the valid parts of all sources, in windows of 256 tokens from a zero state. Trials in the table are not run again.
    """
    known = set(read_results("pretraining_trials")["model"])
    for name, (network, changes) in TRIALS.items():
        if name in known or (names and name not in names):
            continue
        network = dict(network)
        build = BUILDERS[network.pop("builder", "build_language_model")]
        folder = work / f"vocab_{network['vocab_size']}"
        prepare(folder, vocab_size=network["vocab_size"])
        counts = json.loads((folder / "sources.json").read_text(encoding="utf-8"))
        tokens, valid = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("tokens", "valid"))
        keras.utils.set_random_seed(SEED)
        model = build(**network)
        config = dataclasses.replace(TRAINING, epochs=100, schedule="cosine", max_seconds=seconds, eval_steps=0, **changes)
        history = fit_model(model, tokens, config=config)
        loss = evaluate_loss(model, np.asarray(valid), window=256)
        row = {"task": "lm", "dataset": "pretraining", "split": "valid", "model": name, "seed": SEED, "train_seconds": seconds}
        row |= {"num_parameters": model.count_params(), "train_rows": count_tokens_trained(history, config)}
        bits = loss / math.log(2) * len(valid) / counts["valid_bytes"]
        speed = row["train_rows"] / history["seconds"].iloc[-1]
        write_results(
            "pretraining_trials", [row | {"metric": "bits_per_byte", "value": bits}, row | {"metric": "tokens_per_second", "value": speed}]
        )
        print(f"{name}: {bits:.3f} bits per byte, {speed:,.0f} tokens a second", flush=True)
        keras.backend.clear_session()


def score_held_out(
    model: keras.Model, tokenizer: Tokenizer, tokens: np.ndarray, held_out: dict[str, list[str]], *, work: Path
) -> pd.DataFrame:
    """Score the model, and n-gram models of the same training tokens, on held-out documents (long ones in pieces, evenly picked).

    The scores of the n-gram models take minutes and some gigabytes, and stay the same while the model is trained further: they are
    kept in `work` / ngram_nats.npz, which may be removed.

    Returns:
        One row a set and model: dataset, split, model, bits_per_byte, ci_low, ci_high (95 %, over documents), num_bytes, and
        reduction, the share of bits saved against the best n-gram model, with its interval (paired, over the same documents).
    """
    generator = TextGenerator(model, tokenizer)
    samples = {name: _pick([piece for text in texts for piece in _pieces(text.split("\n\n"))]) for name, texts in held_out.items()}
    nats = {(name, "slm"): np.array([losses.sum() for losses in generator.text_losses(texts)]) for name, texts in samples.items()}
    nats |= _ngram_nats(work, tokenizer, tokens, samples)
    rows = []
    for name, texts in samples.items():
        sizes = np.array([len(text.encode()) for text in texts])
        names = [model for dataset, model in nats if dataset == name]
        best = min((n for n in names if n != "slm"), key=lambda n: nats[name, n].sum())
        for key in names:
            bits, low, high = _ratio_with_interval(nats[name, key] / math.log(2), sizes)
            kept, kept_low, kept_high = _ratio_with_interval(nats[name, key], nats[name, best])
            saved = {"reduction": 1 - kept, "reduction_low": 1 - kept_high, "reduction_high": 1 - kept_low}
            dataset, split = name.split("/")
            rows.append(
                {"dataset": dataset, "split": split, "model": key, "bits_per_byte": bits, "ci_low": low, "ci_high": high}
                | saved
                | {"num_documents": len(texts), "num_bytes": int(sizes.sum())}
            )
    return pd.DataFrame(rows)


def _ngram_nats(work: Path, tokenizer: Tokenizer, tokens: np.ndarray, samples: dict[str, list[str]]) -> dict[tuple[str, str], np.ndarray]:
    """Return the nats of each text under Kneser-Ney models of 3 to 5 tokens, by data set and model."""
    path, checksum = work / "ngram_nats.npz", int(np.sum(tokens, dtype="int64"))
    if path.exists():
        with np.load(path) as file:
            kept = {key: file[key] for key in file.files}
        if kept.pop("checksum") == checksum:
            return {tuple(key.split(" ")): values for key, values in kept.items()}
    nats = {}
    for order in (3, 4, 5):
        counted = KneserNeyModel(order, tokenizer.vocab_size).fit(tokens)
        for name, texts in samples.items():
            streams = [np.concatenate([[tokenizer.end_id], tokenizer.encode(text)]) for text in texts]
            nats[name, f"kneser-ney-{order}"] = np.array([-counted.log_probs(stream)[1:].sum() for stream in streams])
        del counted
    with atomic_write(path, "wb") as file:
        np.savez(file, checksum=checksum, **{" ".join(key): values for key, values in nats.items()})
    return nats


def _pick(pieces: list[str]) -> list[str]:
    """Return pieces spread evenly over all, about SCORED_CHARS together."""
    share = min(1.0, SCORED_CHARS / sum(map(len, pieces)))
    return [pieces[int(i / share)] for i in range(max(1, int(len(pieces) * share)))]


def _ratio_with_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float, float]:
    """Return sum(above) / sum(below) with its 95 % bootstrap interval; nan bounds for fewer than five documents."""
    ratio = float(above.sum() / below.sum())
    if len(above) < 5:
        return ratio, math.nan, math.nan
    return ratio, *bootstrap_interval(lambda a, b: a.sum() / b.sum(), above, below)


def _cut(texts: list[str], num_chars: int) -> str:
    """Return the beginnings of all `texts`, together about `num_chars` long."""
    share = max(200, num_chars // len(texts))
    return "\n\n".join(text[:share] for text in texts)[:num_chars]


def publish(work: Path, *, epochs: Sequence[int], start: str | None = None, name: str = "slm-base-en") -> Path:
    """Write data/pretrained/<name> and its scores in data/results/pretraining.csv from a run that has ended, see `pretrain`."""
    model, tokenizer, history = pretrain(work, epochs=epochs, start=start)
    tokens = np.load(work / "tokens.npy", mmap_mode="r")
    counts = json.loads((work / "sources.json").read_text(encoding="utf-8"))
    _, held_out, _ = gather_text()
    # The weights are published in half precision, so that is what is scored.
    for weight in model.weights:
        weight.assign(keras.ops.convert_to_numpy(weight).astype("float16").astype("float32"))
    scores = score_held_out(model, tokenizer, tokens, held_out, work=work)
    trained = int(history["step"].max()) * TRAINING.batch_size * TRAINING.window
    cost = {
        "tokens_read": trained,
        "passes": trained / len(tokens),
        "core_hours": history.attrs["cpu_seconds"] / 3600,
        "operations": 6.0 * sum(int(np.prod(w.shape)) for w in model.weights if len(w.shape) == 2 and "bias" not in w.path) * trained,
    }
    cost["watt_hours"] = cost["core_hours"] * WATTS_PER_CORE
    best = scores[(scores["model"] == "slm") & (scores["split"] == "test")]
    metrics = {
        f"bits_per_byte/{row.dataset}": {"value": row.bits_per_byte}
        | ({} if math.isnan(row.ci_low) else {"ci_low": row.ci_low, "ci_high": row.ci_high})
        for row in best.itertuples()
    }
    folder = save_model(
        PRETRAINED_DIR / name,
        model,
        tokenizer=tokenizer,
        settings={"training": dataclasses.asdict(TRAINING), "further": dataclasses.asdict(FURTHER), "epochs": list(epochs), "cost": cost},
        metrics=metrics,
        history=history,
        card=_card(name, model, epochs, counts, cost, scores),
        weights_dtype="float16",
    )
    shared = {"task": "lm", "metric": "bits_per_byte", "seed": SEED, "train_rows": len(tokens)}
    mine = {"num_parameters": model.count_params(), "size_bytes": (folder / "weights.safetensors").stat().st_size}
    mine["train_seconds"] = history.attrs["cpu_seconds"] / 2
    rows = []
    for row in scores.itertuples():
        about = {"dataset": row.dataset, "split": row.split, "model": name if row.model == "slm" else row.model}
        values = {"value": row.bits_per_byte, "ci_low": row.ci_low, "ci_high": row.ci_high}
        rows.append(shared | about | values | (mine if row.model == "slm" else {}))
        if row.model == "slm":
            saved = {"value": row.reduction, "ci_low": row.reduction_low, "ci_high": row.reduction_high}
            rows.append(shared | about | saved | {"metric": "share_saved_against_best_ngram"})
    write_results("pretraining", rows)
    return folder


def _card(name: str, model: keras.Model, epochs: Sequence[int], counts: dict, cost: dict, scores: pd.DataFrame) -> str:
    """Return the model card in Markdown."""
    lines = []
    for (dataset, split), rows in scores.groupby(["dataset", "split"], sort=False):
        rows = rows.set_index("model")
        ours, counted = rows.loc["slm"], rows.drop("slm")["bits_per_byte"]
        interval = "one document" if math.isnan(ours["ci_low"]) else f"{ours['ci_low']:.3f} to {ours['ci_high']:.3f}"
        lines.append(
            f"| {dataset} ({split}) | {ours['bits_per_byte']:.3f} | {interval} | {counted.min():.3f} "
            f"({counted.idxmin()}) | {100 * ours['reduction']:.1f} % |"
        )
    return f"""# {name}
A recurrent language model for English, the start of the application pages: load it with `load_pretrained("{name}")`.

- **Network.** Embedding of {NETWORK["vocab_size"]:,} byte-level BPE tokens x {NETWORK["embedding_dim"]}, one GRU of {NETWORK["units"]}
  units, projection, output tied to the embedding; {model.count_params():,} weights, stored as float16.
- **Data.** {counts["bytes"] / 1e6:.0f} MB of public text, {counts["tokens"]:,} tokens, training parts only: {", ".join(SOURCES)}.
  {counts["paragraphs_left_out"]:,} of {counts["paragraphs"]:,} paragraphs were left out, for they repeat or share {SHARED_WORDS} words
  with a held-out text. Books: public domain in the USA; Wikipedia: CC BY-SA 3.0; fairytaleqa: Apache 2.0; tinystories:
  CDLA-Sharing 1.0; film reviews (imdb) and ABC news: free for research only, so ask before you ship a product on this model.
  No text of them is in the repository.
- **Training.** {cost["tokens_read"]:,} tokens ({cost["passes"]:.1f} passes), {TRAINING.optimizer}, {TRAINING.batch_size} windows of
  {TRAINING.window} tokens with the state carried over: {epochs[0]} passes at a level rate of {TRAINING.learning_rate:g} that falls
  in the last fifth{f", {epochs[1]} at {FURTHER.learning_rate:g} falling all the way" if len(epochs) > 1 else ""}; bfloat16
  products where the processor has them, seed {SEED}.
  Again from scratch: `SLM_DATA_DIR=... python -m slm_helpers.recipes.pretrain`.
- **Cost.** {cost["core_hours"]:.1f} core-hours ({describe_machine()}), {cost["operations"]:.2g} floating-point operations, about
  {cost["watt_hours"]:.0f} Wh at an assumed {WATTS_PER_CORE} W a core (an estimate, nothing was metered).

## Scores
Bits per byte on held-out text, lower is better, each document (long ones in pieces of {PIECE_CHARS:,} characters) read from a zero
state; 95 % intervals over documents. Beside it the best Kneser-Ney model (3 to 5 tokens) counted on the same training text, and the
share of bits saved against it.

| text | bits per byte | interval | n-gram | saved |
| --- | --- | --- | --- | --- |
{chr(10).join(lines)}

## Limits
It writes English of the kind it read: old children's books, encyclopaedia, film reviews, some news. It knows few facts and
invents them freely, loses the thread after some sentences, repeats the prejudices of its sources, and is no chat model: fine-tune
it. wikitext2 and ptb are written in a tokenised form it never read.
"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m slm_helpers.recipes.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[3, 1], help="passes over the text of each round; half an hour each or more"
    )
    parser.add_argument("--start", metavar="NAME", help="a pretrained model that stands for the first round")
    parser.add_argument("--work", type=Path, default=RUNS_DIR / "pretrain", help="folder of tokens and checkpoints")
    parser.add_argument("--trials", type=float, metavar="SECONDS", help="instead, train each of the small trials for this long")
    options = parser.parse_args(arguments)
    if options.trials:
        run_trials(options.work, seconds=options.trials)
        return
    print(f"Written: {publish(options.work, epochs=options.epochs, start=options.start)}")


if __name__ == "__main__":
    main()
