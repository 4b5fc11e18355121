"""Measure knowledge tracing on a public set, beside its baselines; `public_results` calls it and keeps what it yields."""

import time
from collections.abc import Collection, Iterator
from typing import Any

from slm_helpers.baselines.knowledge_tracing import BayesianTracing, CountRegression, SkillRates
from slm_helpers.data.attempts import find_duplicate_skills, merge_duplicate_skills, order_attempts
from slm_helpers.data.loading import load_dataset
from slm_helpers.metrics.knowledge_tracing import trace_table
from slm_helpers.metrics.ranking import auc, auc_difference_interval
from slm_helpers.recipes.publishing import size_of
from slm_helpers.tasks.knowledge_tracing import KnowledgeTracer

import pandas as pd
from sklearn.dummy import DummyRegressor

MODEL = "slm-tracer"
BASELINES = {
    "overall rate": DummyRegressor,
    "rate of each skill": SkillRates,
    "logistic regression on counts": CountRegression,
    "Bayesian knowledge tracing": BayesianTracing,
}
MAX_ATTEMPTS = 200


def measure_tracing(
    name: str, *, seeds: Collection[int], changes: dict[str, Any], known: Collection[tuple[str, str]]
) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """Yield the scores on test of each model that is not known yet (model, seed), and what stands beside them in the table.

    Attempts that stand twice in the data, see `find_duplicate_skills`, are counted once. Of a skill that train lacks nothing can be told:
    attempts at it are left out. Of each learner the first MAX_ATTEMPTS count, as benchmarks
    of knowledge tracing cut histories (Liu et al. 2022, "pyKT"): in assistments2009 two of the 428 learners of test made a fifth of
    all its attempts, one of them the same right answer hundreds of times in a row. Scores are those of `trace_table`; for the
    network also the AUC it gains over each baseline, with the paired interval.
    """
    frame = load_dataset(name)
    frame = merge_duplicate_skills(frame, find_duplicate_skills(frame[frame["split"] == "train"]))
    frame = order_attempts(frame).groupby("student").head(MAX_ATTEMPTS)
    frame = frame[frame["skill"].isin(frame.loc[frame["split"] == "train", "skill"])]
    train, test = (frame[frame["split"] == split].reset_index(drop=True) for split in ("train", "test"))
    about = {"task": "trace", "dataset": name, "split": "test", "train_rows": len(train)}
    correct, students = test["correct"].to_numpy(), test["student"].to_numpy()
    new_seeds = [seed for seed in seeds if (MODEL, str(seed)) not in known]
    others = {}
    for model, build in BASELINES.items():
        is_new = (model, "42") not in known
        if not (is_new or new_seeds):
            continue
        started = time.perf_counter()
        fitted = build().fit(train, train["correct"])
        seconds = time.perf_counter() - started
        others[model] = fitted.predict(test)
        if is_new:
            yield trace_table(correct, others[model], students), about | {"model": model, "seed": 42, "train_seconds": seconds}
    for seed in new_seeds:
        started = time.perf_counter()
        tracer = KnowledgeTracer(seed=seed, **changes).fit_frame(frame)
        seconds = time.perf_counter() - started
        probs = tracer.predict_proba(test)[:, 1]
        scores = trace_table(correct, probs, students)
        area = scores.set_index("metric").loc["auc", "value"]
        gains = [
            (f"auc_gain over {model}", area - auc(correct, other), *auc_difference_interval(correct, probs, other, students))
            for model, other in others.items()
        ]
        scores = pd.concat([scores, pd.DataFrame(gains, columns=list(scores.columns))], ignore_index=True)
        yield scores, about | {"model": MODEL, "seed": seed, "train_seconds": seconds} | size_of(tracer.saved_)
