"""Answers to questions: a span of a given passage or "no answer"; or, without passages, one of the answers learned by heart."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from slm_helpers._backend import cached_on, keras
from slm_helpers.metrics.question_answering import answer_table, exact_matches, token_f1_scores
from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.reader import build_span_extractor, make_span_head
from slm_helpers.models.registry import backbone_config, load_backbone_weights
from slm_helpers.models.saved import SavedModel
from slm_helpers.tasks import text_classification as classify
from slm_helpers.tasks.base import Evaluation, starting_tokenizer
from slm_helpers.tasks.cloze import make_cloze
from slm_helpers.tasks.reading import NUM_FEATURES, Reading, answer_examples, describe_examples, warn_of
from slm_helpers.tasks.spans import SHARES, SHARES_ALONE, best_answers, fit_shares, fit_span_model, longest_answer, score_spans
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.training.batches import Examples, encode_texts
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples, softmax

import numpy as np
import pandas as pd

COLUMNS = ("context", "question", "answer", "answer_start")


PREDICT_COLUMNS = ("context", "question")


GOES_ON = True  # from an earlier model of this task too


SCRATCH = {"embedding_dim": 128, "units": 192}  # size of a network without a base


DEFAULT = TrainConfig(epochs=20, batch_size=16, learning_rate=2e-3, layer_decay=0.85, patience=5)


_MAX_KEPT = 800_000  # tokens of passages whose states are kept in training, some 1.5 kB each


def train(
    frame: pd.DataFrame,
    *,
    base: SavedModel | None,
    config: TrainConfig = TrainConfig(),
    dropout: float = 0.4,
    num_cloze: int = 1500,
    features: bool = True,
    whole: bool = False,
) -> tuple[SavedModel, pd.DataFrame]:
    """Learn to answer from the columns context, question, answer, answer_start and split.

    With passages the model learns to find the span of the answer, after a first round on questions made of the training passages
    themselves: a sentence with a gap is the question and what stood there the answer (Dhingra et al. 2018). Where all contexts are
    empty it learns the training answers by heart and chooses among them. A linear model is fitted beside the network, see
    `add_features`; the score of an answer is the sum of both, in the shares that tell the answers of valid best.

    Args:
        frame: From `load_dataset`; the split valid, if there, chooses the epoch and calibrates the confidence.
        base: A language model to start from, or a reader of an earlier run to go on with, e.g. slm-reader-en; None starts from
            random weights.
        config: Settings of the training.
        dropout: Share of activations dropped in training.
        num_cloze: Questions made of the training passages; 0 for none.
        features: Put the linear model beside the network; else the network has to do alone.
        whole: Where passages are read, let the layers of the base learn too. Else they stay as they are, and what they make of
            each text is computed once for all passes, which is many times faster.

    Returns:
        The model with its tokeniser, labels (the known answers, where there are no passages) and settings, and the history of
        its training.

    Raises:
        ValueError: If some rows have a context and some have none, no training row can be used, or the base is a model of another
            task.

    Reference:
        Dhingra et al. (2018), "Simple and Effective Semi-Supervised Question Answering", arXiv:1804.00720.
    """
    config = config.with_defaults(DEFAULT)
    check_rows(frame)
    if base is not None and base.task not in ("lm", "answer"):
        raise ValueError(
            f"The base is a model for the task {base.task!r}, but a reader starts from a language model or goes on from an earlier reader."
        )
    keras.utils.set_random_seed(config.seed)
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    if (frame["context"] == "").all():
        saved, history = _train_facts(parts, base=base, config=config, dropout=dropout)
    else:
        saved, history = _train_reader(parts, base=base, config=config, dropout=dropout, num_cloze=num_cloze, whole=whole)
    if features:
        return add_features(saved, frame, seed=config.seed), history
    if saved.settings["form"] == "span":
        saved = _with_shares(saved, parts.get("valid"))
    return _with_confidence(saved, parts.get("valid")), history


def add_features(saved: SavedModel, frame: pd.DataFrame, *, seed: int = 42) -> SavedModel:
    """Put a linear model beside the network of `train`: of features of spans, or without passages of n-grams of the question.

    Args:
        saved: From `train` with features=False; it stays as it is.
        frame: The rows it was trained on; the split valid, if there, tells how much of either to add.
        seed: Of the linear model.
    """
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    if saved.settings["form"] == "facts":
        known = frame[frame["answer"].isin(saved.labels)]
        rows = pd.DataFrame({"text": known["question"], "label": known["answer"], "split": known["split"]})
        return _with_confidence(classify.add_ngrams(saved, rows, keep_valid=True, seed=seed), parts.get("valid"))
    settings = saved.settings | fit_span_model(saved.tokenizer, parts["train"], seed=seed) | {"shares": SHARES}
    return _with_confidence(_with_shares(replace(saved, settings=settings), parts.get("valid")), parts.get("valid"))


def check_rows(frame: pd.DataFrame) -> None:
    """Raise ValueError if some rows have a context and some have none."""
    empty = (frame["context"] == "").to_numpy()
    if empty.any() and not empty.all():
        raise ValueError(
            f"{empty.sum()} of {len(frame)} rows have no context, e.g. row {int(np.flatnonzero(empty)[0]) + 1} "
            f"({frame['question'].iloc[int(np.flatnonzero(empty)[0])]!r:.60}). One model either reads passages or answers from memory: "
            "put the rows with an empty context into a file of their own and train a model on each file."
        )


def evaluate(saved: SavedModel, frame: pd.DataFrame) -> Evaluation:
    """Score a model on the columns context, question and answer.

    Returns:
        exact_match and token_f1 in the manner of SQuAD with 95 % intervals over questions; no_answer_recall, where there are
        questions without an answer: the share of them that it leaves unanswered. With a column kind, the table kinds: exact_match
        and token_f1 for each.

    Raises:
        ValueError: If a row has a context and the model was trained without, or the reverse.
    """
    answers = frame["answer"].tolist()
    guesses, _ = _answers(saved, frame.to_dict("records"))
    tables = {}
    if "kind" in frame:
        scores = pd.DataFrame({"exact_match": exact_matches(answers, guesses), "token_f1": token_f1_scores(answers, guesses)})
        kinds = scores.groupby(frame["kind"].to_numpy())
        tables["kinds"] = kinds.mean().assign(rows=kinds.size()).rename_axis("kind").reset_index()
    return Evaluation(rows=len(frame), metrics=answer_table(answers, guesses), tables=tables)


def predict(saved: SavedModel, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return prediction ("" for no answer) and confidence (calibrated probability of being right) for rows with context and question."""
    guesses, probs = _answers(saved, rows)
    slope, shift = saved.settings.get("confidence", (1.0, 0.0))
    confidence = 1 / (1 + np.exp(-(slope * _logit(probs) + shift)))
    return [{"prediction": guess, "confidence": round(float(p), 4)} for guess, p in zip(guesses, confidence, strict=True)]


def fit_confidence(probs: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return slope and shift so that sigmoid(slope * logit(probability) + shift) tells how often a prediction is right.

    Args:
        probs: The probability that the model gives each of its predictions, on rows that were not trained on.
        right: 1 for the predictions that were right, else 0.

    Reference:
        Platt (1999), "Probabilistic Outputs for Support Vector Machines", with his counts that keep few rows from certainty.
    """
    from sklearn.linear_model import LogisticRegression

    right = np.asarray(right, dtype="float64")
    hits, misses = right.sum(), (1 - right).sum()
    wanted = np.where(right > 0, (hits + 1) / (hits + 2), 1 / (misses + 2))
    scores = _logit(probs)[:, None]
    model = LogisticRegression(C=10.0)
    model.fit(np.concatenate([scores, scores]), np.repeat([1, 0], len(scores)), sample_weight=np.concatenate([wanted, 1 - wanted]))
    return max(float(model.coef_[0, 0]), 0.0), float(model.intercept_[0])


def reader_from_base(base: keras.Model, *, dropout: float = 0.4) -> keras.Model:
    """Build a reader in the shape of a language model and copy the shared layers, or copy a whole reader.

    Args:
        base: From `build_language_model`, e.g. `load_pretrained("slm-base-en").model`, or from `build_span_extractor`.
        dropout: Share of activations dropped in training.
    """
    recipe = json.loads(base.builder_config)
    if recipe["builder"] == "build_span_extractor":
        model = build_span_extractor(**recipe["arguments"] | {"dropout": dropout})
        model.set_weights(base.get_weights())
        return model
    model = build_span_extractor(**backbone_config(base), num_features=NUM_FEATURES, dropout=dropout)
    load_backbone_weights(model, base)
    return model


def fit_reader(
    model: keras.Model,
    train: Examples,
    valid: Examples | None,
    *,
    config: TrainConfig,
    kept: dict[bytes, tuple[np.ndarray, np.ndarray]] | None,
) -> pd.DataFrame:
    """Train a reader, its weights are changed in place; returns the history of `fit_examples`.

    Args:
        model: From `build_span_extractor`.
        train: From `answer_examples`, as is valid.
        valid: Chooses the pass; None for none.
        config: Settings of the training.
        kept: The layers of the language model stay as they are, and what they make of texts is kept here, empty to begin with;
            None trains all layers. So it is with very many passages, which would fill the memory; these layers are frozen then.
    """
    if kept is None:
        return fit_examples(model, train, valid, config=config)
    num_tokens = sum({ids.tobytes(): len(ids) for part in (train, valid) if part is not None for ids in part.inputs["passage"]}.values())
    config = replace(config, layer_decay=1.0, frozen=())
    if num_tokens > _MAX_KEPT:
        return fit_examples(model, train, valid, config=replace(config, frozen=_layers_of_language_model(model)))
    described = [examples and describe_examples(model, examples, kept) for examples in (train, valid)]
    return fit_examples(cached_on(model, "reader_head", lambda: make_span_head(model)), *described, config=config)


def _layers_of_language_model(reader: keras.Model) -> tuple[str, ...]:
    arguments = json.loads(reader.builder_config)["arguments"]
    return ("embedding", *(f"{arguments['cell']}_{i}" for i in range(arguments["num_layers"])))


def _train_reader(
    parts: dict[str, pd.DataFrame], *, base: SavedModel | None, config: TrainConfig, dropout: float, num_cloze: int, whole: bool
) -> tuple[SavedModel, pd.DataFrame]:
    """Train a network that finds spans."""
    contexts = list(dict.fromkeys(parts["train"]["context"]))
    tokenizer = starting_tokenizer(base, [*contexts, *parts["train"]["question"]])
    if base is None:
        model = build_span_extractor(tokenizer.vocab_size, num_features=NUM_FEATURES, dropout=dropout, **SCRATCH)
    else:
        model = reader_from_base(base.model, dropout=dropout)
    reading = Reading(tokenizer)
    train = answer_examples(reading, parts["train"], name="train")
    valid = answer_examples(reading, parts["valid"], name="valid", same_length=True) if "valid" in parts else None
    kept = None if whole or base is None else {}
    rounds = []
    if num_cloze and (base is None or base.task != "answer"):
        none_share = float((parts["train"]["answer"] == "").mean())
        cloze = answer_examples(reading, make_cloze(contexts, num_rows=num_cloze, none_share=none_share, seed=config.seed), name="cloze")
        first = replace(config, epochs=2, patience=0, max_seconds=config.max_seconds / 3, frozen=())
        rounds.append((cloze, None, first))
    rounds.append((train, valid, replace(config, max_seconds=config.max_seconds * 2 / 3) if rounds else config))
    histories = [fit_reader(model, *examples, config=config, kept=kept) for *examples, config in rounds]
    return _as_reader(model, tokenizer, parts["train"]), histories[-1]


def _as_reader(model: keras.Model, tokenizer: Tokenizer, train: pd.DataFrame) -> SavedModel:
    settings = {"form": "span", "no_answer": bool((train["answer"] == "").any()), "shares": SHARES_ALONE}
    return SavedModel(model=model, tokenizer=tokenizer, task="answer", settings=settings | {"max_words": longest_answer(train)})


def finish_reader(model: keras.Model, tokenizer: Tokenizer, frame: pd.DataFrame) -> SavedModel:
    """Return a trained network as a reader, without features beside it, its shares and confidence fitted to the split valid of `frame`."""
    valid = frame[frame["split"] == "valid"]
    return _with_confidence(_with_shares(_as_reader(model, tokenizer, frame[frame["split"] == "train"]), valid), valid)


def _train_facts(
    parts: dict[str, pd.DataFrame], *, base: SavedModel | None, config: TrainConfig, dropout: float
) -> tuple[SavedModel, pd.DataFrame]:
    """Train a classifier of questions whose classes are the training answers."""
    rows = {split: part[part["answer"] != ""] for split, part in parts.items()}
    warn_of(len(parts["train"]) - len(rows["train"]), "train", "without an answer")
    labels = sorted(rows["train"]["answer"].unique())
    if len(labels) < 2:
        raise ValueError(f"train has {len(labels)} different answer(s), but without passages two at least are needed to choose from.")
    tokenizer = starting_tokenizer(base, rows["train"]["question"])
    if base is None:
        model = build_text_classifier(tokenizer.vocab_size, num_classes=len(labels), dropout=dropout, **SCRATCH)
    else:
        model = classify.classifier_from_base(base.model, num_classes=len(labels), dropout=dropout)
    if "valid" in rows:  # what nobody can know says nothing about when to stop
        rows["valid"] = rows["valid"][rows["valid"]["answer"].isin(labels)]
    ids = {split: encode_texts(tokenizer, part["question"].tolist()) for split, part in rows.items() if len(part)}
    codes = {split: part["answer"].map({label: i for i, label in enumerate(labels)}).to_numpy() for split, part in rows.items()}
    valid = (ids["valid"], codes["valid"]) if "valid" in ids else (None, None)
    history = classify.fit_classifier(model, ids["train"], codes["train"], *valid, config=config)
    return SavedModel(model=model, tokenizer=tokenizer, task="answer", labels=labels, settings={"form": "facts"}), history


def _with_shares(saved: SavedModel, valid: pd.DataFrame | None) -> SavedModel:
    """Fit to valid how much of network and features to add, and what to add for no answer."""
    if valid is None:
        return saved
    rows = valid.to_dict("records")
    shares = fit_shares(score_spans(saved, rows), rows, start=saved.settings["shares"])
    return replace(saved, settings=saved.settings | {"shares": shares})


def _with_confidence(saved: SavedModel, valid: pd.DataFrame | None) -> SavedModel:
    """Fit to valid how sure a model may be of its answers."""
    if valid is None:
        return saved
    guesses, probs = _answers(saved, valid.to_dict("records"))
    confidence = fit_confidence(probs, exact_matches(valid["answer"].tolist(), guesses))
    return replace(saved, settings=saved.settings | {"confidence": confidence})


def _answers(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the likeliest answer to each question and its probability, not yet calibrated."""
    facts = saved.settings["form"] == "facts"
    does, cure = ("answers from memory", "Leave its context empty") if facts else ("reads the answer in a passage", "Give its context")
    for number, row in enumerate(rows, 1):
        if facts == bool(row["context"]):
            raise ValueError(
                f"row {number}: the question {row['question'][:60]!r} comes with{'' if facts else 'out'} a context, but this model "
                f"{does}. {cure}, or use a model trained on such rows."
            )
    if not len(rows):
        return [], np.zeros(0)
    if facts:
        probs = softmax(classify.text_scores(saved, [row["question"] for row in rows]).astype("float64"))
        return [saved.labels[best] for best in probs.argmax(axis=1)], probs.max(axis=1)
    return best_answers(saved, rows)


def _logit(probs: np.ndarray) -> np.ndarray:
    probs = np.clip(np.asarray(probs, dtype="float64"), 1e-6, 1 - 1e-6)
    return np.log(probs / (1 - probs))
