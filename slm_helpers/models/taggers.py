"""Networks for tasks: taggers, readers and commanders on the layers of a language model, a tracer of learners, a listener to sounds.

See `slm_helpers.models.saved` for what a builder returns.
"""

from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_choice, check_positive, check_share
from slm_helpers.models.layers import (
    ChoiceOfPlaces,
    FastGRU,
    FrameScores,
    NgramScores,
    ReverseWords,
    TextMatch,
    TextPooling,
    WordMeans,
    WordSpelling,
    WordStates,
)
from slm_helpers.models.saved import CELLS, builder
from slm_helpers.text.hashing import NUM_WORD_FEATURES

MAX_CHARACTERS = 16  # bytes of a word that a tagger reads, with a sign before and behind it
NUM_CHARACTERS = 259  # padding, the 256 bytes, and the two signs


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

    The language model's layers (same names and shapes, so that `start_from` can copy them) read the tokens from left to right.
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
        (batch, time), with a token before the first word; word_ends, shape (batch, words), the place of each word's last token;
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
    check_positive(num_tags=num_tags)
    if num_tags < 2:
        raise ValueError(f"num_tags is {num_tags}, but a tagger needs two tags at least.")
    sizes = {"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers, "head_units": head_units, "filters": filters}
    inputs, _, x = _read_words(vocab_size, cell=cell, dropout=dropout, word_dropout=word_dropout, **sizes)
    x = keras.layers.Dropout(dropout, name="context_dropout")(x)
    logits = keras.layers.Dense(int(num_tags), dtype="float32", name="logits")(x)
    if not num_buckets:
        return keras.Model(inputs, logits, name=f"{cell}_tagger")
    features = keras.Input(shape=(None, NUM_WORD_FEATURES), dtype="int32", name="features")
    scores = NgramScores(int(num_buckets), int(num_tags), trainable=False, dtype="float32", name="ngram_scores")(features)
    logits = keras.layers.Add(name="logits_sum")([logits, scores])
    return keras.Model([*inputs, features], logits, name=f"{cell}_tagger")


@builder
def build_commander(
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

    A command is read as its words and one more place behind them, which stands for the whole. For the intent the language model's
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
        (batch, places, num_tags + num_intents). The last place of each row repeats the end of the last word and has no
        characters; there the tags score -1e9, and everywhere else the intents. With `num_buckets` it takes features too, shape
        (batch, places, NUM_WORD_FEATURES), and with `num_intent_buckets` ngrams, shape (batch, ngrams).

    Raises:
        ValueError: If a size is not a positive whole number, there are fewer than two tags or intents, a dropout lies outside
            [0, 1) or `cell` is not known.

    Example:
        >>> build_commander(vocab_size=40, num_tags=9, num_intents=4, units=32).output_shape
        (None, None, 13)

    Reference:
        Liu and Lane (2016), "Attention-Based Recurrent Neural Network Models for Joint Intent Detection and Slot Filling",
        arXiv:1609.01454; Goo et al. (2018), "Slot-Gated Modeling for Joint Slot Filling and Intent Prediction".
    """
    check_positive(num_tags=num_tags, num_intents=num_intents)
    if min(num_tags, num_intents) < 2:
        raise ValueError(f"There are {num_tags} tags and {num_intents} intents, but two of each are needed at least.")
    sizes = {"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers, "head_units": head_units, "filters": filters}
    inputs, states, x = _read_words(vocab_size, cell=cell, dropout=dropout, word_dropout=word_dropout, **sizes)
    word_ends = inputs[1]
    tags = keras.layers.Dropout(dropout, name="context_dropout")(x)
    tags = keras.layers.Dense(int(num_tags), dtype="float32", name="logits_tags")(tags)
    pooled = [TextPooling(name="pooling_tokens")([states, inputs[0]]), TextPooling(name="pooling_words")([x, word_ends])]
    pooled = keras.layers.Dropout(dropout, name="pooling_dropout")(keras.layers.Concatenate(name="pooling")(pooled))
    intent = keras.layers.Dense(int(num_intents), dtype="float32", name="logits_intent")(pooled)
    if num_buckets:
        features = keras.Input(shape=(None, NUM_WORD_FEATURES), dtype="int32", name="features")
        scores = NgramScores(int(num_buckets), int(num_tags), trainable=False, dtype="float32", name="ngram_scores")(features)
        tags = keras.layers.Add(name="logits_tags_sum")([tags, scores])
        inputs.append(features)
    if num_intent_buckets:
        ngrams = keras.Input(shape=(None,), dtype="int32", name="ngrams")
        scores = NgramScores(int(num_intent_buckets), int(num_intents), trainable=False, dtype="float32", name="intent_ngram_scores")(
            ngrams
        )
        intent = keras.layers.Add(name="logits_intent_sum")([intent, scores])
        inputs.append(ngrams)
    logits = FrameScores(dtype="float32", name="logits")([tags, intent, word_ends])
    return keras.Model(inputs, logits, name=f"{cell}_commander")


@builder
def build_listener(*, num_classes: int, num_bands: int = 40, units: int = 64, dropout: float = 0.4) -> keras.Model:
    """Build a small recurrent classifier of sounds: two GRUs read the frames of a spectrogram, one from each side.

    Args:
        num_classes: Number of classes, two at least.
        num_bands: Values in a frame.
        units: Length of the state of each GRU.
        dropout: Share of activations dropped, in [0, 1), of what is pooled; a quarter of it of what enters the GRUs.

    Returns:
        An uncompiled model from frames, int32, shape (batch, time, num_bands), in hundredths, and real, int32, shape
        (batch, time), 1 for each frame and 0 for padding on the right, to float32 logits, shape (batch, num_classes). How far is
        padded does not change the logits.

    Raises:
        ValueError: If a size is not a positive whole number, there are fewer than two classes or `dropout` lies outside [0, 1).

    Example:
        >>> build_listener(num_classes=10, units=8).output_shape
        (None, 10)

    Reference:
        Graves and Schmidhuber (2005), "Framewise Phoneme Classification with Bidirectional LSTM", for reading from both sides.
    """
    check_positive(num_classes=num_classes, num_bands=num_bands, units=units)
    check_share(dropout=dropout)
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, but a classifier needs two classes at least.")
    frames = keras.Input(shape=(None, int(num_bands)), dtype="int32", name="frames")
    real = keras.Input(shape=(None,), dtype="int32", name="real")
    x = keras.layers.Rescaling(0.01, name="scaled")(frames)
    x = keras.layers.Dense(int(units), activation="relu", name="mixed_bands")(x)
    x = keras.layers.Dropout(dropout / 4, name="mixed_bands_dropout")(x)
    x = _from_both_sides(x, real, int(units))
    x = keras.layers.Dropout(dropout, name="pooling_dropout")(TextPooling(name="pooling")([x, real]))
    logits = keras.layers.Dense(int(num_classes), dtype="float32", name="logits")(x)
    return keras.Model([frames, real], logits, name="gru_listener")


@builder
def build_reader(
    vocab_size: int,
    *,
    num_features: int,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    head_units: int = 96,
    dropout: float = 0.4,
) -> keras.Model:
    """Build a recurrent reader on top of the layers of `build_language_model`: it finds the answer to a question in a passage.

    The language model's layers (same names and shapes, so that `start_from` can copy them) read question and passage from left
    to right. A word is described by their state at its last token and by the mean of its tokens' vectors. Each word of the
    passage attends to the words of the question, by their plain vectors and by what a layer of its own makes of the
    description; with that and with features counted outside (is the word asked for?) two GRUs read the passage, one from each
    side. Every word is scored as first and as last word of the answer, and so is the choice that there is none.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        num_features: Features of each word that are counted outside.
        cell: "rnn" (tanh), "gru" or "lstm".
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer of the language model.
        num_layers: Number of these layers.
        head_units: Length of the state of each of the two GRUs over words, and of a word's description.
        dropout: Share of activations dropped after each layer, in [0, 1).

    Returns:
        An uncompiled model from five int32 arrays to float32 logits, shape (batch, 2, 1 + words): question and passage, shape
        (batch, time), token ids with a token before the first word; question_ends and passage_ends, shape (batch, words), the
        place of each word's last token; features, shape (batch, words, num_features), of the passage's words in hundredths. All
        are padded on the right with 0; how far does not change the logits. Place 0 of the last axis stands for no answer.

    Raises:
        ValueError: If a size is not a positive whole number, `dropout` lies outside [0, 1) or `cell` is not known.

    Example:
        >>> build_reader(vocab_size=40, num_features=3, units=32).output_shape
        (None, 2, None)

    Reference:
        Chen et al. (2017), "Reading Wikipedia to Answer Open-Domain Questions", arXiv:1704.00051, on a language model's states as
        in Peters et al. (2018), arXiv:1802.05365.
    """
    sizes = {"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers, "head_units": head_units}
    check_positive(vocab_size=vocab_size, num_features=num_features, **sizes)
    check_share(dropout=dropout)
    check_choice(CELLS, cell=cell)
    size = int(head_units)
    question, question_ends, passage, passage_ends = (
        keras.Input(shape=(None,), dtype="int32", name=name) for name in ("question", "question_ends", "passage", "passage_ends")
    )
    features = keras.Input(shape=(None, int(num_features)), dtype="int32", name="features")
    initializer = keras.initializers.RandomNormal(stddev=embedding_dim**-0.5)
    embedding = keras.layers.Embedding(int(vocab_size), int(embedding_dim), embeddings_initializer=initializer, name="embedding")
    recurrent = [_over_any_length(CELLS[cell](int(units), return_sequences=True, name=f"{cell}_{i}")) for i in range(num_layers)]
    reading = keras.layers.Dense(size, activation="tanh", name="reading")

    def read(token_ids, ends, name: str):
        """Return of each word the mean of its vectors, and its description."""
        vectors = embedding(token_ids)
        x = keras.layers.Dropout(dropout, name=f"{name}_embedding_dropout")(vectors)
        for i, layer in enumerate(recurrent):
            x = layer(x if i == 0 else keras.layers.Dropout(dropout, name=f"{name}_{cell}_{i - 1}_dropout")(x))
        # What no head has changed yet, states and means, can be computed once for all passes: see `make_reader_head`.
        states, means = WordStates(name=f"{name}_states")([x, ends]), WordMeans(name=f"{name}_means")([vectors, ends])
        described = [keras.layers.Dropout(dropout, name=f"{name}_{kind}_dropout")(x) for kind, x in (("states", states), ("means", means))]
        return means, reading(keras.layers.Concatenate(name=f"{name}_words")(described))

    question_means, question_words = read(question, question_ends, "question")
    passage_means, passage_words = read(passage, passage_ends, "passage")
    asked = TextMatch(name="asked")([passage_words, question_words, question_ends])
    alike = TextMatch(name="alike")([passage_means, question_means, question_ends])
    counted = keras.layers.Rescaling(0.01, name="counted")(features)
    x = keras.layers.Concatenate(name="matched")([passage_words, asked, alike])
    x = keras.layers.Concatenate(name="seen")([keras.layers.Dropout(dropout, name="matched_dropout")(x), counted])
    x = keras.layers.Dense(size, activation="relu", name="merged")(x)
    onwards = _over_any_length(FastGRU(size, return_sequences=True, name="onwards"))(x)
    back = _over_any_length(FastGRU(size, return_sequences=True, name="backwards"))(ReverseWords(name="turned_words")([x, passage_ends]))
    back = ReverseWords(name="turned_back")([back, passage_ends])
    x = keras.layers.Concatenate(name="context")([x, onwards, back])
    x = keras.layers.Dropout(dropout, name="context_dropout")(x)
    wanted = TextPooling(name="pooling_question")([question_words, question_ends])
    wanted = keras.layers.Dropout(dropout, name="pooling_question_dropout")(wanted)
    # A word is scored by itself and by what it has in common with the question.
    gates = keras.layers.Dense(3 * size, name="logits_wanted")(wanted)
    common = keras.layers.Multiply(name="logits_common")([x, keras.layers.Reshape((1, 3 * size), name="logits_gates")(gates)])
    scores = keras.layers.Dense(2, name="logits_places")(keras.layers.Concatenate(name="logits_words")([x, common]))
    whole = TextPooling(name="pooling_passage")([x, passage_ends])
    none = keras.layers.Dense(2, name="logits_none")(keras.layers.Concatenate(name="logits_whole")([whole, wanted]))
    logits = ChoiceOfPlaces(dtype="float32", name="logits")([scores, none, passage_ends])
    return keras.Model([question, question_ends, passage, passage_ends, features], logits, name=f"{cell}_reader")


def make_word_views(reader: keras.Model) -> list[keras.Model]:
    """Return two views of a `build_reader`: from [tokens, word_ends] of a text to the states of its words, and to their mean vectors."""
    inputs = reader.inputs[2:4]
    return [keras.Model(inputs, reader.get_layer(f"passage_{kind}").output, name=f"word_{kind}") for kind in ("states", "means")]


def make_reader_head(reader: keras.Model) -> keras.Model:
    """Return a view of a `build_reader` that begins where the layers of the language model end.

    Its inputs are the states and means of `make_word_views` and the places of the words' ends, of the question and then of the
    passage, and the features. It shares the reader's weights: to train it is to train the reader with these layers frozen.
    """
    _, question_ends, _, passage_ends, features = reader.inputs
    described = {text: [reader.get_layer(f"{text}_{kind}").output for kind in ("states", "means")] for text in ("question", "passage")}
    inputs = [*described["question"], question_ends, *described["passage"], passage_ends, features]
    return keras.Model(inputs, reader.output, name="reader_head")


@builder
def build_tracer(
    num_skills: int,
    *,
    num_features: int,
    embedding_dim: int = 32,
    units: int = 64,
    head_units: int = 64,
    dropout: float = 0.2,
) -> keras.Model:
    """Build a recurrent model of learners: it reads a learner's answers and scores the next one, wrong or right.

    A GRU reads at each attempt the skill and the answer of the attempt before; the skill that is now asked for, and features
    counted outside, join its state, and a small network scores the two ways the answer may turn out. In the paper an output
    layer has one place for each skill instead; this one can take into account what is known of the attempt itself.

    Args:
        num_skills: Number of skills.
        num_features: Features of each attempt that are counted outside.
        embedding_dim: Length of the vectors of skills and of answers.
        units: Length of the GRU's state.
        head_units: Length of the layer that joins everything.
        dropout: Share of activations dropped, in [0, 1), of the state and of that layer.

    Returns:
        An uncompiled model from three int32 arrays to float32 logits, shape (batch, time, 2), of wrong and right: answers, shape
        (batch, time), 1 + 2 * skill + correct of the attempt before, or 1 + 2 * num_skills where there is none; skills, shape
        (batch, time), 1 + the skill now asked for; features, shape (batch, time, num_features), in hundredths. All are padded on
        the right with 0; how far does not change the logits.

    Raises:
        ValueError: If a size is not a positive whole number or `dropout` lies outside [0, 1).

    Example:
        >>> build_tracer(5, num_features=3).output_shape
        (None, None, 2)

    Reference:
        Piech et al. (2015), "Deep Knowledge Tracing", arXiv:1506.05908.
    """
    sizes = {"embedding_dim": embedding_dim, "units": units, "head_units": head_units}
    check_positive(num_skills=num_skills, num_features=num_features, **sizes)
    check_share(dropout=dropout)
    num_skills, size = int(num_skills), int(embedding_dim)
    answers = keras.Input(shape=(None,), dtype="int32", name="answers")
    skills = keras.Input(shape=(None,), dtype="int32", name="skills")
    features = keras.Input(shape=(None, int(num_features)), dtype="int32", name="features")
    x = keras.layers.Embedding(2 * num_skills + 2, size, name="answer_embedding")(answers)
    # No mask: it would drop to the slow path. Padding stands on the right, where no earlier place sees it.
    x = _over_any_length(FastGRU(int(units), return_sequences=True, name="gru_0"))(x)
    asked = keras.layers.Embedding(num_skills + 1, size, name="skill_embedding")(skills)
    counted = keras.layers.Rescaling(0.01, name="counted")(features)
    x = keras.layers.Concatenate(name="joined")([keras.layers.Dropout(dropout, name="gru_0_dropout")(x), asked, counted])
    x = keras.layers.Dense(int(head_units), activation="relu", name="merged")(x)
    x = keras.layers.Dropout(dropout, name="merged_dropout")(x)
    logits = keras.layers.Dense(2, dtype="float32", name="logits")(x)
    return keras.Model([answers, skills, features], logits, name="gru_tracer")


def _read_words(
    vocab_size: int,
    *,
    cell: str,
    embedding_dim: int,
    units: int,
    num_layers: int,
    head_units: int,
    filters: int,
    dropout: float,
    word_dropout: float,
) -> tuple[list, Any, Any]:
    """Return the inputs token_ids, word_ends and characters, the language model's state at each token, (batch, time, units), and what
    is known of each word, (batch, words, 2 * head_units).
    """
    sizes = {"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers, "head_units": head_units, "filters": filters}
    check_positive(vocab_size=vocab_size, **sizes)
    check_share(dropout=dropout, word_dropout=word_dropout)
    check_choice(CELLS, cell=cell)
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    word_ends = keras.Input(shape=(None,), dtype="int32", name="word_ends")
    characters = keras.Input(shape=(None, MAX_CHARACTERS), dtype="int32", name="characters")
    # As in a language model with tied embeddings, so that both start from random weights of the same size.
    initializer = keras.initializers.RandomNormal(stddev=embedding_dim**-0.5)
    vectors = keras.layers.Embedding(int(vocab_size), int(embedding_dim), embeddings_initializer=initializer, name="embedding")(token_ids)
    vectors = keras.layers.Dropout(word_dropout, noise_shape=(None, None, 1), name="word_dropout")(vectors)
    x = vectors
    for i in range(num_layers):
        x = keras.layers.Dropout(dropout / 2, name=f"{cell}_{i - 1}_dropout" if i else "embedding_dropout")(x)
        x = _over_any_length(CELLS[cell](int(units), return_sequences=True, name=f"{cell}_{i}"))(x)
    states = x
    words = [
        WordStates(name="word_states")([states, word_ends]),
        WordMeans(name="word_means")([vectors, word_ends]),
        WordSpelling(NUM_CHARACTERS, filters=int(filters), name="spelling")(characters),
    ]
    x = keras.layers.Dropout(dropout, name="words_dropout")(keras.layers.Concatenate(name="words")(words))
    return [token_ids, word_ends, characters], states, _from_both_sides(x, word_ends, int(head_units))


def _from_both_sides(x: Any, ends: Any, units: int) -> Any:
    """Return the states of two GRUs over places, one from each side, side by side; `ends` is 0 where there is padding."""
    onwards = _over_any_length(FastGRU(units, return_sequences=True, name="onwards"))(x)
    # No mask: it would drop to the slow path. The padding is left on the right, where it comes last in both directions.
    turned = ReverseWords(name="turned_words")([x, ends])
    back = _over_any_length(FastGRU(units, return_sequences=True, name="backwards"))(turned)
    back = ReverseWords(name="turned_back")([back, ends])
    return keras.layers.Concatenate(name="context")([onwards, back])


def _over_any_length(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Let a recurrent layer run as one loop for all lengths."""
    layer.unrolled = False
    return layer
