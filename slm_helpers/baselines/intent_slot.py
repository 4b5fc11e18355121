"""Linear models of intent and slots."""

from collections.abc import Sequence

from slm_helpers.baselines.classification import build_tfidf_classifier
from slm_helpers.baselines.tagging import LinearTagger


class LinearCommander:
    """Read commands by two linear models: `build_tfidf_classifier` for the intent, `LinearTagger` for the slots."""

    def __init__(self, *, seed: int = 42):
        """Prepare untrained models; `seed` is of their solvers."""
        self.classifier, self.tagger = build_tfidf_classifier(seed=seed), LinearTagger(seed=seed)

    def fit(self, commands: Sequence[str], frames: Sequence[tuple[str, str]]) -> "LinearCommander":
        """Learn from commands and as many pairs of an intent and tags; words and tags are joined by single spaces."""
        self.classifier.fit(commands, [intent for intent, _ in frames])
        self.tagger.fit([text.split(" ") for text in commands], [tags.split(" ") for _, tags in frames])
        return self

    def predict(self, commands: Sequence[str]) -> list[tuple[str, str]]:
        """Return a pair of an intent and tags for each command."""
        tags = self.tagger.predict([text.split(" ") for text in commands])
        return [(str(intent), " ".join(row)) for intent, row in zip(self.classifier.predict(commands), tags, strict=True)]
