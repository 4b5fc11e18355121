"""Measure what differential privacy costs in accuracy: `python -m slm_helpers.recipes.privacy_results` writes data/results/privacy.csv.

News topics are learned from the pretrained base (a linear probe on frozen states, a low-rank change of its recurrent matrix besides, all
of its weights) and from random weights, at several epsilons. The valid part and the bundled stories and articles are taken to be
public: they choose learning rates and scale states. What stands in the table already is not measured again.
"""

import argparse
import time
from functools import partial
from typing import Any

from slm_helpers._numerics import log_softmax
from slm_helpers._paths import PRETRAINED_DIR
from slm_helpers.analysis.text_states import PublicScaling
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.results import read_results, write_results
from slm_helpers.metrics.intervals import mean_interval
from slm_helpers.models.folders import read_config
from slm_helpers.models.stored import read_weights
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.text.words import split_words
from slm_helpers.training.private import dp_noise, fit_probes
from slm_helpers.training.private_gru import Parts, Weights, fit_rows, gru_errors, gru_forward, gru_parts, new_language_model

import numpy as np

BASE, DATASET, RESULTS = "slm-base-en", "news_topics", "privacy"
EPSILONS = (1.0, 3.0, 8.0, np.inf)
DELTA, SAMPLE_RATE, NUM_STEPS, CLIP_NORM = 1e-5, 0.5, 30, 0.5
MAX_TOKENS, RANK, DIRECTIONS, NUM_PUBLIC = 48, 4, 128, 1500
SMALL = {"embedding_dim": 48, "units": 96}  # of the network with random weights
# Of plain updates with momentum, for the mean of clipped gradients. The head's is that of the probe in all methods.
RATES = {"linear probe": (0.0,), "low rank": (0.1, 1.0), "all weights": (0.01, 0.1), "random weights": (0.1, 1.0)}
HEAD_RATE = 2.0


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing in the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", choices=tuple(RATES), default=tuple(RATES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[42])
    parser.add_argument("--epsilons", nargs="*", type=float, default=EPSILONS)
    options = parser.parse_args(arguments)
    task = Topics()
    for method in options.methods:
        for seed in options.seeds:
            for epsilon in options.epsilons:
                measure(task, method, epsilon, seed)


def measure(task: "Topics", method: str, epsilon: float, seed: int) -> None:
    """Train one model, its learning rate chosen on valid with the first seed, and write its accuracy on test."""
    name = f"{method}, epsilon {epsilon:g}"
    table = read_results(RESULTS)
    known = table[(table["model"] == name) & (table["dataset"] == DATASET)]
    if (known["seed"] == seed).any():
        return
    started = time.perf_counter()
    noise = dp_noise(epsilon, sample_rate=SAMPLE_RATE, num_steps=NUM_STEPS, delta=DELTA) if np.isfinite(epsilon) else 0.0
    rates = RATES[method] if not len(known) else known.loc[known["metric"] == "learning rate", "value"].tolist()[:1]
    found = {rate: task.fit(method, rate, noise, seed) for rate in rates}
    seconds = (time.perf_counter() - started) / len(found)
    rate = max(found, key=lambda each: task.correct(method, found[each], "valid").mean())
    correct = task.correct(method, found[rate], "test")
    low, high = mean_interval(correct)
    about = {
        "task": "classify",
        "dataset": DATASET,
        "split": "test",
        "model": name,
        "seed": seed,
        "train_rows": int(task.rows["train"].sum()),
    }
    about |= {"train_seconds": seconds, "num_parameters": sum(found[rate][part].size for part in task.trained(method))}
    scores = [{"metric": "accuracy", "value": correct.mean(), "ci_low": low, "ci_high": high}, {"metric": "learning rate", "value": rate}]
    write_results(RESULTS, [about | score for score in scores])
    print(f"{name:<30} seed {seed}: {correct.mean():.3f} [{low:.3f}, {high:.3f}], rate {rate:g}, {seconds:.0f} s", flush=True)


class Topics:
    """News topics as token ids, and the networks that learn them."""

    def __init__(self):
        folder = PRETRAINED_DIR / BASE
        config = read_config(folder)
        if config["arguments"]["cell"] != "gru" or config["arguments"]["num_layers"] != 1:
            raise ValueError(f"{BASE} is no GRU of one layer, and this recipe's backward pass knows no other. Name another base.")
        frame = load_dataset(DATASET)
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        self.base = _base_weights(read_weights(folder, config))
        self.rows = {split: (frame["split"] == split).to_numpy() for split in ("train", "valid", "test")}
        self.labels = frame["label"].astype("category").cat.codes.to_numpy().astype("int64")
        self.token_ids = _encode(tokenizer, frame["text"])
        self.frozen = _mean_states(self.base, self.token_ids)
        public = _mean_states(self.base, _encode(tokenizer, public_sentences(NUM_PUBLIC)))
        self.scalings = {"": PublicScaling(public, rank=DIRECTIONS)}
        # A small random network has its own states, scaled by the same public texts.
        self.small = new_language_model(len(self.base["embedding"]), **SMALL)
        small_public = _mean_states(self.small, _encode(tokenizer, public_sentences(NUM_PUBLIC)))
        self.scalings["random weights"] = PublicScaling(small_public, rank=SMALL["units"])

    def trained(self, method: str) -> tuple[str, ...]:
        """Return the names of the weights that a method changes."""
        gru = ("embedding", "kernel", "bias", "recurrent", "recurrent_bias")
        return ("head", "head_bias", *{"linear probe": (), "low rank": ("left", "right")}.get(method, gru))

    def fit(self, method: str, rate: float, noise: float, seed: int) -> Weights:
        """Return trained weights; the head starts at 0, and with a noise of 0 clipping stays."""
        rng = np.random.default_rng(seed)
        weights = dict(self.small if method == "random weights" else self.base)
        dims, num_classes = self.scalings.get(method, self.scalings[""]).matrix.shape[1], self.labels.max() + 1
        weights |= {"head": np.zeros((dims, num_classes), "float32"), "head_bias": np.zeros((1, num_classes), "float32")}
        if method == "low rank":
            units = len(weights["recurrent"])
            weights["left"] = rng.normal(scale=units**-0.5, size=(units, RANK)).astype("float32")
            weights["right"] = np.zeros((RANK, 3 * units), dtype="float32")
        rates = dict.fromkeys(self.trained(method), rate) | {"head": HEAD_RATE, "head_bias": HEAD_RATE}
        if method == "linear probe":
            return weights | self._probe(noise, seed)
        rows = np.column_stack([self.labels, self.token_ids])[self.rows["train"]]
        options = {
            "sample_rate": SAMPLE_RATE,
            "num_steps": NUM_STEPS,
            "clip_norm": CLIP_NORM,
            "learning_rate": rates,
            "seed": seed,
            "optimizer": "sgd",
        }
        return fit_rows(weights, rows, read_rows=partial(self._read, method), noise_multiplier=noise, **options)

    def _probe(self, noise: float, seed: int) -> Weights:
        """Return the head alone, on states that are computed once."""
        train = self.rows["train"]
        vectors, _ = self._vectors("", self.frozen)
        vectors = np.column_stack([vectors, np.ones(len(vectors), dtype="float32")])
        options = {"sample_rate": SAMPLE_RATE, "num_steps": NUM_STEPS, "clip_norm": CLIP_NORM, "learning_rate": HEAD_RATE * CLIP_NORM}
        num_classes = int(self.labels.max()) + 1
        (weights,) = fit_probes(vectors[train], self.labels[train], num_classes=num_classes, noise_multiplier=noise, seed=seed, **options)
        return {"head": weights[:-1], "head_bias": weights[-1:]}

    def correct(self, method: str, weights: Weights, split: str) -> np.ndarray:
        """Return for each row of a split whether its topic is predicted, as 0 or 1."""
        rows = self.rows[split]
        vectors, _ = self._vectors(method, _mean_states(_merged(weights), self.token_ids[rows]))
        logits = vectors @ weights["head"] + weights["head_bias"]
        return (logits.argmax(axis=1) == self.labels[rows]).astype("float64")

    def _vectors(self, method: str, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean states in public directions with a length of 1, and the lengths before."""
        scaled = self.scalings.get(method, self.scalings[""])(means, unit=False)
        lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
        return scaled / lengths, lengths

    def _read(self, method: str, weights: Weights, rows: np.ndarray) -> tuple[np.ndarray, Parts]:
        """Return losses and parts of rows, label first and token ids behind it."""
        labels, token_ids = rows[:, 0], rows[:, 1:]
        real = (token_ids > 0).astype("float32")
        share = real / real.sum(axis=1, keepdims=True)
        merged = _merged(weights)
        states, steps = gru_forward(merged, token_ids)
        vectors, lengths = self._vectors(method, (states[:, 1:] * share[:, :, None]).sum(axis=1))
        log_probs = log_softmax(vectors @ weights["head"] + weights["head_bias"])
        errors = np.exp(log_probs) - np.eye(log_probs.shape[1], dtype="float32")[labels]
        ones = np.ones((len(rows), 1, 1), dtype="float32")
        parts = {"head": (vectors[:, None], errors[:, None]), "head_bias": (ones, errors[:, None])}
        by_vector = errors @ weights["head"].T
        by_vector -= (by_vector * vectors).sum(axis=1, keepdims=True) * vectors  # its length is fixed
        by_mean = (by_vector / lengths) @ self.scalings.get(method, self.scalings[""]).matrix.T
        from_input, from_state = gru_errors(merged, states, steps, (by_mean[:, None] * share[:, :, None]).astype("float32"))
        if method == "low rank":
            before = states[:, :-1]
            parts["left"] = (before, from_state @ weights["right"].T)
            parts["right"] = (before @ weights["left"], from_state)
        else:
            parts |= gru_parts(merged, token_ids, states, from_input, from_state)
        return -log_probs[np.arange(len(rows)), labels], parts


def public_sentences(number: int) -> list[str]:
    """Return sentences of the bundled stories and articles, which stand for public text."""
    texts = [*load_dataset("articles")["text"], *load_dataset("stories")["text"]]
    found = []
    for text in texts:
        words = split_words(text)
        starts = words.places[np.flatnonzero(np.diff(words.sentences, prepend=-1)), 0]
        found += [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    return [sentence for sentence in found if len(sentence) > 40][:number]


def _base_weights(weights: dict[str, np.ndarray]) -> Weights:
    cell = "gru_0/gru_cell"
    input_bias, state_bias = weights[f"{cell}/bias"].astype("float32")
    named = {"embedding": "embedding/embeddings", "kernel": f"{cell}/kernel", "recurrent": f"{cell}/recurrent_kernel"}
    found = {name: weights[path].astype("float32") for name, path in named.items()}
    return found | {"bias": input_bias[None], "recurrent_bias": state_bias[None]}


def _merged(weights: Weights) -> Weights:
    """Return weights in which a low-rank change is added to the recurrent matrix."""
    if "left" not in weights:
        return weights
    return weights | {"recurrent": weights["recurrent"] + weights["left"] @ weights["right"]}


def _encode(tokenizer: Tokenizer, texts: Any) -> np.ndarray:
    rows = np.zeros((len(texts), MAX_TOKENS), dtype="int64")
    for number, ids in enumerate(tokenizer.encode_batch(list(texts))):
        ids = np.concatenate([[tokenizer.end_id], ids])[:MAX_TOKENS]
        rows[number, : len(ids)] = ids
    return rows


def _mean_states(weights: Weights, token_ids: np.ndarray) -> np.ndarray:
    found = []
    for start in range(0, len(token_ids), 250):
        rows = token_ids[start : start + 250]
        states, _ = gru_forward(weights, rows)
        real = (rows > 0)[:, :, None]
        found.append((states[:, 1:] * real).sum(axis=1) / real.sum(axis=1))
    return np.concatenate(found)


if __name__ == "__main__":
    main()
