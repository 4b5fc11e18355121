"""Measure the tasks on public sets: the fine-tuned base beside strong simple baselines, into data/results/public.csv.

    SLM_DATA_DIR=... python -m slm_helpers.recipes.public_results [NAME ...]

Official splits; a missing valid part is dealt from train with a fixed seed. What stands in the table already is not run again, so a
run that was cut off goes on where it stopped: remove the rows, or the file, to measure anew.
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.baselines.classification import TfidfClassifier
from slm_helpers.baselines.extractive_qa import SpanBaseline
from slm_helpers.baselines.intent_slot import LinearIntentSlotParser
from slm_helpers.baselines.keyword_spotting import build_sound_classifier
from slm_helpers.baselines.nearest import NearestText
from slm_helpers.baselines.tagging import LinearTagger
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.results import read_results
from slm_helpers.metrics.classification import score_table
from slm_helpers.metrics.intent_slot import frame_table
from slm_helpers.metrics.question_answering import answer_table
from slm_helpers.metrics.tagging import tag_table
from slm_helpers.models.saved import load_pretrained
from slm_helpers.recipes.public_data_to_text import measure_writing
from slm_helpers.recipes.public_questions import measure_questions
from slm_helpers.recipes.public_tracing import measure_tracing
from slm_helpers.recipes.publishing import keep_scores, known_models, size_of
from slm_helpers.tasks import task_class
from slm_helpers.tasks.base import Evaluation, Task
from slm_helpers.tasks.closed_book_qa import ClosedBookQA
from slm_helpers.tasks.extractive_qa import ExtractiveQA
from slm_helpers.tasks.keyword_spotting import KeywordSpotter

import numpy as np
import pandas as pd

OUT_OF_SCOPE = "oos"
UNSURE = ", unsure rejected"  # the same model with a threshold on its confidence
BASE = "slm-base-en"
SOUND_BASELINE, SPOTTER = "MFCC means + linear SVM", "slm-listener"


@dataclass(frozen=True, kw_only=True)
class PublicRun:
    """How a public set is measured."""

    task: str
    seeds: tuple[int, ...] = (42, 43, 44)
    changes: dict[str, Any] = field(default_factory=dict)  # of TrainConfig
    bases: tuple[str, ...] = (BASE,)  # to start from, each in turn


RUNS = {
    "sst2": PublicRun(task="classify", changes={"epochs": 4}),
    "tweet_sentiment": PublicRun(task="classify", seeds=(42,), changes={"epochs": 3, "max_seconds": 540, "class_weight": "balanced"}),
    "airline_sentiment": PublicRun(task="classify", seeds=(42,), changes={"max_seconds": 540}),
    "financial_phrasebank": PublicRun(task="classify"),
    "imdb": PublicRun(task="classify", seeds=(42,), changes={"epochs": 3, "max_seconds": 540}),
    "ag_news": PublicRun(task="classify", seeds=(42,), changes={"epochs": 4, "max_seconds": 540}),
    "bbc_news": PublicRun(task="classify", seeds=(42,), changes={"epochs": 3}),
    "sms_spam": PublicRun(task="classify"),
    "trec_questions": PublicRun(task="classify"),
    "banking77": PublicRun(task="classify", seeds=(42,), changes={"epochs": 12, "max_seconds": 540}),
    "clinc150": PublicRun(task="classify", seeds=(42,), changes={"epochs": 12, "max_seconds": 540}),
    "bitext_customer_service": PublicRun(task="classify", seeds=(42,), changes={"epochs": 4, "max_seconds": 540}),
    "schema_guided_openings": PublicRun(task="classify", seeds=(42,), changes={"max_seconds": 540}),
    "conll2003_en": PublicRun(task="tag", seeds=(42,), changes={"max_seconds": 480.0}),
    "wnut17": PublicRun(task="tag", seeds=(42,)),
    "conll2002_es": PublicRun(task="tag", seeds=(42,), changes={"max_seconds": 480.0}),
    "xquad_en": PublicRun(task="answer", seeds=(42,), bases=(BASE, "slm-reader-en")),
    "webquestions": PublicRun(task="answer", seeds=(42,)),  # the first of several right answers counts
    "assistments2009": PublicRun(task="trace", seeds=(42,), changes={"epochs": 6, "batch_size": 32, "max_seconds": 160.0}),
    "snips": PublicRun(task="command", changes={"max_seconds": 1080.0}),
    "atis": PublicRun(task="command", changes={"epochs": 12, "max_seconds": 1080.0}),
    "e2e_nlg": PublicRun(task="write", seeds=(42,), changes={"epochs": 6, "batch_size": 16, "max_seconds": 1080.0}),
    "webnlg": PublicRun(task="write", seeds=(42,), changes={"epochs": 3, "batch_size": 32, "max_seconds": 1080.0}),
    "squad_question_generation": PublicRun(task="ask", seeds=(42,), changes={"epochs": 10, "max_seconds": 1080.0}),
    "fairytaleqa_questions": PublicRun(task="ask", seeds=(42,), changes={"max_seconds": 1080.0}),
    "spoken_digits": PublicRun(task="listen", changes={"epochs": 30}),
    "spoken_digits_speakers": PublicRun(task="listen", seeds=(42,), changes={"epochs": 20}),  # each left out in turn
}


def measure(name: str, run: PublicRun) -> None:
    """Measure baselines and the fine-tuned base on one set, but for what is in the table."""
    if run.task == "listen":
        return measure_sounds(name, run)
    known = known_models(name)
    if run.task in OWN_WAYS:
        for scores, about in OWN_WAYS[run.task](name, seeds=run.seeds, changes=run.changes, known=known):
            keep_scores(scores, about)
        return
    frame = load_dataset(name)
    if run.task == "command":
        frame["frame"] = list(zip(frame["intent"], frame["tags"], strict=True))
    rows_of = {split: frame[frame["split"] == split] for split in ("train", "valid", "test")}
    shared = {"task": run.task, "dataset": name, "split": "test", "train_rows": len(rows_of["train"])}
    names = _columns(run.task, frame)
    for model, baseline in _baselines(names, class_weight=run.changes.get("class_weight")).items():
        if (model, "42") in known:
            continue
        columns = {split: [_cells(run.task, rows_of[split][name]) for name in names] for split in ("train", "valid", "test")}
        options = {"validation_data": columns["valid"]} if isinstance(baseline, TfidfClassifier) else {}
        started = time.perf_counter()
        fitted = baseline.fit(*columns["train"], **options)
        seconds = time.perf_counter() - started
        *queries, references = columns["test"]
        about = shared | {"model": model, "seed": 42, "train_seconds": seconds}
        keep_scores(SCORES[run.task](references, fitted.predict(*queries)), about)
        if run.task == "classify" and OUT_OF_SCOPE in set(references) and hasattr(fitted, "predict_proba"):
            probs = {split: fitted.predict_proba(rows_of[split]["text"].tolist()) for split in ("valid", "test")}
            found = reject_unsure(probs, rows_of["valid"]["label"].to_numpy(), fitted.classes_.tolist())
            keep_scores(SCORES[run.task](references, found), about | {"model": model + UNSURE})
    rows = frame[frame["split"] != "test"]
    for base, seed in ((base, seed) for base in run.bases for seed in run.seeds):
        if (base, str(seed)) in known:
            continue
        started = time.perf_counter()
        alone, combine, suffix = _fit_alone(run, base, seed, rows)
        seconds = time.perf_counter() - started
        combined = combine(alone)
        # The one that is asked for above comes last.
        measured = {f"{base} + {suffix}": (combined, time.perf_counter() - started), base: (alone, seconds)}
        if run.task == "classify" and OUT_OF_SCOPE in alone.classes_:
            combined = alone.add_linear_model(rows, keep_valid=True)
            probs = {split: combined.predict_proba(rows_of[split]["text"]) for split in ("valid", "test")}
            found = reject_unsure(probs, rows_of["valid"]["label"].to_numpy(), combined.classes_)
            about = {"model": f"{base} + {suffix}{UNSURE}", "seed": seed, "train_seconds": time.perf_counter() - started}
            keep_scores(SCORES[run.task](rows_of["test"]["label"].to_numpy(), found), shared | about | size_of(combined.saved_))
        for model, (estimator, seconds) in measured.items():
            scores = with_out_of_scope(estimator.evaluate_frame(rows_of["test"]))
            about = {"model": model, "seed": seed, "train_seconds": seconds} | size_of(estimator.saved_)
            keep_scores(scores.metrics, shared | about)
        keras.backend.clear_session()
        gc.collect()


def _fit_alone(run: PublicRun, base: str, seed: int, rows: pd.DataFrame) -> tuple[Task, Callable[[Task], Task], str]:
    """Return the network fitted alone, what combines it with a linear model, and what the model is called then."""
    options = {"seed": seed, **run.changes}
    if run.task == "answer" and rows["context"].any():
        alone = ExtractiveQA(load_pretrained(base), features=False, **options).fit_frame(rows)
        return alone, lambda alone: alone.add_features(rows), "features"
    kind, suffix = (ClosedBookQA, "features") if run.task == "answer" else (task_class(run.task), "n-grams")
    alone = kind(load_pretrained(base), ngrams=False, **options).fit_frame(rows)
    return alone, lambda alone: alone.add_linear_model(rows), suffix


def measure_sounds(name: str, run: PublicRun) -> None:
    """Measure baseline and network on recordings: on the official split, or, for a name that ends in _speakers, on each speaker's
    recordings in turn with a model that learned from the others' (then the table's column split names the speaker).
    """
    frame = load_dataset(name.removesuffix("_speakers"))
    tests = {"test": (frame[frame["split"] != "test"], frame[frame["split"] == "test"])}
    if name.endswith("_speakers"):
        spoken = frame["speaker"]
        tests = {who: (frame[(spoken != who) & (frame["split"] != "test")], frame[spoken == who]) for who in sorted(set(spoken))}
    table = read_results("public")
    known = {(row.split, row.model, str(row.seed).removesuffix(".0")) for row in table[table["dataset"] == name].itertuples()}
    for split, (learned, asked) in tests.items():
        train = learned[learned["split"] == "train"]
        shared = {"task": run.task, "dataset": name, "split": split, "train_rows": len(train)}
        if (split, SOUND_BASELINE, "42") not in known:
            started = time.perf_counter()
            fitted = build_sound_classifier().fit(train["sound"].tolist(), train["label"].tolist())
            about = {"model": SOUND_BASELINE, "seed": 42, "train_seconds": time.perf_counter() - started}
            keep_scores(score_table(asked["label"].to_numpy(), fitted.predict(asked["sound"].tolist())), shared | about)
        for seed in run.seeds:
            if (split, SPOTTER, str(seed)) in known:
                continue
            started = time.perf_counter()
            spotter = KeywordSpotter(seed=seed, **run.changes).fit_frame(learned)
            about = {"model": SPOTTER, "seed": seed, "train_seconds": time.perf_counter() - started}
            about |= size_of(spotter.saved_)
            keep_scores(spotter.evaluate_frame(asked).metrics, shared | about)
            keras.backend.clear_session()


def _columns(task: str, frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns that a baseline reads and, last, the one it predicts."""
    if task == "command":
        return ("tokens", "frame")
    if task != "answer":
        return task_class(task).columns
    return ("context", "question", "answer") if frame["context"].any() else ("question", "answer")


def _baselines(columns: tuple[str, ...], *, class_weight: str | None) -> dict[str, Any]:
    """Return the unfitted baselines for such columns."""
    return {
        ("text", "label"): {
            "TF-IDF + linear SVM": TfidfClassifier(analyzer="word", C=1.0, class_weight=class_weight),
            "TF-IDF + logistic regression": TfidfClassifier(kind="logreg", analyzer="word", C=10.0, class_weight=class_weight),
            "TF-IDF of words and characters + linear SVM": TfidfClassifier(class_weight=class_weight),
        },
        ("tokens", "tags"): {"linear tagger": LinearTagger()},
        ("tokens", "frame"): {"linear SVM + linear tagger": LinearIntentSlotParser(analyzer="word")},
        ("question", "answer"): {"nearest question": NearestText()},
        ("context", "question", "answer"): {"log-linear model of spans": SpanBaseline()},
    }[columns]


def _cells(task: str, column: pd.Series) -> list:
    return [cell.split(" ") for cell in column] if task == "tag" else column.tolist()


def classification_scores(labels: Sequence[str], predictions: Sequence[str]) -> pd.DataFrame:
    """Return the scores of a classifier given its predictions, with those of out-of-scope detection where there is such a class."""
    scores = score_table(labels, predictions)
    confusion = pd.DataFrame({"label": labels, "prediction": predictions}).value_counts(sort=False).rename("rows").reset_index()
    return with_out_of_scope(Evaluation(rows=len(labels), metrics=scores, tables={"confusion": confusion})).metrics


def reject_unsure(probs: dict[str, np.ndarray], labels: np.ndarray, names: Sequence[str], *, given_up: float = 0.01) -> np.ndarray:
    """Return the classes of the rows of test, OUT_OF_SCOPE where no other class is likely enough.

    Args:
        probs: Probability of each class, shape (num_rows, num_classes), for the splits valid and test.
        labels: The right class of each row of valid.
        names: Of the classes, OUT_OF_SCOPE among them.
        given_up: Share of the in-scope rows of valid that may be lost for it: the threshold is the highest that costs no more.
    """
    inside = np.array(names) != OUT_OF_SCOPE
    known = np.array(names, dtype=object)[inside]
    best = {split: part[:, inside].argmax(axis=1) for split, part in probs.items()}
    confidence = {split: part[:, inside].max(axis=1) for split, part in probs.items()}
    asked = labels != OUT_OF_SCOPE
    plain = (np.array(names, dtype=object)[probs["valid"].argmax(axis=1)] == labels)[asked].sum()
    # Of the rows that are right, in ascending order of confidence, so many may fall below the threshold.
    right = np.sort(confidence["valid"][asked & (known[best["valid"]] == labels)])
    spare = max(0, len(right) - int(np.ceil(plain - given_up * asked.sum())))
    threshold = right[min(spare, len(right) - 1)] if len(right) else 0.0
    return np.where(confidence["test"] < threshold, OUT_OF_SCOPE, known[best["test"]])


def with_out_of_scope(scores: Evaluation) -> Evaluation:
    """Add in_scope_accuracy and oos_recall, with 95 % intervals, if the class OUT_OF_SCOPE occurs."""
    confusion = scores.tables.get("confusion")
    if confusion is None or OUT_OF_SCOPE not in set(confusion["label"]):
        return scores
    rows = [scores.metrics]
    rng = np.random.default_rng(42)
    for metric, part in (
        ("in_scope_accuracy", confusion[confusion["label"] != OUT_OF_SCOPE]),
        ("oos_recall", confusion[confusion["label"] == OUT_OF_SCOPE]),
    ):
        total, right = part["rows"].sum(), part.loc[part["label"] == part["prediction"], "rows"].sum()
        low, high = np.quantile(rng.binomial(total, right / total, size=2000) / total, [0.025, 0.975])
        rows.append(pd.DataFrame([{"metric": metric, "value": right / total, "ci_low": low, "ci_high": high}]))
    return replace(scores, metrics=pd.concat(rows, ignore_index=True))


OWN_WAYS = {"trace": measure_tracing, "write": measure_writing, "ask": measure_questions}
SCORES = {"classify": classification_scores, "tag": tag_table, "answer": answer_table, "command": frame_table}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m slm_helpers.recipes.public_results", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"sets to measure (default all: {', '.join(RUNS)})")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in RUNS]
    if unknown:
        parser.error(f"{unknown[0]} is not one of {', '.join(RUNS)}")
    for name in options.names or RUNS:
        measure(name, RUNS[name])


if __name__ == "__main__":
    main()
