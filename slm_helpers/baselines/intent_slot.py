"""Linear models of intent and slots."""

from collections.abc import Sequence

from slm_helpers.baselines.classification import TfidfClassifier
from slm_helpers.baselines.tagging import LinearTagger

from sklearn.base import BaseEstimator


class LinearIntentSlotParser(BaseEstimator):
    """Parse commands by two linear models: `TfidfClassifier` for the intent, `LinearTagger` for the slots.

    Args:
        analyzer: Features of the intent classifier.
        seed: Of the solvers.

    Attributes:
        classifier_, tagger_: The fitted models.
    """

    def __init__(self, *, analyzer: str = "both", seed: int = 42):
        self.analyzer, self.seed = analyzer, seed

    def fit(self, commands: Sequence[str], frames: Sequence[tuple[str, str]]) -> "LinearIntentSlotParser":
        """Learn from commands and as many pairs of an intent and tags; words and tags are joined by single spaces."""
        self.classifier_ = TfidfClassifier(analyzer=self.analyzer, seed=self.seed).fit(commands, [intent for intent, _ in frames])
        self.tagger_ = LinearTagger(seed=self.seed).fit(_words(commands), [tags.split(" ") for _, tags in frames])
        return self

    def predict(self, commands: Sequence[str]) -> list[tuple[str, str]]:
        """Return a pair of an intent and tags for each command."""
        tags = self.tagger_.predict(_words(commands))
        return [(str(intent), " ".join(row)) for intent, row in zip(self.classifier_.predict(commands), tags, strict=True)]


def _words(commands: Sequence[str]) -> list[list[str]]:
    return [text.split(" ") for text in commands]
