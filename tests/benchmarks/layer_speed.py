"""What the package's own recurrent layers and its loss gain over those of Keras: a step forward and back, in turns in one process.

FastGRU unrolled for windows of one length, FastGRU as one loop for all lengths, FastLSTM, and keras.layers.GRU and LSTM;
`mean_cross_entropy`, which scores the vocabulary for some hundred tokens at a time, beside the usual loss on all logits. Seconds
are those of the processor, summed over its cores, so that other work on the machine hardly counts; memory is the peak of a process
of its own.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.results import Parser, in_fresh_process, median_row, peak_memory_mb, report, row, run_script

import numpy as np

LAYERS = {
    "gru": {"FastGRU, unrolled": ("FastGRU", True), "FastGRU, loop": ("FastGRU", False), "keras.layers.GRU": ("GRU", None)},
    "lstm": {"FastLSTM, unrolled": ("FastLSTM", True), "keras.layers.LSTM": ("LSTM", None)},
}
LOSSES = ("mean_cross_entropy", "keras loss on all logits")


def main(arguments: list[str] | None = None) -> None:
    """Measure and report."""
    options = parse(arguments)
    if options.one:
        print(json.dumps(measure_loss(**json.loads(options.one))))
        return
    rows = []
    for cell in options.cells:
        steps = {name: make_layer_step(*way, options) for name, way in LAYERS[cell].items()}
        rows += compare(take_turns(steps, options.rounds), cell.upper())
    sizes = {name: getattr(options, name) for name in ("vocab_size", "embedding_dim", "num_tokens", "rounds")}
    what = f"loss of {options.num_tokens} tokens over {options.vocab_size}"
    losses = {name: in_fresh_process("layer_speed", sizes | {"name": name}) for name in LOSSES}
    rows += compare({name: found["seconds"] for name, found in losses.items()}, what)
    rows += [row(f"{what}, {name}", "peak_memory_mb", found["peak_memory_mb"]) for name, found in losses.items()]
    report(options, "layer_speed", rows, dataset=f"{options.batch_size}x{options.window}, {options.embedding_dim} to {options.units}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = Parser("layer_speed", __doc__.split("\n")[0])
    parser.add_argument("--cells", nargs="+", choices=("gru", "lstm"), default=["gru", "lstm"])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way; the median counts")
    parser.add_argument("--vocab-size", type=int, default=8192, help="of the loss")
    parser.add_argument("--num-tokens", type=int, default=8192, help="of the loss: a batch of the base model's training")
    parser.add_argument("--embedding-dim", type=int, default=256)
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def make_layer_step(name: str, unrolled: bool | None, options: argparse.Namespace) -> Callable[[], Any]:
    """Return a compiled function that runs a layer forward and back once."""
    from slm_helpers._backend import keras
    from slm_helpers.models import fast_rnn

    import tensorflow as tf

    layer = getattr(fast_rnn if name.startswith("Fast") else keras.layers, name)(options.units, return_sequences=True)
    if unrolled is not None:
        layer.unrolled = unrolled
    rng = np.random.default_rng(options.seed)
    x, upstream = (
        tf.constant(rng.normal(size=(options.batch_size, options.window, size)), "float32")
        for size in (options.embedding_dim, options.units)
    )
    layer.build(x.shape)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) * upstream)
        return [tf.reduce_sum(each) for each in tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_variables)])]

    return lambda: [each.numpy() for each in step()]


def measure_loss(name: str, *, vocab_size: int, embedding_dim: int, num_tokens: int, rounds: int) -> dict[str, Any]:
    """Return the processor's seconds of each round and the peak memory of one way to the loss and its gradients."""
    from slm_helpers._backend import keras
    from slm_helpers.models.fast_rnn import mean_cross_entropy

    import tensorflow as tf

    rng = np.random.default_rng(0)
    hidden = tf.constant(rng.normal(size=(num_tokens, embedding_dim)), "float32")
    matrix = tf.constant(rng.normal(size=(vocab_size, embedding_dim)) * embedding_dim**-0.5, "float32")
    targets, weights = tf.constant(rng.integers(0, vocab_size, num_tokens), "int32"), tf.ones(num_tokens)

    def plain():
        logits = tf.matmul(hidden, matrix, transpose_b=True)
        return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch([hidden, matrix])
            loss = plain() if name == LOSSES[1] else mean_cross_entropy(hidden, targets, weights, matrix, None)
        return [tf.reduce_sum(each) for each in tape.gradient(loss, [hidden, matrix])]

    times = take_turns({name: lambda: [each.numpy() for each in step()]}, rounds)[name]
    return {"seconds": times, "peak_memory_mb": peak_memory_mb()}


def take_turns(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the processor's seconds of each step, a value a round; the first two of each are not counted."""
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.process_time()
            step()
            seconds[name].append(time.process_time() - started)
    return seconds


def compare(seconds: dict[str, list[float]], what: str) -> list[dict[str, Any]]:
    """Return the rows of some ways to one result, the last of them being that of Keras."""
    *_, usual = seconds
    rows = [median_row(f"{what}, {name}", "cpu_milliseconds", [1000 * each for each in values]) for name, values in seconds.items()]
    for name, values in list(seconds.items())[:-1]:
        ratio = statistics.median(seconds[usual]) / statistics.median(values)
        rows.append(row(f"{what}, {name}", "times_as_fast_as_keras", ratio))
    return rows


if __name__ == "__main__":
    run_script(main)
