"""Networks for tasks: taggers, readers and commanders on the layers of a language model, a tracer of learners, a listener to sounds.

See `slm_helpers.models.saved` for what a builder returns.
"""

from slm_helpers._backend import keras
from slm_helpers.models.layers import (
    FLOAT32,
    HashedLinear,
    IntentSlotLogits,
    TextPooling,
)
from slm_helpers.models.registry import builder
from slm_helpers.models.word_reading import encode_words
from slm_helpers.text.hashing import NUM_WORD_FEATURES


@builder
def build_tagger(
    vocab_size: int,
    *,
    num_tags: int,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    head_units: int = 200,
    filters: int = 96,
    dropout: float = 0.4,
    word_dropout: float = 0.05,
    num_buckets: int = 0,
) -> keras.Model:
    """Build a recurrent tagger of words on top of the layers of `build_language_model`.

    The language model's layers (same names and shapes, so that `load_backbone_weights` can copy them) read the tokens from left to right.
    A word is described by their state at its last token, by the mean of its tokens' vectors and by its spelling; two GRUs then
    read the words, one from each side, and each word's pair of states is scored.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        num_tags: Number of tags, two at least.
        cell: "rnn" (tanh), "gru" or "lstm".
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer of the language model.
        num_layers: Number of these layers.
        head_units: Length of the state of each of the two GRUs over words.
        filters: Features of a word's spelling.
        dropout: Share of activations dropped, in [0, 1), of what describes a word and of the states of the two GRUs; half of it
            within the language model.
        word_dropout: Share of tokens whose vector is dropped whole, in [0, 1), so that context has to do.
        num_buckets: With any, a linear model on so many hashed features of each word stands beside the network and its scores
            are added; it does not learn with it, but is put in by `slm_helpers.tasks.token_classification`.

    Returns:
        An uncompiled model from three int32 arrays to float32 logits, shape (batch, words, num_tags): token_ids, shape
        (batch, time), with a token before the first word; word_ends, shape (batch, words), the position of each word's last token;
        characters, shape (batch, words, MAX_CHARACTERS), ids below NUM_CHARACTERS. All are padded on the right with 0; how far
        does not change the logits. With `num_buckets` it takes a fourth input, what `slm_helpers.text.hashing.hash_words` makes of the
        words, shape (batch, words, NUM_WORD_FEATURES), padded likewise.

    Raises:
        ValueError: If a size is not a positive whole number, there are fewer than two tags, a dropout lies outside [0, 1) or
            `cell` is not known.

    Example:
        >>> build_tagger(vocab_size=40, num_tags=9, units=32).output_shape
        (None, None, 9)

    Reference:
        Peters et al. (2017), "Semi-supervised sequence tagging with bidirectional language models", arXiv:1705.00108; Ma and
        Hovy (2016), arXiv:1603.01354 (the spelling); Cheng et al. (2016), arXiv:1606.07792 (a linear model beside a network).
    """
    if num_tags < 2:
        raise ValueError(f"num_tags is {num_tags}, but a tagger needs two tags at least.")
    sizes = {"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers, "head_units": head_units, "filters": filters}
    inputs, _, x = encode_words(vocab_size, cell=cell, dropout=dropout, word_dropout=word_dropout, **sizes)
    x = keras.layers.Dropout(dropout, name="context_dropout")(x)
    logits = keras.layers.Dense(num_tags, dtype=FLOAT32, name="logits")(x)
    if not num_buckets:
        return keras.Model(inputs, logits, name=f"{cell}_tagger")
    features = keras.Input(shape=(None, NUM_WORD_FEATURES), dtype="int32", name="features")
    scores = HashedLinear(num_buckets, num_tags, trainable=False, dtype=FLOAT32, name="ngram_scores")(features)
    logits = keras.layers.Add(dtype=FLOAT32, name="logits_sum")([logits, scores])
    return keras.Model([*inputs, features], logits, name=f"{cell}_tagger")


@builder
def build_intent_slot_model(
    vocab_size: int,
    *,
    num_tags: int,
    num_intents: int,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    head_units: int = 200,
    filters: int = 96,
    dropout: float = 0.4,
    word_dropout: float = 0.05,
    num_buckets: int = 0,
    num_intent_buckets: int = 0,
) -> keras.Model:
    """Build a reader of commands: the tagger of `build_tagger` with a second head, which scores the intent of the whole command.

    A command is read as its words and one more position behind them, which stands for the whole. For the intent the language model's
    states and those of the two GRUs are pooled (mean, maximum, last); for the slots each word's own pair of states is scored.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        num_tags: Number of slot tags, two at least.
        num_intents: Number of intents, two at least.
        cell: "rnn" (tanh), "gru" or "lstm".
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer of the language model.
        num_layers: Number of these layers.
        head_units: Length of the state of each of the two GRUs over words.
        filters: Features of a word's spelling.
        dropout: As in `build_tagger`, and of what is pooled.
        word_dropout: Share of tokens whose vector is dropped whole, in [0, 1).
        num_buckets: With any, a linear model on hashed features of each word stands beside the head of the slots.
        num_intent_buckets: With any, one on hashed n-grams of the command stands beside the head of the intent. Both are put in
            by `slm_helpers.tasks.intent_slot` and do not learn with the network.

    Returns:
        An uncompiled model from token_ids, word_ends and characters as in `build_tagger`, to float32 logits, shape
        (batch, positions, num_tags + num_intents). The last position of each row repeats the end of the last word and has no
        characters; there the tags score -1e9, and everywhere else the intents. With `num_buckets` it takes features too, shape
        (batch, positions, NUM_WORD_FEATURES), and with `num_intent_buckets` ngrams, shape (batch, ngrams).

    Raises:
        ValueError: If a size is not a positive whole number, there are fewer than two tags or intents, a dropout lies outside
            [0, 1) or `cell` is not known.

    Example:
        >>> build_intent_slot_model(vocab_size=40, num_tags=9, num_intents=4, units=32).output_shape
        (None, None, 13)

    Reference:
        Liu and Lane (2016), "Attention-Based Recurrent Neural Network Models for Joint Intent Detection and Slot Filling",
        arXiv:1609.01454; Goo et al. (2018), "Slot-Gated Modeling for Joint Slot Filling and Intent Prediction".
    """
    if min(num_tags, num_intents) < 2:
        raise ValueError(f"There are {num_tags} tags and {num_intents} intents, but two of each are needed at least.")
    sizes = {"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers, "head_units": head_units, "filters": filters}
    inputs, states, x = encode_words(vocab_size, cell=cell, dropout=dropout, word_dropout=word_dropout, **sizes)
    word_ends = inputs[1]
    tags = keras.layers.Dropout(dropout, name="context_dropout")(x)
    tags = keras.layers.Dense(num_tags, dtype=FLOAT32, name="logits_tags")(tags)
    pooled = [
        TextPooling(dtype=FLOAT32, name="pooling_tokens")([states, inputs[0]]),
        TextPooling(dtype=FLOAT32, name="pooling_words")([x, word_ends]),
    ]
    pooled = keras.layers.Dropout(dropout, dtype=FLOAT32, name="pooling_dropout")(
        keras.layers.Concatenate(dtype=FLOAT32, name="pooling")(pooled)
    )
    intent = keras.layers.Dense(num_intents, dtype=FLOAT32, name="logits_intent")(pooled)
    if num_buckets:
        features = keras.Input(shape=(None, NUM_WORD_FEATURES), dtype="int32", name="features")
        scores = HashedLinear(num_buckets, num_tags, trainable=False, dtype=FLOAT32, name="ngram_scores")(features)
        tags = keras.layers.Add(dtype=FLOAT32, name="logits_tags_sum")([tags, scores])
        inputs.append(features)
    if num_intent_buckets:
        ngrams = keras.Input(shape=(None,), dtype="int32", name="ngrams")
        scores = HashedLinear(num_intent_buckets, num_intents, trainable=False, dtype=FLOAT32, name="intent_ngram_scores")(ngrams)
        intent = keras.layers.Add(dtype=FLOAT32, name="logits_intent_sum")([intent, scores])
        inputs.append(ngrams)
    logits = IntentSlotLogits(dtype=FLOAT32, name="logits")([tags, intent, word_ends])
    return keras.Model(inputs, logits, name=f"{cell}_intent_slot_model")
