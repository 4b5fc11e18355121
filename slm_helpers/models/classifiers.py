"""Classifiers of texts and of sounds."""

from slm_helpers._backend import keras
from slm_helpers.models.language_model import backbone_layers
from slm_helpers.models.layers import FLOAT32, HashedLinear, TextPooling
from slm_helpers.models.registry import backbone_config, builder, load_backbone_weights
from slm_helpers.models.word_reading import bidirectional


@builder
def build_text_classifier(
    vocab_size: int,
    *,
    num_classes: int,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    dropout: float = 0.2,
    num_buckets: int = 0,
) -> keras.Model:
    """Build a recurrent classifier of whole texts, the other half of `build_language_model`.

    Embedding and recurrent layers carry the names and shapes of the language model's, so that `load_backbone_weights` can copy them. The
    head pools the outputs over the true length (mean, maximum and last, side by side) and scores the classes.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        num_classes: Number of classes, two at least.
        cell: "rnn" (tanh), "gru" or "lstm".
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer.
        num_layers: Number of stacked recurrent layers.
        dropout: Share of activations dropped after the embedding, after each layer but the last, and after pooling, in [0, 1).
        num_buckets: With any, a linear model on so many hashed n-grams stands beside the network and its scores are added; it
            does not learn with it, but is put in by `slm_helpers.text.hashing` and `slm_helpers.tasks.text_classification`.

    Returns:
        An uncompiled model from int32 token ids, shape (batch, time), to float32 logits, shape (batch, num_classes). Shorter
        texts are padded on the right with 0; how far does not change the logits. With `num_buckets` it takes two inputs, the
        second the ids of the text's n-grams, shape (batch, ngrams), padded likewise.

    Raises:
        ValueError: If a size is not a positive whole number, there are fewer than two classes, `dropout` lies outside [0, 1)
            or `cell` is not known.

    Example:
        >>> build_text_classifier(vocab_size=40, num_classes=3, units=32).output_shape
        (None, 3)

    Reference:
        Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification", arXiv:1801.06146; Cheng et al.
        (2016), "Wide & Deep Learning", arXiv:1606.07792, for a linear model beside a network.
    """
    _check_classes(num_classes)
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    embedding, recurrent = backbone_layers(vocab_size, cell=cell, embedding_dim=embedding_dim, units=units, num_layers=num_layers)
    x = embedding(token_ids)
    for i, layer in enumerate(recurrent):
        x = layer(keras.layers.Dropout(dropout, name=f"{cell}_{i - 1}_dropout" if i else "embedding_dropout")(x))
    x = TextPooling(dtype=FLOAT32, name="pooling")([x, token_ids])
    x = keras.layers.Dropout(dropout, dtype=FLOAT32, name="pooling_dropout")(x)
    logits = keras.layers.Dense(num_classes, dtype=FLOAT32, name="logits")(x)
    if not num_buckets:
        return keras.Model(token_ids, logits, name=f"{cell}_text_classifier")
    ngrams = keras.Input(shape=(None,), dtype="int32", name="ngrams")
    scores = HashedLinear(num_buckets, num_classes, trainable=False, dtype=FLOAT32, name="ngram_scores")(ngrams)
    return keras.Model(
        [token_ids, ngrams], keras.layers.Add(dtype=FLOAT32, name="logits_sum")([logits, scores]), name=f"{cell}_text_classifier"
    )


def classifier_from_base(base: keras.Model, *, num_classes: int, dropout: float = 0.2) -> keras.Model:
    """Build a text classifier in the shape of a language model and copy the shared layers; its head starts from random weights.

    Args:
        base: From `build_language_model`, e.g. `load_pretrained("slm-base-en").model`.
        num_classes: Number of classes.
        dropout: Share of activations dropped in training.
    """
    model = build_text_classifier(**backbone_config(base), num_classes=num_classes, dropout=dropout)
    load_backbone_weights(model, base)
    return model


@builder
def build_keyword_spotter(*, num_classes: int, num_bands: int = 40, units: int = 64, dropout: float = 0.4) -> keras.Model:
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
        >>> build_keyword_spotter(num_classes=10, units=8).output_shape
        (None, 10)

    Reference:
        Graves and Schmidhuber (2005), "Framewise Phoneme Classification with Bidirectional LSTM", for reading from both sides.
    """
    _check_classes(num_classes)
    frames = keras.Input(shape=(None, num_bands), dtype="int32", name="frames")
    real = keras.Input(shape=(None,), dtype="int32", name="real")
    x = keras.layers.Rescaling(0.01, name="scaled")(frames)
    x = keras.layers.Dense(units, activation="relu", name="band_projection")(x)
    x = keras.layers.Dropout(dropout / 4, name="band_projection_dropout")(x)
    x = keras.layers.Concatenate(name="context")(bidirectional(x, real, units))
    x = keras.layers.Dropout(dropout, dtype=FLOAT32, name="pooling_dropout")(TextPooling(dtype=FLOAT32, name="pooling")([x, real]))
    logits = keras.layers.Dense(num_classes, dtype=FLOAT32, name="logits")(x)
    return keras.Model([frames, real], logits, name="gru_keyword_spotter")


def _check_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, but a classifier needs two classes at least.")
