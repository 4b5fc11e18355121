"""Measure the writing of questions on a public set, beside its baselines; `public_results` calls it and keeps what it yields."""

import time
from collections.abc import Collection, Iterator
from typing import Any

from slm_helpers.baselines.question_generation import template_question
from slm_helpers.baselines.translation import build_translation_memory
from slm_helpers.data.loading import load_dataset
from slm_helpers.metrics.translation import translation_table
from slm_helpers.models.saved import load_pretrained
from slm_helpers.recipes.publishing import size_of
from slm_helpers.tasks.question_generation import QuestionGenerator
from slm_helpers.text.sentences import source_sentence
from slm_helpers.training.config import TrainConfig

import pandas as pd

BASE = "slm-base-en"


def load_question_rows(name: str) -> pd.DataFrame:
    """Return the columns context, question, answer, answer_start and split of a set of questions on passages or on sentences.

    A name that ends in _questions is that of a set of passages; only questions whose answer stands in theirs are kept. A set of
    sentences and questions has no answers ("").
    """
    frame = load_dataset(name.removesuffix("_questions"))
    if "target" in frame:
        frame = frame.rename(columns={"source": "context", "target": "question"}).assign(answer="", answer_start=-1)
    else:
        frame = frame[frame["answer_start"] >= 0]
    return frame[["context", "question", "answer", "answer_start", "split"]].reset_index(drop=True)


def measure_questions(
    name: str, *, seeds: Collection[int], changes: dict[str, Any], known: Collection[tuple[str, str]]
) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """Yield bleu and chrf on test of each model that is not known yet (model, seed), and what stands beside them in the table.

    Each question is compared with the one that a person asked of the same passage and answer (or sentence). Baselines: the sentence
    itself, the question of the nearest sentence of train and, where there are answers, the template.
    """
    frame = load_question_rows(name)
    parts = {split: rows.to_dict("records") for split, rows in frame.groupby("split")}
    train, test = parts["train"], parts["test"]
    wanted = [row["question"] for row in test]
    about = {"task": "ask", "dataset": name, "split": "test", "train_rows": len(train)}
    baselines = {
        "the sentence": lambda: [source_sentence(row) for row in test],
        "nearest question": lambda: (
            build_translation_memory()
            .fit([source_sentence(row) for row in train], [row["question"] for row in train])
            .predict([source_sentence(row) for row in test])
        ),
    }
    if test[0]["answer"]:
        baselines["template"] = lambda: [template_question(row["context"], row["answer"], int(row["answer_start"])) for row in test]
    for model, write in baselines.items():
        if (model, "42") in known:
            continue
        started = time.perf_counter()
        found = write()
        yield translation_table(wanted, found), about | {"model": model, "seed": 42, "train_seconds": time.perf_counter() - started}
    for seed in seeds:
        if (BASE, str(seed)) in known:
            continue
        started = time.perf_counter()
        config = TrainConfig(**changes)
        model = QuestionGenerator(load_pretrained(BASE), config=config, seed=seed).fit_frame(frame[frame["split"] != "test"])
        more = {"model": BASE, "seed": seed, "train_seconds": time.perf_counter() - started} | size_of(model.saved_)
        yield translation_table(wanted, [row["prediction"] for row in model.predict_rows(test)]), about | more
