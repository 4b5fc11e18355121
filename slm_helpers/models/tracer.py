"""The knowledge tracing network."""

from slm_helpers._backend import keras
from slm_helpers.models.fast_rnn import FastGRU
from slm_helpers.models.language_model import any_length
from slm_helpers.models.layers import FLOAT32
from slm_helpers.models.registry import builder


@builder
def build_knowledge_tracer(
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
    layer has one output for each skill instead; this one can take into account what is known of the attempt itself.

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
        >>> build_knowledge_tracer(5, num_features=3).output_shape
        (None, None, 2)

    Reference:
        Piech et al. (2015), "Deep Knowledge Tracing", arXiv:1506.05908.
    """
    answers = keras.Input(shape=(None,), dtype="int32", name="answers")
    skills = keras.Input(shape=(None,), dtype="int32", name="skills")
    features = keras.Input(shape=(None, num_features), dtype="int32", name="features")
    x = keras.layers.Embedding(2 * num_skills + 2, embedding_dim, name="answer_embedding")(answers)
    # No mask: it would drop to the slow path. Padding stands on the right, where no earlier position sees it.
    x = any_length(FastGRU(units, return_sequences=True, name="gru_0"))(x)
    asked = keras.layers.Embedding(num_skills + 1, embedding_dim, name="skill_embedding")(skills)
    counted = keras.layers.Rescaling(0.01, name="scaled_features")(features)
    x = keras.layers.Concatenate(name="joined")([keras.layers.Dropout(dropout, name="gru_0_dropout")(x), asked, counted])
    x = keras.layers.Dense(head_units, activation="relu", name="merged")(x)
    x = keras.layers.Dropout(dropout, name="merged_dropout")(x)
    logits = keras.layers.Dense(2, dtype=FLOAT32, name="logits")(x)
    return keras.Model([answers, skills, features], logits, name="gru_knowledge_tracer")
