"""Make the base model from scratch: gather the public pretraining text, train the tokeniser, train for hours, write the folder.

    SLM_DATA_DIR=... python -m slm_helpers.recipes.pretrain

One command, one fixed seed. It may be stopped at any time: the same command continues from the last checkpoint in runs/pretrain/.
`--snapshot FOLDER` saves the averaged weights of a run that is still going on, and `--start FOLDER` begins another run with them.
"""

import argparse
import dataclasses
import math
import re
import time
from pathlib import Path

from slm_helpers._backend import keras
from slm_helpers._paths import PRETRAINED_DIR, RUNS_DIR
from slm_helpers._processor import describe_machine
from slm_helpers.baselines.language_model import KneserNeyModel
from slm_helpers.data.files import atomic_write
from slm_helpers.data.results import read_results, write_results
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.registry import BUILDERS
from slm_helpers.models.saved import load_model, save_model
from slm_helpers.recipes.language_model_scores import cut_parts, ratio_with_interval
from slm_helpers.recipes.pretraining_text import PART_CHARS, SHARED_WORDS, encode_text, held_out_texts
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.streams import evaluate_loss, fit_model, load_checkpoint

import numpy as np
import pandas as pd

SEED = 42
NETWORK = {"vocab_size": 8192, "cell": "gru", "embedding_dim": 256, "units": 1024}
TRAINING = TrainConfig(
    batch_size=64,
    window=64,
    optimizer="muon",
    learning_rate=5e-3,
    muon_columns=256,
    adam_share=0.2,
    schedule="warmup_stable_decay",
    decay_share=0.45,
    warmup_steps=100,
    weight_decay=0.02,
    eval_steps=500,
    carry_state=True,
    shuffle_documents=True,
    ema_decay=0.999,
    precision="float32",
    seed=SEED,
)

# The queue of trials: small networks on few tokens, so that many settings can be compared, and what differs from TRAINING. The best rate
# depends on the length of a run, so these compare optimisers, schedules and structures, each near its own best rate. The embeddings learn
# at a tenth of the rate unless the name says otherwise.
PROXY = {"vocab_size": 8192, "cell": "gru", "embedding_dim": 64, "units": 192}
WIDE = {"vocab_size": 8192, "cell": "gru", "embedding_dim": 128, "units": 384}
SHORT = {"batch_size": 32, "warmup_steps": 30, "adam_share": 0.1}  # of a few hundred steps
TRIALS: dict[str, tuple[dict, dict]] = {
    "Muon 0.01, embeddings 0.01": (PROXY, SHORT | {"learning_rate": 0.01, "adam_share": 1.0}),
    "Muon 0.01": (PROXY, SHORT | {"learning_rate": 0.01}),
    "AdamW 0.005": (PROXY, SHORT | {"optimizer": "adamw", "learning_rate": 0.005}),
    "Muon 0.02": (PROXY, SHORT | {"learning_rate": 0.02}),
    "Muon 0.01, embeddings 0.003": (PROXY, SHORT | {"learning_rate": 0.01, "adam_share": 0.3}),
    "Muon 0.01, orthogonal in 48 columns": (PROXY, SHORT | {"learning_rate": 0.01, "muon_columns": 48}),
    "AdamW 0.01": (PROXY, SHORT | {"optimizer": "adamw", "learning_rate": 0.01}),
    "Muon 0.02, 64 streams": (PROXY, SHORT | {"learning_rate": 0.02, "batch_size": 64}),
    "Muon 0.02, cosine": (PROXY, SHORT | {"learning_rate": 0.02, "schedule": "cosine"}),
    "Muon 0.02, linear to zero": (PROXY, SHORT | {"learning_rate": 0.02, "schedule": "linear"}),
    "Muon 0.02, weight decay 0.1": (PROXY, SHORT | {"learning_rate": 0.02, "weight_decay": 0.1}),
    "Muon 0.02, 16 streams of 128": (PROXY, SHORT | {"learning_rate": 0.02, "batch_size": 16, "window": 128}),
    # Structure, vocabulary and window, all at one rate, then second seeds.
    "GRU 384": (WIDE, SHORT | {"learning_rate": 0.01}),
    "2 x GRU 288": (WIDE | {"units": 288, "num_layers": 2}, SHORT | {"learning_rate": 0.01}),
    "GRU 448, vocabulary 4,096": (WIDE | {"vocab_size": 4096, "units": 448}, SHORT | {"learning_rate": 0.01}),
    "GRU 320, vocabulary 12,288": (WIDE | {"vocab_size": 12288, "units": 320}, SHORT | {"learning_rate": 0.01}),
    "GRU 352, embedding 192": (WIDE | {"embedding_dim": 192, "units": 352}, SHORT | {"learning_rate": 0.01}),
    "GRU 384, windows of 256, 8 streams": (WIDE, SHORT | {"learning_rate": 0.01, "batch_size": 8, "window": 256}),
    "Muon 0.02, second seed": (PROXY, SHORT | {"learning_rate": 0.02, "seed": SEED + 1}),
    "AdamW 0.01, second seed": (PROXY, SHORT | {"optimizer": "adamw", "learning_rate": 0.01, "seed": SEED + 1}),
    "GRU 384, second seed": (WIDE, SHORT | {"learning_rate": 0.01, "seed": SEED + 1}),
    "2 x GRU 288, second seed": (WIDE | {"units": 288, "num_layers": 2}, SHORT | {"learning_rate": 0.01, "seed": SEED + 1}),
}
TRIAL_TOKENS = 1_000_000
WATTS_PER_CORE = 8  # assumed, for the estimate of energy: a server processor under load, memory and losses included
SCORED_CHARS = 600_000  # of each held-out set in the scores of the card


def pretrain(work: Path, *, epochs: int, start: Path | None = None) -> tuple[keras.Model, Tokenizer, pd.DataFrame]:
    """Train, or continue training; checkpoints go into `work` / run.

    Args:
        work: Folder of text, tokeniser and checkpoints.
        epochs: Passes over the text; the rate is constant until the last `decay_share` of them.
        start: A model folder whose weights training begins with, e.g. a snapshot of an earlier run, instead of random ones.

    Returns:
        Model with the averaged weights, tokeniser and history.

    Raises:
        ValueError: If the vocabulary of `start` is another one, or the checkpoint in `work` belongs to another run.
    """
    tokenizer, tokens, valid = _read_text(work, vocab_size=NETWORK["vocab_size"])
    keras.utils.set_random_seed(SEED)
    model = build_language_model(**NETWORK)
    if start is not None:
        saved = load_model(start, task="lm")
        if saved.tokenizer.vocabulary != tokenizer.vocabulary:
            raise ValueError(f"{start} has another vocabulary than this text gives: the text has changed. Train from random weights.")
        model.set_weights(saved.model.get_weights())
    config = dataclasses.replace(TRAINING, epochs=epochs)
    history = fit_model(model, tokens, valid, config=config, checkpoint_dir=work / "run", checkpoint_steps=50)
    return model, tokenizer, history


def _read_text(work: Path, *, vocab_size: int) -> tuple[Tokenizer, np.ndarray, np.ndarray]:
    """Return the tokeniser, the training tokens as a memory map, and the validation stream; they are made if they are not there."""
    tokenizer, folder = encode_text(work, vocab_size=vocab_size)
    return tokenizer, np.load(folder / "tokens.npy", mmap_mode="r"), np.load(folder / "valid.npy")


def run_trials(work: Path, *, num_tokens: int = TRIAL_TOKENS, names: list[str] | None = None) -> None:
    """Train each of TRIALS on the same `num_tokens` tokens, once, and write its rows to data/results/pretraining_protocol.csv.

    Equal tokens, not equal time: the machine may be shared. The validation stream is scored in windows of 256 tokens from a zero
    state, with the averaged and with the last weights. A trial that was stopped continues from its checkpoint; one in the table
    is not run again.

    Args:
        work: Folder of text and checkpoints.
        num_tokens: Of each trial, in whole documents, so a few more.
        names: Of the trials to run; all unless given.
    """
    done = set(read_results("pretraining_protocol")["model"])
    for name, (network, changes) in TRIALS.items():
        if name in done or (names and name not in names):
            continue
        tokenizer, tokens, valid = _read_text(work, vocab_size=network["vocab_size"])
        config = dataclasses.replace(TRAINING, epochs=1, eval_steps=10**9, **changes)
        sizes = dict(network)
        keras.utils.set_random_seed(config.seed)
        model = BUILDERS[sizes.pop("builder", "build_language_model")](**sizes)
        last = _LastWeights()
        sample = sample_documents(np.asarray(tokens), num_tokens=num_tokens, end_id=tokenizer.end_id)
        folder = work / "trials" / re.sub(r"\W+", "_", name)
        history = fit_model(model, sample, config=config, callbacks=[last], checkpoint_dir=folder, checkpoint_steps=200)
        averaged = _valid_bits(model, valid, tokenizer)
        model.set_weights(last.weights)
        row = {"task": "lm", "dataset": "pretraining text", "split": "valid", "model": name, "seed": config.seed, "train_rows": len(sample)}
        row |= {"num_parameters": model.count_params(), "train_seconds": history["seconds"].iloc[-1]}
        values = {"bits_per_byte_averaged": averaged, "bits_per_byte": _valid_bits(model, valid, tokenizer)}
        write_results("pretraining_protocol", [row | {"metric": metric, "value": value} for metric, value in values.items()])
        print(f"{time.strftime('%H:%M')} {name}: {values}, {history['seconds'].iloc[-1]:.0f} s", flush=True)
        keras.backend.clear_session()


class _LastWeights(keras.callbacks.Callback):
    """Note the weights after the last step, before the averaged ones take their place."""

    def on_train_end(self, logs: dict | None = None) -> None:
        self.weights = self.model.get_weights()


def sample_documents(tokens: np.ndarray, *, num_tokens: int, end_id: int, seed: int = SEED) -> np.ndarray:
    """Return whole documents drawn at random from `tokens`, which end with `end_id`, together at least `num_tokens` long, or all."""
    bounds = np.concatenate([[0], np.flatnonzero(tokens == end_id) + 1])
    order = np.random.default_rng(seed).permutation(len(bounds) - 1)
    count = 1 + np.searchsorted(np.cumsum(np.diff(bounds)[order]), num_tokens)
    return np.concatenate([tokens[bounds[i] : bounds[i + 1]] for i in order[:count]])


def _valid_bits(model: keras.Model, valid: np.ndarray, tokenizer: Tokenizer) -> float:
    """Return the bits per byte of a validation stream in windows of 256 tokens."""
    loss = evaluate_loss(model, valid, window=256, batch_size=16)
    return loss / math.log(2) * len(valid) / len(tokenizer.decode(valid).encode())


def score_held_out(
    model: keras.Model, tokenizer: Tokenizer, tokens: np.ndarray, held_out: dict[str, list[str]], *, work: Path
) -> pd.DataFrame:
    """Score the model, and n-gram models of the same training tokens, on held-out documents (long ones in parts, evenly drawn).

    The scores of the n-gram models take minutes and some gigabytes, and stay the same while the model is trained further: they are
    kept in `work` / ngram_nats.npz, which may be removed.

    Returns:
        One row a set and model: dataset, split, model, bits_per_byte, ci_low, ci_high (95 %, over documents), num_bytes, and
        reduction, the share of bits saved against the best n-gram model, with its interval (paired, over the same documents).
    """
    generator = TextGenerator(model, tokenizer)
    samples = {name: _draw([part for text in texts for part in cut_parts(text)]) for name, texts in held_out.items()}
    nats = {(name, "slm"): np.array([losses.sum() for losses in generator.text_losses(texts)]) for name, texts in samples.items()}
    nats |= _ngram_nats(work, tokenizer, tokens, samples)
    rows = []
    for name, texts in samples.items():
        sizes = np.array([len(text.encode()) for text in texts])
        names = [model for dataset, model in nats if dataset == name]
        best = min((n for n in names if n != "slm"), key=lambda n: nats[name, n].sum())
        for key in names:
            bits, low, high = ratio_with_interval(nats[name, key] / math.log(2), sizes)
            ratio, ratio_low, ratio_high = ratio_with_interval(nats[name, key], nats[name, best])
            saved = {"reduction": 1 - ratio, "reduction_low": 1 - ratio_high, "reduction_high": 1 - ratio_low}
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
            cached = {key: file[key] for key in file.files}
        if cached.pop("checksum") == checksum:
            return {tuple(key.split(" ")): values for key, values in cached.items()}
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


def _draw(parts: list[str]) -> list[str]:
    """Return parts spread evenly over all, about SCORED_CHARS characters together."""
    share = min(1.0, SCORED_CHARS / sum(map(len, parts)))
    return [parts[int(i / share)] for i in range(max(1, int(len(parts) * share)))]


def averaged_model(work: Path) -> tuple[keras.Model, Tokenizer, pd.DataFrame]:
    """Return the averaged weights in the last checkpoint of a run, which may still be going on, with tokeniser and history.

    Raises:
        FileNotFoundError: If there is no checkpoint yet.
        ValueError: If it was written with other settings or another text.
    """
    tokenizer, tokens, valid = _read_text(work, vocab_size=NETWORK["vocab_size"])
    model = build_language_model(**NETWORK)
    config = dataclasses.replace(TRAINING, epochs=1)
    return model, tokenizer, load_checkpoint(model, tokens, valid, config=config, checkpoint_dir=work / "run")


def _cost(model: keras.Model, history: pd.DataFrame, sources: pd.DataFrame) -> dict[str, float]:
    """Return what training took: tokens, passes over the text, core-hours, floating-point operations, watt-hours."""
    weights = sum(int(np.prod(w.shape)) for w in model.weights if len(w.shape) == 2 and "bias" not in w.path)
    tokens_read = history.attrs["num_steps"] * TRAINING.batch_size * TRAINING.window
    cost = {"tokens_read": tokens_read, "passes": tokens_read / int(sources["tokens"].sum())}
    cost |= {"core_hours": history.attrs["cpu_seconds"] / 3600, "operations": 6.0 * weights * tokens_read}
    return cost | {"watt_hours": cost["core_hours"] * WATTS_PER_CORE}


def save_snapshot(work: Path, folder: Path) -> Path:
    """Save the averaged weights of an unfinished run as a model folder with int8 weights."""
    model, tokenizer, history = averaged_model(work)
    sources = _read_sources(work, tokenizer)
    cost = _cost(model, history, sources)
    card = "# Unfinished: averaged weights of a run of slm-base-en\n" + _about(model, sources, cost)
    settings = {"training": dataclasses.asdict(TRAINING), "cost": cost, "finished": False}
    return save_model(folder, model, tokenizer=tokenizer, settings=settings, history=history, card=card, weights_dtype="int8")


def _read_sources(work: Path, tokenizer: Tokenizer) -> pd.DataFrame:
    """Return the table of sources with their documents, bytes and tokens."""
    return pd.read_csv(work / f"vocab_{tokenizer.vocab_size}" / "sources.csv")


def publish(work: Path, *, epochs: int, start: Path | None = None, name: str = "slm-base-en") -> Path:
    """Write data/pretrained/<name> and its scores in data/results/pretraining.csv from a run that has ended, see `pretrain`."""
    model, tokenizer, history = pretrain(work, epochs=epochs, start=start)
    tokens, sources = _read_text(work, vocab_size=tokenizer.vocab_size)[1], _read_sources(work, tokenizer)
    cost = _cost(model, history, sources)
    settings = {"training": dataclasses.asdict(TRAINING), "epochs": epochs, "cost": cost}
    saved = {"tokenizer": tokenizer, "settings": settings, "history": history, "weights_dtype": "int8"}
    model = load_model(save_model(work / name, model, **saved)).model  # the rounded weights are scored
    scores = score_held_out(model, tokenizer, tokens, held_out_texts(), work=work)
    best = scores[(scores["model"] == "slm") & (scores["split"] == "test")]
    metrics = {
        f"bits_per_byte/{row.dataset}": {"value": row.bits_per_byte}
        | ({} if math.isnan(row.ci_low) else {"ci_low": row.ci_low, "ci_high": row.ci_high})
        for row in best.itertuples()
    }
    card = f'# {name}\nA recurrent language model for English: load it with `load_pretrained("{name}")`.\n' + _about(model, sources, cost)
    folder = save_model(PRETRAINED_DIR / name, model, metrics=metrics, card=card + _score_table(scores) + LIMITS, **saved)
    write_results("pretraining", _score_rows(name, model, folder, scores, len(tokens), history.attrs["cpu_seconds"] / 2))
    return folder


def _score_rows(name: str, model: keras.Model, folder: Path, scores: pd.DataFrame, num_tokens: int, seconds: float) -> list[dict]:
    """Return the rows of data/results/pretraining.csv: bits per byte, and the share saved against the best n-gram model."""
    shared = {"task": "lm", "metric": "bits_per_byte", "seed": SEED, "train_rows": num_tokens}
    mine = {"num_parameters": model.count_params(), "size_bytes": (folder / "weights.safetensors").stat().st_size, "train_seconds": seconds}
    rows = []
    for row in scores.itertuples():
        about = {"dataset": row.dataset, "split": row.split, "model": name if row.model == "slm" else row.model}
        values = {"value": row.bits_per_byte, "ci_low": row.ci_low, "ci_high": row.ci_high}
        rows.append(shared | about | values | (mine if row.model == "slm" else {}))
        if row.model == "slm":
            saved = {"value": row.reduction, "ci_low": row.reduction_low, "ci_high": row.reduction_high}
            rows.append(shared | about | saved | {"metric": "share_saved_against_best_ngram"})
    return rows


def _about(model: keras.Model, sources: pd.DataFrame, cost: dict) -> str:
    """Return the part of a model card on network, text, training and cost."""
    lines = [
        f"| {row.source} | {row.licence} | {row.documents:,} | {row.bytes / 1e6:.1f} | {row.tokens:,} |" for row in sources.itertuples()
    ]
    share = sources["paragraphs_left_out"].sum() / sources["paragraphs"].sum()
    return f"""
- **Network.** Embedding of {NETWORK["vocab_size"]:,} byte-level BPE tokens x {NETWORK["embedding_dim"]}, one GRU of {NETWORK["units"]:,}
  units, projection, output tied to the embedding; {model.count_params():,} weights, stored as int8 with a scale per row.
- **Data.** {sources["bytes"].sum() / 1e6:.0f} MB of public text, {sources["tokens"].sum():,} tokens, training parts only, all under
  licences that allow products (table below). {100 * share:.1f} % of the paragraphs were left out, for they repeat or share
  {SHARED_WORDS} words in a row with a held-out text. No text of them is in the repository.
- **Training.** {cost["tokens_read"]:,.0f} tokens ({cost["passes"]:.2f} passes), {TRAINING.optimizer} at {TRAINING.learning_rate:g},
  {TRAINING.batch_size} streams of windows of {TRAINING.window} tokens with the state carried over, documents in a new order each pass,
  {TRAINING.schedule} (the rate falls in the last {100 * TRAINING.decay_share:.0f} %), moving average of the weights
  ({TRAINING.ema_decay:g} a step), {TRAINING.precision}, seed {SEED}.
  Again from scratch: `SLM_DATA_DIR=... python -m slm_helpers.recipes.pretrain`.
- **Cost.** {cost["core_hours"]:.1f} core-hours ({describe_machine()}), {cost["operations"]:.2g} floating-point operations, about
  {cost["watt_hours"]:.0f} Wh at an assumed {WATTS_PER_CORE} W a core (an estimate, nothing was metered).

| source | licence | documents | MB | tokens |
| --- | --- | --- | --- | --- |
{chr(10).join(lines)}
"""


def _score_table(scores: pd.DataFrame) -> str:
    """Return the part of a model card with the scores."""
    lines = []
    for (dataset, split), rows in scores.groupby(["dataset", "split"], sort=False):
        rows = rows.set_index("model")
        ours, counted = rows.loc["slm"], rows.drop("slm")["bits_per_byte"]
        interval = "one document" if math.isnan(ours["ci_low"]) else f"{ours['ci_low']:.3f} to {ours['ci_high']:.3f}"
        lines.append(
            f"| {dataset} ({split}) | {ours['bits_per_byte']:.3f} | {interval} | {counted.min():.3f} "
            f"({counted.idxmin()}) | {100 * ours['reduction']:.1f} % |"
        )
    return f"""
## Scores
Bits per byte on held-out text, lower is better, each document (long ones in parts of {PART_CHARS:,} characters) read from a zero
state; 95 % intervals over documents. Beside it the best Kneser-Ney model (3 to 5 tokens) of the same training text, and the
share of bits saved against it.

| text | bits per byte | interval | n-gram | saved |
| --- | --- | --- | --- | --- |
{chr(10).join(lines)}
"""


LIMITS = """
## Limits
It writes English of the kind it read: old children's books, encyclopaedia, textbooks, dialogues. It knows few facts and invents
them freely, loses the thread after some sentences, repeats the prejudices of its sources, and is no chat model: fine-tune it.
Film reviews, news, wikitext2 and ptb were never trained on; the last two are written in a tokenised form it never read.
"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m slm_helpers.recipes.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2, help="passes over the text")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="a model folder whose weights training begins with")
    parser.add_argument("--work", type=Path, default=RUNS_DIR / "pretrain", help="folder of text and checkpoints")
    parser.add_argument("--trials", type=int, metavar="TOKENS", help="instead, run the queue of trials, so many tokens each")
    parser.add_argument("--snapshot", type=Path, metavar="FOLDER", help="instead, save the averaged weights of the last checkpoint")
    options = parser.parse_args(arguments)
    if options.trials:
        run_trials(options.work, num_tokens=options.trials)
    elif options.snapshot:
        print(f"Written: {save_snapshot(options.work, options.snapshot)}")
    else:
        print(f"Written: {publish(options.work, epochs=options.epochs, start=options.start)}")


if __name__ == "__main__":
    main()
