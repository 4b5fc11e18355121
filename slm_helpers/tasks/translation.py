"""Sentences into another language, or any text to text: from pairs to a trained encoder-decoder, its scores and its translations."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from slm_helpers.metrics.translation import translation_table
from slm_helpers.tasks.base import Evaluation, Task
from slm_helpers.text.tokenizers import Tokenizer, train_bpe_tokenizer
from slm_helpers.text.words import split_words
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers._backend import keras
    from slm_helpers.models.saved import SavedModel

MAX_TOKENS = 256  # of a sentence; a longer text is cut into its sentences
MIN_STEPS = 1000  # where pairs are few, batches are smaller (16 pairs at least), so that about so many steps are made
SMALL = 20_000  # pairs below which the network and its vocabulary are small
SMALL_NETWORK = {"embedding_dim": 128, "encoder_units": 96, "units": 192}
# What a small network from random weights is trained with; a large one in batches of 64 takes twice as long over a step of Muon.
SMALL_CONFIG = TrainConfig(optimizer="muon", learning_rate=1e-2, weight_decay=0.02)
_VOCAB_SIZE = {True: 2048, False: 4096}  # small or not


class Translator(Task):
    """Translate sentences, or rewrite any text as another: an encoder-decoder with attention, and beam search.

    With several target languages one model learns them all: the source begins with a token for the language that is asked for
    (Johnson et al. 2017). Rows have source, target and, where there are several languages, target_language.

    Args:
        base: An earlier translator to go on with, e.g. "slm-en-es", or None for random weights and a vocabulary of the training
            sentences of all languages (Sennrich et al. 2016).
        dropout: Share of activations dropped in training; by the number of pairs unless given.
        vocab_size: Of the vocabulary; by the number of pairs unless given.
        tokenizer: A vocabulary that is there already.
        network: Sizes of `build_encoder_decoder`; by the number of pairs unless given.
        beam_size: Hypotheses of the search; 1 takes the most probable token each time, which is faster.
        length_penalty: Of the search (Wu et al. 2016): more prefers longer texts.
        batch_size: Pairs in an update; fewer where there are few pairs, unless given.
        epochs, learning_rate, max_seconds, config, seed: As in `Task`. From random weights and with few pairs, SMALL_CONFIG names
            optimiser, learning rate and weight decay, unless one of them is given.

    Example:
        >>> model = Translator(epochs=1, network={"embedding_dim": 8, "encoder_units": 8, "units": 8}, vocab_size=300)
        >>> model = model.fit(["Good morning.", "Good night."] * 16, ["Buenos días.", "Buenas noches."] * 16)
        >>> texts = model.predict(["Good morning."])

    Reference:
        Johnson et al. (2017), "Google's Multilingual Neural Machine Translation System", arXiv:1611.04558;
        Sennrich et al. (2016), arXiv:1508.07909; Wu et al. (2016), arXiv:1609.08144.
    """

    task: ClassVar[str] = "translate"
    columns: ClassVar[tuple[str, ...]] = ("source", "target", "target_language")
    target: ClassVar[str] = "target"
    predict_columns: ClassVar[tuple[str, ...]] = ("source", "target_language")
    optional: ClassVar[dict[str, Any]] = {"target_language": ""}
    predict_optional: ClassVar[dict[str, Any]] = {"target_language": ""}
    may_be_empty: ClassVar[tuple[str, ...]] = ("target_language",)
    default_base: ClassVar[str | None] = None  # a vocabulary for one language cuts another one to pieces
    base_tasks: ClassVar[tuple[str, ...]] = ("translate",)
    default_config: ClassVar[TrainConfig] = TrainConfig(
        epochs=24, batch_size=64, learning_rate=3e-3, schedule="cosine", warmup_steps=40, precision="auto"
    )

    def __init__(
        self,
        base: Any = None,
        *,
        dropout: float | None = None,
        vocab_size: int | None = None,
        tokenizer: Tokenizer | None = None,
        network: dict[str, int] | None = None,
        beam_size: int = 4,
        length_penalty: float = 1.0,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base, self.dropout, self.vocab_size, self.tokenizer, self.network = base, dropout, vocab_size, tokenizer, network
        self.beam_size, self.length_penalty = beam_size, length_penalty
        self.epochs, self.batch_size, self.learning_rate, self.max_seconds = epochs, batch_size, learning_rate, max_seconds
        self.config, self.seed = config, seed

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if some rows have a target language and some none, or another split has one that train lacks."""
        target_languages(frame)

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks):
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.training.pairs import fit_pairs

        languages = target_languages(frame)
        parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
        model, tokenizer = self._new_network(parts["train"], languages, base)
        settings = {"beam_size": self.beam_size, "length_penalty": self.length_penalty}
        saved = SavedModel(model=model, tokenizer=tokenizer, task=self.task, labels=languages, settings=settings)
        encoded = {split: encode_pairs(saved, part, name=split) for split, part in parts.items()}
        config = self._config_for(config, len(parts["train"]), base)
        options = {"config": config, "checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
        history = fit_pairs(model, encoded["train"], encoded.get("valid"), start_id=tokenizer.end_id, **options)
        return saved, history

    def _config_for(self, config: TrainConfig, num_pairs: int, base: SavedModel | None) -> TrainConfig:
        """Return the settings for so many pairs; what was given stays."""
        given = self._given_config()
        if base is None and num_pairs < SMALL and (given.optimizer, given.learning_rate, given.weight_decay) == (None, None, None):
            config = given.with_defaults(SMALL_CONFIG).with_defaults(self.default_config)
        if given.batch_size is None:
            config = replace(config, batch_size=min(config.batch_size, max(16, num_pairs * config.epochs // MIN_STEPS)))
        return config

    def _new_network(self, rows: pd.DataFrame, languages: list[str], base: SavedModel | None) -> tuple[keras.Model, Tokenizer]:
        """Return a network with the weights of the base or with random ones, and its vocabulary."""
        from slm_helpers.models.encoder_decoder import build_encoder_decoder

        if base is not None:
            if base.labels != languages:
                raise ValueError(
                    f"The base translates into {_listed(base.labels)} and the data into {_listed(languages)}, but they must be the same."
                )
            changes = {} if self.dropout is None else {"dropout": self.dropout}
            model = build_encoder_decoder(**json.loads(base.model.builder_config)["arguments"] | changes)
            model.set_weights(base.model.get_weights())
            return model, base.tokenizer
        small = len(rows) < SMALL
        tokenizer = self.tokenizer or make_vocabulary(rows, vocab_size=self.vocab_size or _VOCAB_SIZE[small])
        num_ids = tokenizer.vocab_size + (len(languages) if len(languages) > 1 else 0)
        dropout = self.dropout if self.dropout is not None else 0.3 if small else 0.2
        return build_encoder_decoder(num_ids, dropout=dropout, **(self.network or (SMALL_NETWORK if small else {}))), tokenizer

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score translations of source against target.

        Returns:
            bleu and chrf, 0-100, over all rows with 95 % intervals; with several target languages the table languages: the same of
            each, and rows.

        Raises:
            ValueError: If the model does not know a target language.
        """
        saved = self._fitted()
        sources, references = frame["source"].tolist(), frame["target"].tolist()
        languages = [_language_for(saved, text, language) for text, language in zip(sources, _language_column(frame), strict=True)]
        predictions = [row["prediction"] for row in self.translate(sources, languages)]
        tables = {}
        if len(set(languages)) > 1:
            scores = []
            for language in sorted(set(languages)):
                picked = [row for row, other in enumerate(languages) if other == language]
                part = [[texts[row] for row in picked] for texts in (references, predictions, languages)]
                scores.append(translation_table(*part[:2], languages=part[2]).assign(target_language=language, rows=len(picked)))
            tables["languages"] = pd.concat(scores, ignore_index=True)
        return Evaluation(rows=len(frame), metrics=translation_table(references, predictions, languages=languages), tables=tables)

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction and confidence for rows with source and, where the model has several, target_language; see `translate`."""
        return self.translate([row["source"] for row in rows], [row.get("target_language", "") for row in rows])

    def translate(
        self,
        texts: Sequence[str],
        to: str | Sequence[str] = "",
        *,
        beam_size: int | None = None,
        length_penalty: float | None = None,
    ) -> list[dict[str, Any]]:
        """Return prediction and confidence for each text; one of several sentences that is too long in one piece is cut into them.

        The confidence is the geometric mean of the probabilities of the tokens written; it is not calibrated.

        Args:
            texts: Not empty.
            to: The target language, or one for each text; may be left out if the model has only one.
            beam_size: That of the model's settings unless given.
            length_penalty: That of the settings unless given.

        Raises:
            TypeError: If texts is one string.
            ValueError: If a text is empty, the language is unknown, or a sentence has more than MAX_TOKENS tokens.
        """
        from slm_helpers.generation.sequences import decode_sequences

        if isinstance(texts, str):
            raise TypeError(f"texts is one string, {texts!r:.40}. Pass a list, e.g. [{texts!r:.40}].")
        saved = self._fitted()
        languages = [to] * len(texts) if isinstance(to, str) else list(to)
        pieces: list[tuple[int, str, str]] = []
        for row, (text, language) in enumerate(zip(texts, languages, strict=True)):
            language = _language_for(saved, text, language)
            pieces += [(row, piece, language) for piece in _pieces(saved.tokenizer, text)]
        tokenizer = saved.tokenizer
        hypotheses = decode_sequences(
            saved.model,
            encode_sources(saved, [text for _, text, _ in pieces], [language for *_, language in pieces]),
            start_id=tokenizer.end_id,
            end_id=tokenizer.end_id,
            suppress_token_ids=(tokenizer.pad_id, tokenizer.unk_id, *range(tokenizer.vocab_size, saved.arguments["vocab_size"])),
            beam_size=saved.settings.get("beam_size", 4) if beam_size is None else beam_size,
            length_penalty=saved.settings.get("length_penalty", 1.0) if length_penalty is None else length_penalty,
        )
        written: list[list[str]] = [[] for _ in texts]
        totals = np.zeros((len(texts), 2))
        for (row, *_), (best, *_) in zip(pieces, hypotheses, strict=True):
            written[row].append(tokenizer.decode(best.token_ids).strip())
            totals[row] += best.log_prob, len(best.token_ids) + best.ended
        confidence = np.exp(totals[:, 0] / np.maximum(totals[:, 1], 1))
        return [{"prediction": " ".join(part), "confidence": round(float(p), 4)} for part, p in zip(written, confidence, strict=True)]


def make_vocabulary(rows: pd.DataFrame, *, vocab_size: int) -> Tokenizer:
    """Return one byte-level BPE for the sentences of all languages, sources and targets; each source counts once."""
    return train_bpe_tokenizer((f" {text}" for text in (*rows["source"].drop_duplicates(), *rows["target"])), vocab_size=vocab_size)


def target_languages(frame: pd.DataFrame) -> list[str]:
    """Return the target languages of train, none if they are not known.

    Raises:
        ValueError: If some rows have a target language and some none, or another split has a language that train lacks.
    """
    found = _language_column(frame)
    languages = sorted(set(found[frame["split"] == "train"]))
    if "" in languages and len(languages) > 1:
        row = int(np.flatnonzero((found == "") & (frame["split"] == "train").to_numpy())[0])
        raise ValueError(f"row {row + 1} of train has no target_language, but others have ({languages[1]} ...). Fill it in.")
    unknown = np.flatnonzero(~np.isin(found, languages))
    if len(unknown):
        row = int(unknown[0])
        raise ValueError(
            f"{frame['split'].iloc[row]}, row {row + 1}: the target language {found[row]!r} never stands in train, "
            f"which has {_listed([each for each in languages if each])}."
        )
    return [language for language in languages if language]


def encode_pairs(saved: SavedModel, frame: pd.DataFrame, *, name: str = "the data") -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return token ids of sources and targets, the end token last in both; pairs longer than MAX_TOKENS are left out with a warning."""
    sources = encode_sources(saved, frame["source"].tolist(), _language_column(frame))
    end = np.array([saved.tokenizer.end_id], dtype="int32")
    targets = [np.concatenate([ids, end]) for ids in saved.tokenizer.encode_batch([f" {text}" for text in frame["target"]])]
    kept = [row for row in range(len(frame)) if max(len(sources[row]), len(targets[row])) <= MAX_TOKENS]
    if not kept:
        raise ValueError(f"No pair of {name} is left: all {len(frame)} have more than {MAX_TOKENS} tokens. Cut the texts into sentences.")
    if len(kept) < len(frame):
        warnings.warn(
            f"{name}: {len(frame) - len(kept)} of {len(frame)} pairs with more than {MAX_TOKENS} tokens are not used.", stacklevel=3
        )
    return [sources[row] for row in kept], [targets[row] for row in kept]


def encode_sources(saved: SavedModel, texts: Sequence[str], languages: Sequence[str]) -> list[np.ndarray]:
    """Return the token ids of each source: the token of its target language, if the model has several, the text, the end token.

    A space is put before the first word, so that it is the same token as anywhere else. The ids of the languages follow those of
    the vocabulary.
    """
    end = np.array([saved.tokenizer.end_id], dtype="int32")
    places = {language: saved.tokenizer.vocab_size + place for place, language in enumerate(saved.labels)} if len(saved.labels) > 1 else {}
    first = [np.array([places[language]] if places else [], dtype="int32") for language in languages]
    encoded = saved.tokenizer.encode_batch([f" {text}" for text in texts])
    return [np.concatenate([start, ids, end]) for start, ids in zip(first, encoded, strict=True)]


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the text, or its sentences if it is too long in one piece."""
    if not text.strip():
        raise ValueError("A source is empty: there is nothing to translate. Leave such rows out.")
    room = MAX_TOKENS - 2  # for language and end
    if len(text) <= room or len(tokenizer.encode(f" {text}")) <= room // 4:
        return [text]
    words = split_words(text)
    edges = [0, *(int(words.places[place, 0]) for place in np.flatnonzero(np.diff(words.sentences)) + 1), len(text)]
    pieces = [piece for start, stop in pairwise(edges) if (piece := text[start:stop].strip())]
    for piece in pieces:
        size = len(tokenizer.encode(f" {piece}"))
        if size > room:
            raise ValueError(
                f"The sentence {piece[:40]!r}... has {len(piece.split()):,} words ({size:,} tokens), but at most {room} tokens can be "
                "translated in one piece. Cut it into sentences that end in a full stop."
            )
    return pieces


def _language_for(saved: SavedModel, text: str, language: str) -> str:
    """Return the target language of a text; refuse one that the model does not know."""
    if language in saved.labels or (not language and not saved.labels):
        return language
    if not language and len(saved.labels) == 1:
        return saved.labels[0]
    known = f"translates into {_listed(saved.labels)}" if saved.labels else "was trained without naming languages"
    if not language:
        raise ValueError(f"{text[:40]!r} has no target language, and this model {known}. Say which, by --to or a column target_language.")
    advice = "Name one of those" if saved.labels else "Leave the language (--to, target_language) out"
    raise ValueError(f"{text[:40]!r}: the target language {language!r} is unknown to this model, which {known}. {advice}.")


def _language_column(frame: pd.DataFrame) -> np.ndarray:
    return (frame["target_language"] if "target_language" in frame else pd.Series("", index=frame.index)).fillna("").to_numpy(dtype=object)


def _listed(languages: Sequence[str]) -> str:
    return ", ".join(languages) or "no named language"
