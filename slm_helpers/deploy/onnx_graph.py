"""ONNX graphs of the networks of model folders, in float32: the same inputs, outputs and numbers (to 1e-5) as the Keras models.

One function a builder of `slm_helpers.models`; its layers are written in `slm_helpers.deploy.onnx_layers`.
"""

from collections.abc import Callable
from typing import Any

from slm_helpers.deploy import onnx_layers as layers
from slm_helpers.deploy.graph_writer import GraphWriter, Tensor
from slm_helpers.text.hashing import NUM_WORD_FEATURES
from slm_helpers.text.tagging import MAX_CHARACTERS

import numpy as np
import onnx

GRAPHS: dict[str, Callable[..., None]] = {}  # by the name of the builder


def build_graph(builder: str, arguments: dict[str, Any], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the ONNX model of a network.

    Inputs and outputs are those of the Keras model, with batch and lengths of any size; a language model takes and gives its states
    too: token_ids, shape (batch, time), and state_0, state_1 ..., shape (batch, units), to logits, shape (batch, time, vocab_size), and
    next_state_0 ... (an LSTM layer has two, output and memory).

    Args:
        builder: Name of the function in `slm_helpers.models` that builds the Keras model, as in a folder's config.json.
        arguments: Its arguments.
        weights: By path, see `slm_helpers.models.stored.read_weights`.

    Raises:
        TypeError: If there is no graph for this builder.
        ValueError: If weights are missing or do not fit the arguments.
    """
    if builder not in GRAPHS:
        raise TypeError(f"There is no ONNX graph for models of {builder}, only for those of {', '.join(GRAPHS)}.")
    writer = GraphWriter(weights)
    try:
        GRAPHS[builder](writer, **arguments)
    except KeyError as error:
        raise ValueError(f"The weights {error} of {builder} are missing. The model folder does not fit this package.") from error
    return writer.finish(builder.removeprefix("build_"))


def _graph(function: Callable[..., None]) -> Callable[..., None]:
    GRAPHS[function.__name__.replace("_write_", "build_", 1)] = function
    return function


@_graph
def _write_language_model(
    g: GraphWriter, *, vocab_size: int, cell: str = "gru", units: int = 512, num_layers: int = 1, tie_embeddings: bool = True, **sizes: Any
) -> None:
    token_ids = g.input("token_ids", ("batch", "time"))
    states = language_model_states(g, cell=cell, units=units, num_layers=num_layers)
    x, given = g.embedding(token_ids), []
    size = len(states) // num_layers
    for i in range(num_layers):
        x, last = g.recurrent(x, f"{cell}_{i}", cell, states[i * size : (i + 1) * size])
        given += last
    if tie_embeddings and g.layer("projection"):
        x = g.dense(x, "projection")
    g.output(g.tied_logits(x) if tie_embeddings else g.dense(x, "logits"), "logits", ("batch", "time", vocab_size))
    for i, state in enumerate(given):
        g.output(state, f"next_state_{i}", ("batch", units))


def language_model_states(g: GraphWriter, *, cell: str, units: int, num_layers: int) -> list[Tensor]:
    """Add the inputs for the states of a language model."""
    return [g.input(f"state_{i}", ("batch", units), "float32") for i in range(num_layers * (1 + (cell == "lstm")))]


@_graph
def _write_text_classifier(
    g: GraphWriter, *, num_classes: int, cell: str = "gru", num_layers: int = 1, num_buckets: int = 0, **sizes: Any
) -> None:
    token_ids = g.input("token_ids", ("batch", "time"))
    _, x = layers.backbone(g, token_ids, cell=cell, num_layers=num_layers)
    logits = g.dense(layers.text_pooling(g, x, token_ids), "logits")
    if num_buckets:
        logits = g.op("Add", logits, layers.hashed_linear(g, g.input("ngrams", ("batch", "ngrams")), "ngram_scores"))
    g.output(logits, "logits", ("batch", num_classes))


@_graph
def _write_keyword_spotter(g: GraphWriter, *, num_classes: int, num_bands: int = 40, **sizes: Any) -> None:
    frames, real = g.input("frames", ("batch", "time", num_bands)), g.input("real", ("batch", "time"))
    x = g.dense(layers.hundredths(g, frames), "band_projection", "Relu")
    x = g.op("Concat", *layers.bidirectional(g, x, real), axis=-1)
    g.output(g.dense(layers.text_pooling(g, x, real), "logits"), "logits", ("batch", num_classes))


@_graph
def _write_knowledge_tracer(g: GraphWriter, *, num_features: int, **sizes: Any) -> None:
    answers, skills = g.input("answers", ("batch", "time")), g.input("skills", ("batch", "time"))
    features = g.input("features", ("batch", "time", num_features))
    x, _ = g.recurrent(g.embedding(answers, "answer_embedding"), "gru_0", "gru")
    x = g.op("Concat", x, g.embedding(skills, "skill_embedding"), layers.hundredths(g, features), axis=-1)
    g.output(g.dense(g.dense(x, "merged", "Relu"), "logits"), "logits", ("batch", "time", 2))


@_graph
def _write_tagger(g: GraphWriter, *, num_tags: int, cell: str = "gru", num_layers: int = 1, num_buckets: int = 0, **sizes: Any) -> None:
    _, _, _, context = _words(g, cell=cell, num_layers=num_layers)
    logits = g.dense(context, "logits")
    if num_buckets:
        features = g.input("features", ("batch", "words", NUM_WORD_FEATURES))
        logits = g.op("Add", logits, layers.hashed_linear(g, features, "ngram_scores"))
    g.output(logits, "logits", ("batch", "words", num_tags))


@_graph
def _write_intent_slot_model(
    g: GraphWriter,
    *,
    num_tags: int,
    num_intents: int,
    cell: str = "gru",
    num_layers: int = 1,
    num_buckets: int = 0,
    num_intent_buckets: int = 0,
    **sizes: Any,
) -> None:
    token_ids, word_ends, states, context = _words(g, cell=cell, num_layers=num_layers)
    tags = g.dense(context, "logits_tags")
    pooled = g.op("Concat", layers.text_pooling(g, states, token_ids), layers.text_pooling(g, context, word_ends), axis=-1)
    intent = g.dense(pooled, "logits_intent")
    if num_buckets:
        features = g.input("features", ("batch", "words", NUM_WORD_FEATURES))
        tags = g.op("Add", tags, layers.hashed_linear(g, features, "ngram_scores"))
    if num_intent_buckets:
        intent = g.op("Add", intent, layers.hashed_linear(g, g.input("ngrams", ("batch", "ngrams")), "intent_ngram_scores"))
    logits = layers.intent_slot_logits(g, tags, intent, word_ends)
    g.output(logits, "logits", ("batch", "words", num_tags + num_intents))


def _words(g: GraphWriter, *, cell: str, num_layers: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return token_ids, word_ends, the states at each token, and what is known of each word: `slm_helpers.models.word_reading`."""
    token_ids, word_ends = g.input("token_ids", ("batch", "time")), g.input("word_ends", ("batch", "words"))
    characters = g.input("characters", ("batch", "words", MAX_CHARACTERS))
    vectors, states = layers.backbone(g, token_ids, cell=cell, num_layers=num_layers)
    words = [
        layers.last_subword_pooling(g, states, word_ends),
        layers.word_mean_pooling(g, vectors, word_ends),
        layers.char_cnn(g, characters, "char_cnn"),
    ]
    x = g.op("Concat", *words, axis=-1)
    return token_ids, word_ends, states, g.op("Concat", *layers.bidirectional(g, x, word_ends), axis=-1)


@_graph
def _write_span_extractor(g: GraphWriter, *, num_features: int, cell: str = "gru", num_layers: int = 1, **sizes: Any) -> None:
    question, question_ends = g.input("question", ("batch", "question_time")), g.input("question_ends", ("batch", "question_words"))
    passage, passage_ends = g.input("passage", ("batch", "passage_time")), g.input("passage_ends", ("batch", "words"))
    features = g.input("features", ("batch", "words", num_features))

    def read(token_ids: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        vectors, states = layers.backbone(g, token_ids, cell=cell, num_layers=num_layers)
        means = layers.word_mean_pooling(g, vectors, ends)
        described = g.op("Concat", layers.last_subword_pooling(g, states, ends), means, axis=-1)
        return means, g.dense(described, "word_projection", "Tanh")

    question_means, question_words = read(question, question_ends)
    passage_means, passage_words = read(passage, passage_ends)
    by_words = layers.aligned_attention(g, passage_words, question_words, question_ends, "question_attention")
    by_vectors = layers.aligned_attention(g, passage_means, question_means, question_ends, "embedding_attention")
    x = g.op("Concat", passage_words, by_words, by_vectors, layers.hundredths(g, features), axis=-1)
    x = g.dense(x, "merged", "Relu")
    x = g.op("Concat", x, *layers.bidirectional(g, x, passage_ends), axis=-1)
    pooled = layers.text_pooling(g, question_words, question_ends)
    common = g.op("Mul", x, g.op("Unsqueeze", g.dense(pooled, "logits_question"), [1]))
    scores = g.dense(g.op("Concat", x, common, axis=-1), "logits_span")
    none = g.dense(g.op("Concat", layers.text_pooling(g, x, passage_ends), pooled, axis=-1), "logits_no_answer")
    g.output(layers.span_logits(g, scores, none, passage_ends), "logits", ("batch", 2, "words_and_none"))
