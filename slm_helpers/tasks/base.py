"""What all tasks share: the estimator `Task`, the result of an evaluation, the first vocabulary, a linear model beside a network."""

from __future__ import annotations

import importlib.util
import inspect
import json
import time
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from slm_helpers._checks import check_choice
from slm_helpers._processor import describe_machine
from slm_helpers.generation.opening import open_model
from slm_helpers.models.folders import model_folder, read_config, read_licence
from slm_helpers.text.hashing import fit_ensemble_weights, fit_ngram_table, ngram_scores
from slm_helpers.text.tokenizers import Tokenizer, train_bpe_tokenizer
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # Keras is loaded by the first training or model folder, not by an import
    from slm_helpers._backend import keras
    from slm_helpers.models.saved import SavedModel

SCRATCH_VOCAB_SIZE = 4096


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on labelled rows."""

    rows: int
    metrics: pd.DataFrame  # metric, value, ci_low, ci_high (95 %)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # what stands behind them, by name


class Task:
    """A task as a scikit-learn estimator, by that library's rules but without loading it, which takes longer than to tell what is
    wrong with a file.

    Each task fills in the class attributes and the methods that raise NotImplementedError here.

    Constructor arguments are kept as given; None means that the task chooses. What `fit` learns ends in an underscore: `saved_`
    (network, tokeniser, labels, settings), `history_` (DataFrame), `evaluation_` after `evaluate`.

    Args of every task (a task lists those that it has as keyword arguments of its own constructor):
        base: What to start from: a model folder, the name of a pretrained model, a SavedModel, a fitted estimator, or None for random
            weights.
        epochs, batch_size, learning_rate, max_seconds: Settings of the training in place of those of `config`.
        class_weight: "balanced" makes every class count alike, however many rows it has.
        ngrams: Combine the network with a linear model on n-grams.
        config: All other settings of the training, in place of the task's `default_config`.
        seed: Of order, dropout and weights.
    """

    task: ClassVar[str] = ""  # the word for it in the shell and in model folders
    columns: ClassVar[tuple[str, ...]] = ()  # of the rows to learn from
    target: ClassVar[str] = ""  # the one of them that `y` holds
    predict_columns: ClassVar[tuple[str, ...]] = ()  # of the rows to predict
    optional: ClassVar[dict[str, Any]] = {}  # columns that rows to learn from may lack, and what stands for them then
    predict_optional: ClassVar[dict[str, Any]] = {}  # the same of rows to predict
    may_be_empty: ClassVar[tuple[str, ...]] = ()  # columns whose cells may be empty in rows to predict
    limits: ClassVar[str] = "It knows only the labels and the kind of text it was trained on; look at its mistakes before relying on it."
    no_predict: ClassVar[str] = ""  # why `slm predict` cannot be used, and what can
    default_base: ClassVar[str | None] = "slm-base-en"
    base_tasks: ClassVar[tuple[str, ...]] = ("lm",)  # tasks that a base may be of
    default_config: ClassVar[TrainConfig] = TrainConfig()
    scratch_config: ClassVar[TrainConfig | None] = None  # without a base, where other settings are better then
    is_classifier: ClassVar[bool] = False  # whether scikit-learn may deal rows class by class

    # To be filled in by a task.

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if nothing can be learned from such rows (columns of the task and `split`); no time is spent yet."""

    def for_frame(self, frame: pd.DataFrame) -> Task:
        """Return the estimator for such rows: this one, but for a task that has another class for rows of another form."""
        return self

    def notes(self, frame: pd.DataFrame) -> list[str]:
        """Return short lines on what is odd about the rows, for a person to read before the training."""
        return []

    def _train(
        self,
        frame: pd.DataFrame,
        *,
        base: SavedModel | None,
        config: TrainConfig,
        keep_valid: bool,
        checkpoint_dir: str | Path | None,
        callbacks: Sequence[Any],
    ) -> tuple[SavedModel, pd.DataFrame]:
        """Train on checked rows of the splits train and valid; returns the model and the history of its training."""
        raise NotImplementedError

    def _with_linear_model(self, frame: pd.DataFrame, *, keep_valid: bool) -> SavedModel:
        """Return `saved_` combined with a linear model, see `add_linear_model`; as it is where the task has none."""
        return self._fitted()

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with the columns of the task."""
        raise NotImplementedError

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction and confidence for rows with `predict_columns`."""
        raise NotImplementedError

    def row_predictor(self) -> Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]:
        """Return `predict_rows` for a file in parts; a task whose rows depend on earlier ones remembers these from part to part."""
        return self.predict_rows

    # The same for all tasks.

    def fit(self, X: Any, y: Any = None, validation_data: tuple[Any, Any] | None = None) -> Self:
        """Train.

        Args:
            X: Texts (list, array or Series of strings); for tasks with several columns a DataFrame or a list of dicts with them.
            y: What is to be predicted, one a row; None if X is a table that holds the column.
            validation_data: X and y of other rows, which choose the epoch and calibrate the confidence.
        """
        parts = [self._frame(X, y).assign(split="train")]
        if validation_data is not None:
            parts.append(self._frame(*validation_data).assign(split="valid"))
        return self.fit_frame(pd.concat(parts, ignore_index=True))

    def fit_frame(
        self,
        frame: pd.DataFrame,
        keep_valid: bool = False,
        checkpoint_dir: str | Path | None = None,
        callbacks: Sequence[Any] = (),
    ) -> Self:
        """Train on rows with a column `split`, as `load_dataset` returns them; rows of test are left out.

        Args:
            frame: The task's columns and `split`.
            keep_valid: Learn nothing from the rows of valid in the end, so that a score on them means something.
            checkpoint_dir: Folder from which a run that was cut off goes on.
            callbacks: Keras callbacks.
        """
        started = time.perf_counter()
        frame = self._with_columns(frame)
        self.check_frame(frame)
        config = self.training_config()
        self.check_base()
        base = self._open_base()
        from slm_helpers._backend import keras

        if config.max_seconds:
            config = replace(config, max_seconds=max(0.01, config.max_seconds - (time.perf_counter() - started)))

        keras.utils.set_random_seed(self.seed)
        rows = frame[frame["split"] != "test"]
        self.saved_, self.history_ = self._train(
            rows, base=base, config=config, keep_valid=keep_valid, checkpoint_dir=checkpoint_dir, callbacks=callbacks
        )
        _check_converged(self.saved_, self.history_)
        if self.get_params(deep=False).get("ngrams"):
            self.saved_ = self._with_linear_model(rows, keep_valid=keep_valid)
        start = "random weights" if base is None else base.folder.name if base.folder is not None else "a given model"
        self.saved_.settings |= {"start": start, "train_seconds": round(time.perf_counter() - started, 2)}
        licence = None if base is None else base.settings.get("licence") or read_licence(base.folder)
        if licence:
            self.saved_.settings["licence"] = licence
        self.num_rows_ = {split: int((frame["split"] == split).sum()) for split in ("train", "valid", "test")}
        self._learned()
        return self

    def add_linear_model(self, frame: pd.DataFrame, keep_valid: bool = False) -> Self:
        """Return a copy of a fitted estimator with its network combined with a linear model on n-grams; `fit` does it where `ngrams`.

        The logits of a class are the weighted sum of both models', with the weights that predict the rows of valid best, or usual ones
        where there are no such rows.

        Args:
            frame: The rows that the network, fitted with ngrams=False, was trained on, with the column `split`.
            keep_valid: Learn nothing from the rows of valid in the end. Else the linear model learns from them too once the weights are
                fitted, and a score on valid says nothing any more.
        """
        self.saved_ = _with_keras(self._fitted())
        combined = copy(self).set_params(ngrams=True)
        combined.saved_ = self._with_linear_model(self._with_columns(frame), keep_valid=keep_valid)
        return combined

    def evaluate(self, X: Any, y: Any = None) -> pd.DataFrame:
        """Return metric, value, ci_low and ci_high (95 %) on labelled rows; the tables behind them stand in `evaluation_.tables`."""
        self.evaluation_ = self.evaluate_frame(self._with_columns(self._frame(X, y)))
        return self.evaluation_.metrics

    def predict(self, X: Any) -> np.ndarray:
        """Return a prediction for each row: shape (num_rows,), objects."""
        rows = self._rows(X)
        return np.array([row["prediction"] for row in self.predict_rows(rows)] if rows else [], dtype=object)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the first metric of `evaluate`."""
        return float(self.evaluate(X, y)["value"].iloc[0])

    def save(self, folder: str | Path, *, weights_dtype: str = "float32", sources: Sequence[str] = ()) -> Path:
        """Write a model folder with settings, history, scores (of the last `evaluate`) and a card.

        Args:
            folder: Where to; an older model folder there is replaced, anything else is not.
            weights_dtype: "float32" keeps the weights exactly; "float16" halves the file; "int8" takes a quarter, see `save_model`.
            sources: Names of files or sets it was trained on, for the card.
        """
        from slm_helpers.models.saved import save_model

        saved, folder = _with_keras(self._fitted()), Path(folder)
        scores = getattr(self, "evaluation_", None)
        return save_model(
            folder,
            saved.model,
            tokenizer=saved.tokenizer,
            task=self.task,
            labels=saved.labels,
            settings=saved.settings,
            metrics=saved.metrics if scores is None else metrics_of(scores),
            history=getattr(self, "history_", None),
            card=make_card(self, folder.name, sources=sources),
            weights_dtype=weights_dtype,
        )

    @classmethod
    def load(cls, folder: str | Path, *, engine: str | None = None) -> Self:
        """Return the estimator that a model folder holds (or the pretrained model of that name); no code from the folder is run.

        Args:
            folder: Written by `save`.
            engine: "keras" opens the Keras model, which training and a look inside need; "onnx" predicts the same without Keras and is
                ready in a fraction of a second. Keras unless it is not installed.
        """
        if engine is None:
            engine = "keras" if importlib.util.find_spec("keras") else "onnx"
        check_choice(("keras", "onnx"), engine=engine)
        if engine == "keras":
            from slm_helpers.models.saved import load_model

            return cls.from_saved(load_model(model_folder(folder), task=cls.task))
        return cls.from_saved(open_model(model_folder(folder), task=cls.task, exact=True))

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Return a fitted estimator around an opened model."""
        estimator = cls()
        estimator.saved_ = saved
        estimator._learned()
        return estimator

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor arguments by name; `deep` is accepted for scikit-learn and changes nothing."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments; raise ValueError for one that the task has not."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no setting {name!r}; its settings are {', '.join(known)}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        usual = {name: parameter.default for name, parameter in inspect.signature(type(self)).parameters.items()}
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value is not usual[name] and value != usual[name]]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        kind, tags = ("classifier", ClassifierTags()) if self.is_classifier else (None, None)
        return Tags(estimator_type=kind, target_tags=TargetTags(required=self.is_classifier), classifier_tags=tags)

    def __sklearn_clone__(self) -> Self:
        """Return an unfitted copy; a base that is an opened model is shared, since training never changes it."""
        return type(self)(**self.get_params(deep=False))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "saved_")

    def _learned(self) -> None:
        """Set what else ends in an underscore from `saved_`."""

    def _fitted(self) -> SavedModel:
        if not hasattr(self, "saved_"):
            from sklearn.exceptions import NotFittedError

            name = type(self).__name__
            raise NotFittedError(f"This {name} has learned nothing yet. Call fit first, or open a model folder with {name}.load(folder).")
        return self.saved_

    def is_given(self, name: str) -> bool:
        """Return whether a setting of the training was given, so that the task may not choose another value."""
        return getattr(self._given_config(), name) is not None

    def training_config(self) -> TrainConfig:
        """Return the settings of the training: what was given, and the task's own for the rest."""
        given = self._given_config()
        if self.scratch_config is not None and self.get_params(deep=False).get("base") is None:
            given = given.with_defaults(self.scratch_config)
        return given.with_defaults(self.default_config)

    def _given_config(self) -> TrainConfig:
        """Return the settings that were given, None for the rest."""
        params = self.get_params(deep=False)
        names = ("epochs", "batch_size", "learning_rate", "max_seconds")
        given = {name: params[name] for name in names if params.get(name) is not None}
        if params.get("class_weight") not in (None, "balanced"):
            raise ValueError(f"class_weight is {params['class_weight']!r}, but must be 'balanced' or None.")
        if params.get("class_weight"):
            given["class_weight"] = "balanced"
        return replace(params.get("config") or TrainConfig(), seed=self.seed, **given)

    def check_base(self) -> None:
        """Raise ValueError or FileNotFoundError if the base is no model that this task can start from; Keras is not loaded for it."""
        base = self.get_params(deep=False).get("base")
        if base is None:
            return
        task = read_config(model_folder(base))["task"] if isinstance(base, str | Path) else base.task
        if task not in self.base_tasks:
            raise ValueError(
                f"The base is a model for the task {task!r}, but {type(self).__name__} starts from a model for "
                f"{' or '.join(map(repr, self.base_tasks))}, or from random weights (base=None, in the shell --base none)."
            )

    def base_tokenizer(self) -> Tokenizer | None:
        """Return the tokeniser of the base, None without one; Keras is not loaded for it."""
        base = self.get_params(deep=False).get("base")
        if isinstance(base, str | Path):
            return Tokenizer.load(model_folder(base) / "tokenizer.json")
        return base._fitted().tokenizer if isinstance(base, Task) else base and base.tokenizer

    def _open_base(self) -> SavedModel | None:
        base = self.get_params(deep=False).get("base")
        if isinstance(base, str | Path):
            from slm_helpers.models.saved import load_model

            return load_model(model_folder(base))
        return _with_keras(base._fitted() if isinstance(base, Task) else base)

    def _rows(self, X: Any) -> list[dict[str, Any]]:
        """Return the rows of X as dicts with `predict_columns`."""
        frame = self._table(X)
        if not len(frame):
            return []
        missing = [name for name in self.predict_columns if name not in frame and name not in self.predict_optional]
        self._check_columns(frame, missing)
        filled = {name: value for name, value in self.predict_optional.items() if name not in frame}
        return frame.assign(**filled)[list(self.predict_columns)].to_dict("records")

    def _frame(self, X: Any, y: Any = None) -> pd.DataFrame:
        """Return X and y as one table."""
        frame = self._table(X)
        if y is None:
            return frame
        if isinstance(y, str):
            raise TypeError(f"y is one string, {y!r:.40}. Pass a list with one value for each row.")
        values = list(y)
        if len(values) != len(frame):
            raise ValueError(f"X has {len(frame)} rows and y {len(values)}. Give one value of y for each row of X.")
        return frame.assign(**{self.target: pd.Series(values, index=frame.index)})

    def _table(self, X: Any) -> pd.DataFrame:
        """Return what was given as X as a table: a DataFrame or dicts as they are, strings as the column that is read."""
        if isinstance(X, str):
            raise TypeError(f"X is one string, {X!r:.40}. Pass a list, e.g. [{X!r:.40}].")
        if isinstance(X, dict):
            raise TypeError("X is one dict. Pass a list of dicts, one a row, or a DataFrame.")
        if isinstance(X, pd.DataFrame):
            return X.reset_index(drop=True)
        rows = list(X)
        if rows and all(isinstance(row, dict) for row in rows):
            return pd.DataFrame(rows)
        column = self.predict_columns[0]
        if len([name for name in self.predict_columns if name not in self.predict_optional]) > 1 and rows:
            raise TypeError(f"X must be a DataFrame or a list of dicts with the columns {', '.join(self.predict_columns)}.")
        wrong = [i for i, row in enumerate(rows) if not isinstance(row, str)] if column not in ("sound",) else []
        if wrong:
            raise TypeError(f"row {wrong[0] + 1} of X is {rows[wrong[0]]!r:.40}, but a string is needed.")
        return pd.DataFrame({column: pd.Series(rows, dtype=object)})

    def _with_columns(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return labelled rows with the columns that they may lack filled in; raise if another one is missing."""
        missing = [name for name in self.columns if name not in frame]
        self._check_columns(frame, [name for name in missing if name not in self.optional])
        return frame.assign(**{name: self.optional[name] for name in missing})

    def _check_columns(self, frame: pd.DataFrame, missing: Sequence[str]) -> None:
        if missing:
            raise ValueError(
                f"The column {missing[0]!r} is missing, which {type(self).__name__} reads. "
                f"There are: {', '.join(map(str, frame.columns))}. Rename one, e.g. frame.rename(columns={{NAME: {missing[0]!r}}})."
            )


def metrics_of(scores: Evaluation) -> dict[str, dict[str, float]]:
    """Return {metric: {value, ci_low, ci_high}}, without bounds that are not known."""
    return {
        row["metric"]: {name: round(float(row[name]), 6) for name in ("value", "ci_low", "ci_high") if not np.isnan(row[name])}
        for row in scores.metrics.to_dict("records")
    }


def _with_keras(saved: SavedModel | None) -> SavedModel | None:
    """Return a model whose network is one of Keras: opened anew from its folder if it runs without."""
    if saved is None or hasattr(saved.model, "get_weights"):
        return saved
    from slm_helpers.models.saved import load_model

    return load_model(saved.folder)


def _check_converged(saved: SavedModel, history: pd.DataFrame) -> None:
    """Raise FloatingPointError if the network is far worse than a guess among all its outputs: there is nothing to keep of it."""
    choices = saved.model.output_shape[-1] if isinstance(saved.model.output_shape, tuple) else None
    if not len(history) or not isinstance(choices, int) or choices < 2 or saved.settings.get("head_only"):
        return
    split = "valid" if (history["split"] == "valid").any() else "train"
    losses = history.loc[history["split"] == split, "loss_nats"]
    loss = losses.min() if split == "valid" else losses.iloc[-1]
    if loss > 2 * np.log(choices) + 1:
        raise FloatingPointError(
            f"The training diverged: the loss on {split} is {loss:.1f} nats, and a blind guess has {np.log(choices):.1f}. "
            f"Lower the learning rate (it was {history['learning_rate'].max():g} at most). Nothing was kept."
        )


def make_card(estimator: Task, name: str, *, sources: Sequence[str] = ()) -> str:
    """Return the model card of a fitted estimator in Markdown: data, licence of the base, cost, limits, and scores if it was evaluated."""
    settings = estimator.saved_.settings
    counts = ", ".join(f"{count:,} {split}" for split, count in getattr(estimator, "num_rows_", {}).items())
    licence = f"\n- **Licence of the base.** {settings['licence']}" if "licence" in settings else ""
    card = f"""# {name}
A model for the task {estimator.task}, trained from {settings.get("start", "random weights")}.

- **Data.** {", ".join(Path(part).name for part in sources) or "Given as a table"}: {counts or "unknown"} rows.{licence}
- **Cost.** {settings.get("train_seconds", 0):.0f} seconds of training ({describe_machine()}).
- **Limits.** {estimator.limits}
"""
    if not hasattr(estimator, "evaluation_"):
        return card
    rows = [
        f"| {metric} | {v['value']:.4f} | {v['ci_low']:.4f} to {v['ci_high']:.4f} |"
        if "ci_low" in v
        else f"| {metric} | {v['value']:.4f} | |"
        for metric, v in metrics_of(estimator.evaluation_).items()
    ]
    return card + "\n## Scores\n\n| metric | value | 95 % interval |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"


def train_and_valid(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of the splits train and valid; without rows of a split, it is not there."""
    return {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}


def starting_tokenizer(base: SavedModel | None, texts: Iterable[str]) -> Tokenizer:
    """Return the tokeniser of the base, or without one a new byte-level BPE of the training texts."""
    return base.tokenizer if base is not None else train_bpe_tokenizer(texts, vocab_size=SCRATCH_VOCAB_SIZE)


def round_to_half(saved: SavedModel) -> None:
    """Round the weights to float16, as a model folder may hold them, so that what is scored is what will be loaded."""
    saved.model.set_weights([weight.astype("float16").astype("float32") for weight in saved.model.get_weights()])


def add_linear_head(
    saved: SavedModel,
    build: Callable[..., keras.Model],
    hashed: dict[str, Sequence[np.ndarray]],
    codes: dict[str, np.ndarray],
    *,
    network_logits: np.ndarray | None,
    default_weights: tuple[float, float],
    keep_valid: bool,
    num_buckets: int,
    head: str = "logits",
    table_layer: str = "ngram_scores",
    buckets_argument: str = "num_buckets",
    num_classes: int | None = None,
    **options: Any,
) -> tuple[SavedModel, np.ndarray | None]:
    """Combine a head of a network with a linear model on hashed features, with the weights that predict the classes of valid best.

    Args:
        saved: With a network made by `build` without num_buckets; it stays as it is.
        build: The builder.
        hashed: Features of train and, if there is one, valid: one array for each thing that gets a class.
        codes: The class of each, from 0, or 0 or 1 for each class, see `fit_ngram_table`.
        network_logits: The network's logits on valid.
        default_weights: Of network and linear model where there is no valid part.
        keep_valid: Learn nothing from valid in the end, see `Task.add_linear_model`.
        num_buckets: As the features were hashed into.
        head: Name of the network's layer that scores these classes.
        table_layer: Name of the layer of the linear model.
        buckets_argument: Name of the builder's argument that makes that layer.
        num_classes: As many as labels unless given.
        options: Of `fit_ngram_table`: class_weight, use_idf, l2, seed.

    Returns:
        The same with one network whose logits are the weighted sum of both, the ensemble weights worked into its own weights, and
        without the calibration of the other logits in the settings; and its logits on valid, from before the linear model learned
        from it.

    Reference:
        Cheng et al. (2016), "Wide & Deep Learning for Recommender Systems", arXiv:1606.07792.
    """
    from slm_helpers.models.registry import load_backbone_weights

    options |= {"num_classes": num_classes or len(saved.labels), "num_buckets": num_buckets}
    table, bias = fit_ngram_table(hashed["train"], codes["train"], **options)
    weights, logits = default_weights, None
    if network_logits is not None:
        linear_logits = ngram_scores(table, hashed["valid"]) + bias
        weights = fit_ensemble_weights(network_logits, linear_logits, codes["valid"])
        logits = weights[0] * network_logits + weights[1] * linear_logits
        if not keep_valid:
            table, bias = fit_ngram_table([*hashed["train"], *hashed["valid"]], np.concatenate([codes["train"], codes["valid"]]), **options)
    model = build(**json.loads(saved.model.builder_config)["arguments"] | {buckets_argument: num_buckets})
    load_backbone_weights(model, saved.model)
    kernel, own_bias = saved.model.get_layer(head).get_weights()
    table[:, :-1] *= weights[1]
    model.get_layer(head).set_weights([weights[0] * kernel, weights[0] * own_bias + weights[1] * bias])
    model.get_layer(table_layer).set_weights([table])
    settings = {name: value for name, value in saved.settings.items() if name not in ("temperature", "outside_bias")}
    return replace(saved, model=model, settings=settings | {"ensemble_weights": [round(weight, 3) for weight in weights]}), logits
