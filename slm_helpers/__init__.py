"""Thin helpers around Keras, NumPy and pandas for small recurrent language models.

A module lives in the folder of what it returns, and imports from folders above it only:

    data         the outside world to DataFrames
    text         strings to token ids and features
    metrics      predictions to tables with intervals
    models       sizes to networks, and folders of saved ones
    deploy       a saved network to what runs without Keras
    training     a network and arrays to weights
    generation   a network to a text
    baselines    what a network has to beat
    tasks        one task a module: train, evaluate, predict
    analysis     a model or a collection of texts to what can be said about it
    apps, plots, recipes, reports, cli   what is built on all of it
"""

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# The one place where the backend is chosen, and the one thing that importing this package changes: Keras reads the variable
# once, on its first import, so a later choice would be too late. TensorFlow trains recurrent layers fastest on a CPU.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# TensorFlow's start-up notes (about instruction sets and rounding) would end up in saved notebook outputs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Public names and where they stand; each is loaded when it is first asked for (PEP 562), so that importing the package costs nothing.
_PUBLIC = {
    "ClosedBookQA": "tasks.closed_book_qa",
    "DataToText": "tasks.data_to_text",
    "ExtractiveQA": "tasks.extractive_qa",
    "IntentSlotParser": "tasks.intent_slot",
    "KeywordSpotter": "tasks.keyword_spotting",
    "KnowledgeTracer": "tasks.knowledge_tracing",
    "LanguageModel": "tasks.language_modelling",
    "MultiLabelClassifier": "tasks.multilabel_classification",
    "QuestionGenerator": "tasks.question_generation",
    "TextClassifier": "tasks.text_classification",
    "TextGenerator": "generation.generator",
    "TokenTagger": "tasks.token_classification",
    "Translator": "tasks.translation",
    "describe_problems": "data.checks",
    "explain": "analysis.explain",
    "list_datasets": "data.loading",
    "load": "tasks",
    "load_dataset": "data.loading",
    "load_model": "tasks",
    "load_pretrained": "models.saved",
    "scrub": "analysis.scrubbing",
    "skipped_rows": "data.loading",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(_PUBLIC)}.")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
    value = globals()[name] = getattr(module, "load" if name == "load_model" else name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
