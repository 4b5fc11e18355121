"""From labelled texts to a verdict: which model to use, how good it is on unseen texts, and which rows to look at.

Every rival learns from the rows of train alone; valid chooses their settings and between them; test is read once, at the end.

Reference:
    Northcutt, Jiang and Chuang (2021), "Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv:1911.00068.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from slm_helpers.analysis.explain import explain_rows
from slm_helpers.baselines.classification import TfidfClassifier
from slm_helpers.data.checks import describe_problems
from slm_helpers.metrics.classification import calibration_error, class_table, confusion_table, score_table
from slm_helpers.metrics.intervals import mean_interval
from slm_helpers.tasks.text_classification import TextClassifier, linear_classifier
from slm_helpers.text.languages import NAMES, detect_languages
from slm_helpers.text.tfidf import MANY_ROWS_TIMES_CLASSES, build_tfidf

import numpy as np
import pandas as pd

MAJORITY, LINEAR, NGRAMS, NETWORK, BOTH = (
    *("majority class", "TF-IDF, linear", "n-gram model"),
    *("network", "network and n-grams"),
)
SHIPPED = (NGRAMS, NETWORK, BOTH)  # what a model folder can hold
TARGET_ACCURACY = 0.95  # of the texts that are answered, where the others go to a person
_CHI_SQUARED = 3.84  # 95 % point with one degree of freedom
_CURVE = (0.125, 0.25, 0.5, 1.0)  # shares of train on the learning curve
_CURVE_DRAWS = 3
_FOLDS = 5
_MANY_ROWS = 3_000  # from which on label errors are looked for by words alone, with a faster solver
_LANGUAGE_TEXTS = 2000  # that are looked at
_MOST_MISTAKES, _EXPLAINED_WORDS = 100, 5_000  # of test that are explained, and their words together: each is a text to read
_NETWORK_SHARE = 0.6  # of the time


@dataclass
class Rival:
    """A model and what it says of valid and test; what can be saved also tells how sure it is."""

    name: str
    predictions: dict[str, np.ndarray]  # labels, of valid and test
    seconds: float
    confidence: dict[str, np.ndarray] = field(default_factory=dict)
    valid_loss: float = float("nan")  # nats of the labels of valid
    estimator: TextClassifier | None = None


@dataclass
class TextReport:
    """What came out; tables are DataFrames, and texts of the data stand in `mistakes`, `rows_to_check` and `predictions`."""

    labels: list[str]
    rows: dict[str, int]
    warnings: list[str]
    rivals: list[Rival]
    chosen: Rival
    verdict: str
    models: pd.DataFrame  # model, metric, value, ci_low, ci_high on test; accuracy_valid and seconds
    differences: pd.DataFrame  # accuracy of the chosen model minus that of each other one, with intervals
    classes: pd.DataFrame
    confusion: pd.DataFrame
    abstention: pd.DataFrame  # share answered, accuracy of those, on test; and the confidence from which on
    advice: dict[str, float]  # the threshold that valid chooses for TARGET_ACCURACY, and what it gives on test
    calibration_error: float
    curve: pd.DataFrame  # rows of train, accuracy of the linear model
    twice: float  # points of accuracy that twice the rows would add, if the curve goes on
    words: pd.DataFrame
    by_length: pd.DataFrame
    mistakes: pd.DataFrame  # on test, the surest first: text, label, prediction, confidence and the words that count for the prediction
    rows_to_check: pd.DataFrame
    predictions: pd.DataFrame
    ordinal_error: float  # mean distance where labels are numbers, else NaN


def report_on_texts(
    frame: pd.DataFrame,
    *,
    base: Any = "slm-base-en",
    max_minutes: float = 10.0,
    seed: int = 42,
    say: Callable[[str], None] = lambda line: None,
) -> TextReport:
    """Train a classifier of texts and its rivals, choose on valid, score on test.

    Args:
        frame: From `load_dataset`: text, label and split, with rows of all three splits.
        base: Where the network starts from; None for random weights.
        max_minutes: For everything; a run that it cuts short is not repeatable.
        seed: Of everything that is drawn.
        say: Gets a line before each step.

    Raises:
        ValueError: If a split has no rows, or train has fewer than two classes.
    """
    started = time.perf_counter()
    frame = frame.assign(label=frame["label"].astype(str)).reset_index(drop=True)
    frame, several = _with_one_label(frame)
    TextClassifier().check_frame(frame)
    parts = {split: frame[frame["split"] == split] for split in ("train", "valid", "test")}
    missing = [split for split, rows in parts.items() if not len(rows)]
    if missing:
        raise ValueError(f"There are no rows of {missing[0]}. Leave the column split out: then rows are dealt 80/10/10.")
    labels = sorted(set(parts["train"]["label"]))
    parts = {split: rows[rows["label"].isin(labels)] for split, rows in parts.items()}
    warnings = describe_problems(frame, task="classify", show_texts=False)
    say("n-gram models and TF-IDF")
    linear, C = _linear(parts, seed)
    rivals = [_majority(parts), linear, _ngrams(parts, seed)]
    say("the network")
    left = 60 * max_minutes - (time.perf_counter() - started)
    rivals += _networks(frame[frame["label"].isin(labels)], parts, base, seed, max(10.0, _NETWORK_SHARE * left))
    truth = {split: rows["label"].to_numpy(dtype=object) for split, rows in parts.items()}
    right = {rival.name: rival.predictions["test"] == truth["test"] for rival in rivals}
    on_valid = {rival.name: float((rival.predictions["valid"] == truth["valid"]).mean()) for rival in rivals}
    by_name = {rival.name: rival for rival in rivals}
    chosen = by_name[choose({name: by_name[name].valid_loss for name in SHIPPED})]
    differences = _differences(right, chosen.name)
    say("learning curve and label errors")
    curve = _learning_curve(parts, C, seed)
    predicted, confidence = chosen.predictions["test"], chosen.confidence
    correct = {"valid": chosen.predictions["valid"] == truth["valid"], "test": right[chosen.name]}
    abstention, advice = _abstention(confidence, correct)
    predictions = parts["test"][["text", "label"]].assign(prediction=predicted, confidence=confidence["test"].round(4))
    return TextReport(
        labels=labels,
        rows={split: len(rows) for split, rows in parts.items()},
        warnings=[*several, *warnings, *foreign_texts(frame, base), *_thin_test(parts)],
        rivals=rivals,
        chosen=chosen,
        verdict=_verdict(chosen.name, right, differences),
        models=pd.concat(
            [
                score_table(truth["test"], rival.predictions["test"], seed=seed).assign(
                    model=rival.name, accuracy_valid=on_valid[rival.name], seconds=rival.seconds
                )
                for rival in rivals
            ],
            ignore_index=True,
        ),
        differences=differences,
        classes=class_table(truth["test"], predicted, labels),
        confusion=confusion_table(truth["test"], predicted, labels),
        abstention=abstention,
        advice=advice,
        calibration_error=calibration_error(confidence["test"], correct["test"]),
        curve=curve,
        twice=_gain_of_twice(curve),
        words=_words_that_count(parts, C, seed),
        by_length=_by_length(parts["test"], correct["test"]),
        mistakes=_mistakes(chosen.estimator, predictions),
        rows_to_check=find_label_errors(frame, seed=seed),
        predictions=predictions,
        ordinal_error=_ordinal_error(truth["test"], predicted),
    )


def _with_one_label(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows without those that have several labels joined by commas, and a line on them."""
    alone = set(frame.loc[~frame["label"].str.contains(","), "label"])
    split = frame["label"].str.split(",")
    several = split.map(lambda labels: len(labels) > 1 and all(label.strip() in alone for label in labels))
    if not several.any():
        return frame, []
    line = (
        f"{int(several.sum()):,} of {len(frame):,} rows have several labels in one cell, e.g. {frame.loc[several, 'label'].iloc[0]!r}, "
        "and are left out, of the test part too: a text gets one label here."
    )
    return frame[~several], [line]


def _majority(parts: dict[str, pd.DataFrame]) -> Rival:
    label = parts["train"]["label"].mode().iloc[0]
    return Rival(MAJORITY, {split: np.full(len(parts[split]), label, dtype=object) for split in ("valid", "test")}, 0.0)


def _linear(parts: dict[str, pd.DataFrame], seed: int) -> tuple[Rival, float]:
    """Return the linear model on TF-IDF and the C that valid chose for it."""
    started = time.perf_counter()
    pairs = {split: (rows["text"].tolist(), rows["label"].tolist()) for split, rows in parts.items()}
    model = TfidfClassifier(C=1.0 if _is_large(parts["train"]) else None, seed=seed).fit(*pairs["train"], validation_data=pairs["valid"])
    predictions = {split: model.predict(pairs[split][0]).astype(object) for split in ("valid", "test")}
    return Rival(LINEAR, predictions, time.perf_counter() - started), model.C_


def _ngrams(parts: dict[str, pd.DataFrame], seed: int) -> Rival:
    started = time.perf_counter()
    tried = {"l2s": (1.0,)} if _is_large(parts["train"]) else {}
    return _rival(NGRAMS, linear_classifier(parts["train"], parts["valid"], seed=seed, **tried), parts, started)


def _is_large(train: pd.DataFrame) -> bool:
    return len(train) * train["label"].nunique() > MANY_ROWS_TIMES_CLASSES


def _networks(frame: pd.DataFrame, parts: dict[str, pd.DataFrame], base: Any, seed: int, seconds: float) -> list[Rival]:
    started = time.perf_counter()
    network = TextClassifier(base, ngrams=False, seed=seed, max_seconds=seconds).fit_frame(frame, keep_valid=True)
    alone = _rival(NETWORK, network, parts, started)
    both = network.add_linear_model(frame[frame["split"] != "test"], keep_valid=True)
    return [alone, _rival(BOTH, both, parts, started)]


def _rival(name: str, model: TextClassifier, parts: dict[str, pd.DataFrame], started: float) -> Rival:
    probs = {split: model.predict_proba(parts[split]["text"].tolist()) for split in ("valid", "test")}
    predictions = {split: model.classes_[rows.argmax(axis=1)] for split, rows in probs.items()}
    confidence = {split: rows.max(axis=1) for split, rows in probs.items()}
    columns = np.searchsorted(model.classes_, parts["valid"]["label"].to_numpy(dtype=object))
    loss = -np.log(np.maximum(probs["valid"][np.arange(len(columns)), columns], 1e-12)).sum()
    return Rival(name, predictions, time.perf_counter() - started, confidence, float(loss), model)


def choose(losses: dict[str, float]) -> str:
    """Return the model to use, by the negative log-likelihood of the labels of valid under each of SHIPPED, in nats over all rows.

    The combined model has one weight more, fitted on valid, than its better half: it is taken if a likelihood-ratio test (5 %) says that
    this is no luck. Log-likelihood tells models apart on far fewer rows than accuracy does.

    Reference:
        Wilks (1938), "The Large-Sample Distribution of the Likelihood Ratio for Testing Composite Hypotheses".
    """
    half = min((NGRAMS, NETWORK), key=lambda name: losses[name])
    return BOTH if losses[half] - losses[BOTH] > _CHI_SQUARED / 2 else half


def _differences(right: dict[str, np.ndarray], chosen: str) -> pd.DataFrame:
    rows = []
    for name, other in right.items():
        if name != chosen:
            difference = right[chosen].astype(float) - other
            low, high = mean_interval(difference)
            rows.append({"model": name, "points": 100 * difference.mean(), "ci_low": 100 * low, "ci_high": 100 * high})
    return pd.DataFrame(rows)


def _verdict(chosen: str, right: dict[str, np.ndarray], differences: pd.DataFrame) -> str:
    table = differences.set_index("model")

    def against(name: str) -> str:
        row = table.loc[name]
        unclear = ", no clear difference" if row["ci_low"] <= 0 <= row["ci_high"] else ""
        return f"{row['points']:+.1f} points [{row['ci_low']:+.1f}, {row['ci_high']:+.1f}]{unclear}"

    accuracy = f"{right[chosen].mean():.0%} of {len(right[chosen]):,} unseen texts"
    if table.loc[MAJORITY, "ci_low"] <= 0:
        return f"Use none yet: {chosen} is not clearly better than always the majority class ({against(MAJORITY)}), with {accuracy}."
    if chosen == NGRAMS:
        return f"Use the n-gram model ({accuracy}): the network adds nothing on valid; on test the difference to it is {against(NETWORK)}."
    rivals = f"against TF-IDF with a linear model {against(LINEAR)}"
    if table.loc[NGRAMS, "ci_low"] <= 0:
        return f"Use {chosen} ({accuracy}) or the far smaller n-gram model: {against(NGRAMS)}; {rivals}."
    return f"Use {chosen} ({accuracy}): {rivals}; against the n-gram model {against(NGRAMS)}."


def _abstention(confidence: dict[str, np.ndarray], correct: dict[str, np.ndarray]) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return the accuracy of the surest texts of test by their share, and what the threshold gives that valid chooses."""
    order = np.argsort(-confidence["test"], kind="stable")
    rows = []
    for share in np.linspace(0.1, 1.0, 10):
        picked = order[: max(1, round(share * len(order)))]
        rows.append({"answered": share, "accuracy": correct["test"][picked].mean(), "confidence_from": confidence["test"][picked].min()})
    order = np.argsort(-confidence["valid"], kind="stable")
    enough = np.flatnonzero(np.cumsum(correct["valid"][order]) / np.arange(1, len(order) + 1) >= TARGET_ACCURACY)
    threshold = float(confidence["valid"][order[enough[-1]]]) if len(enough) else 1.0
    answered = confidence["test"] >= threshold
    advice = {"threshold": threshold, "answered": float(answered.mean()), "handed_over": int((~answered).sum())}
    advice["accuracy"] = float(correct["test"][answered].mean()) if answered.any() else float("nan")
    return pd.DataFrame(rows), advice


def _learning_curve(parts: dict[str, pd.DataFrame], C: float, seed: int) -> pd.DataFrame:
    """Return the accuracy on test of the linear model by rows of train, over draws."""
    test, rows = parts["test"], []
    analyzer = "word" if _is_large(parts["train"]) else "both"
    for share in _CURVE:
        for draw in range(_CURVE_DRAWS if share < 1 else 1):
            sample = parts["train"].sample(frac=share, random_state=seed + draw)
            if sample["label"].nunique() < 2:
                continue
            model = TfidfClassifier(analyzer=analyzer, C=C, seed=seed).fit(sample["text"].tolist(), sample["label"].tolist())
            rows.append({"rows": len(sample), "accuracy": float((model.predict(test["text"].tolist()) == test["label"]).mean())})
    return pd.DataFrame(rows)


def _gain_of_twice(curve: pd.DataFrame) -> float:
    """Return the points of accuracy that twice the rows would add, by a power law of the error through the curve."""
    means = curve.groupby("rows")["accuracy"].mean()
    error = 1 - means.to_numpy()
    if len(means) < 3 or (error <= 0).any():
        return float("nan")
    slope, _ = np.polyfit(np.log(means.index.to_numpy(dtype=float)), np.log(error), 1)
    return float(100 * error[-1] * (1 - 2**slope))


def _words_that_count(parts: dict[str, pd.DataFrame], C: float, seed: int, *, num: int = 8) -> pd.DataFrame:
    """Return the words that speak most for each class in a linear model of words alone: columns label and words."""
    train = parts["train"]
    model = TfidfClassifier(analyzer="word", C=C, seed=seed).fit(train["text"].tolist(), train["label"].tolist())
    vectorizer, linear = model.pipeline_[0], model.pipeline_[-1]
    names = vectorizer.get_feature_names_out()
    weights = np.concatenate([-linear.coef_, linear.coef_]) if len(linear.coef_) == 1 else linear.coef_
    return pd.DataFrame(
        [{"label": label, "words": ", ".join(names[np.argsort(-row)[:num]])} for label, row in zip(model.classes_, weights, strict=True)]
    )


def _by_length(test: pd.DataFrame, correct: np.ndarray) -> pd.DataFrame:
    words = test["text"].str.split().str.len().to_numpy()
    table = pd.DataFrame({"group": pd.qcut(words, 4, labels=False, duplicates="drop"), "right": correct, "size": words}).groupby("group")
    found = table.agg(rows=("right", "size"), accuracy=("right", "mean"), least=("size", "min"), most=("size", "max"))
    found.insert(0, "words", [f"{least} to {most}" for least, most in zip(found["least"], found["most"], strict=True)])
    return found[["words", "rows", "accuracy"]].reset_index(drop=True)


def _mistakes(model: TextClassifier, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the surest mistakes with the words that count for the prediction, as many as there is time to explain."""
    wrong = predictions[predictions["label"] != predictions["prediction"]].sort_values("confidence", ascending=False, kind="stable")
    words = wrong["text"].str.split().str.len().cumsum()
    shown = wrong.head(max(1, min(_MOST_MISTAKES, int((words <= _EXPLAINED_WORDS).sum()))))
    return shown.assign(words=explain_rows(model, shown.to_dict("records"), ".csv") if len(shown) else []).reset_index(drop=True)


def find_label_errors(frame: pd.DataFrame, *, seed: int = 42) -> pd.DataFrame:
    """Return rows whose label is likely wrong, the best founded doubt first, by predictions of models that have not seen them.

    Args:
        frame: Columns text, label (strings) and split; classes with fewer than five rows are left out.
        seed: Of the folds.

    Returns:
        row (index of the frame plus 1), split, text, label, suggested, probability (of the suggested class), probability_of_label.

    Reference:
        Northcutt, Jiang and Chuang (2021), arXiv:1911.00068.
    """
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    counts = frame["label"].value_counts()
    known = frame[frame["label"].isin(counts.index[counts >= _FOLDS])]
    columns = ["row", "split", "text", "label", "suggested", "probability", "probability_of_label"]
    if known["label"].nunique() < 2:
        return pd.DataFrame(columns=columns)
    model = TfidfClassifier(kind="logreg", C=10.0, seed=seed)
    if len(known) > _MANY_ROWS:
        model = make_pipeline(build_tfidf("word"), SGDClassifier(loss="log_loss", alpha=0.1 / len(known), max_iter=20, random_state=seed))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    probs = cross_val_predict(model, known["text"].to_numpy(), known["label"].to_numpy(), cv=folds, method="predict_proba")
    names = np.array(sorted(known["label"].unique()), dtype=object)
    codes = known["label"].map({name: code for code, name in enumerate(names)}).to_numpy()
    given = probs[np.arange(len(probs)), codes]
    usual = np.array([given[codes == code].mean() for code in range(len(names))])  # how sure of its own rows a class is
    sure = np.where(probs >= usual, probs, -1.0)
    suggested = sure.argmax(axis=1)
    doubtful = (sure.max(axis=1) > 0) & (suggested != codes)
    table = known.assign(row=known.index + 1, suggested=names[suggested], probability_of_label=given)
    table["probability"] = probs[np.arange(len(probs)), suggested]
    table = table[doubtful].assign(margin=lambda t: t["probability"] - t["probability_of_label"])
    table = table.sort_values("margin", ascending=False, kind="stable")[columns].reset_index(drop=True)
    return table.round({"probability": 4, "probability_of_label": 4})


def foreign_texts(frame: pd.DataFrame, base: Any) -> list[str]:
    """Return a line where most texts are not in the language of the base."""
    texts = frame["text"].sample(min(_LANGUAGE_TEXTS, len(frame)), random_state=0)
    counts = pd.Series(detect_languages(texts)).replace("", np.nan).dropna().value_counts(normalize=True)
    if base is None or not len(counts) or counts.get("en", 0.0) >= 0.5:
        return []
    shares = ", ".join(f"{share:.0%} {NAMES[code]}" for code, share in counts.head(3).items())
    return [f"By their words the texts are {shares}; the base model has read English, so it helps little: look at the n-gram model first."]


def _thin_test(parts: dict[str, pd.DataFrame]) -> list[str]:
    if len(parts["test"]) >= 100:
        return []
    return [f"test has only {len(parts['test'])} rows: intervals are wide, and small differences say nothing."]


def _ordinal_error(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean distance of labels that are numbers, NaN for others."""
    numbers = [pd.to_numeric(pd.Series(values), errors="coerce") for values in (truth, predicted)]
    return float("nan") if any(values.isna().any() for values in numbers) else float((numbers[0] - numbers[1]).abs().mean())
