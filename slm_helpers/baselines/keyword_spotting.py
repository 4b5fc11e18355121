"""A linear model of recordings."""

from slm_helpers.data.audio import read_sounds, sound_summary

import numpy as np
from sklearn.pipeline import Pipeline


def build_sound_classifier(*, seed: int = 42) -> Pipeline:
    """Build a linear support vector machine on `sound_summary`, as a scikit-learn pipeline on samples or paths of WAV files."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import LinearSVC

    summaries = FunctionTransformer(lambda sounds: np.stack([sound_summary(sound) for sound in read_sounds(sounds)]))
    return make_pipeline(summaries, StandardScaler(), LinearSVC(C=0.05, max_iter=5000, random_state=seed))
