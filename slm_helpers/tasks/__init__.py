"""The tasks: one estimator and one module each.

TASKS holds, for the shell's word of a task, the module and the class: a new task is one module, one test file and one line here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from slm_helpers._checks import check_choice

if TYPE_CHECKING:
    from slm_helpers.tasks.base import Task

TASKS = {
    "classify": ("text_classification", "TextClassifier"),
    "multilabel": ("multilabel_classification", "MultiLabelClassifier"),
    "tag": ("token_classification", "TokenTagger"),
    "answer": ("extractive_qa", "ExtractiveQA"),
    "ask": ("question_generation", "QuestionGenerator"),
    "translate": ("translation", "Translator"),
    "write": ("data_to_text", "DataToText"),
    "trace": ("knowledge_tracing", "KnowledgeTracer"),
    "command": ("intent_slot", "IntentSlotParser"),
    "listen": ("keyword_spotting", "KeywordSpotter"),
    "lm": ("language_modelling", "LanguageModel"),
}


def task_class(task: str) -> type[Task]:
    """Return the estimator of a task by its word; only the module of that task is loaded, and no Keras."""
    check_choice(TASKS, task=task)
    module, name = TASKS[task]
    return getattr(importlib.import_module(f"slm_helpers.tasks.{module}"), name)


def load(folder: str | Path, *, engine: str | None = None) -> Task:
    """Open a model folder, or the pretrained model of that name, as the estimator of its task; no code from the folder is run.

    `engine` is that of `Task.load`: "onnx" predicts without Keras, "keras" can also be trained further.
    """
    from slm_helpers.models.folders import model_folder, read_config

    return task_class(read_config(model_folder(folder))["task"]).load(folder, engine=engine)
