"""Facts to text: a language model goes on after a record with the text that states it, facts as placeholders; the best of several is kept.

Values that stand word for word in the training texts are *delexicalised*: the model writes `#c`, and the value is put in afterwards, so
that no name or number can be misspelt. For each record several texts are sampled, and the one with the fewest slot errors is kept.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from slm_helpers._checks import check_positive
from slm_helpers.metrics.data_to_text import count_slot_errors, invented_terms, slot_error_table
from slm_helpers.metrics.translation import translation_table
from slm_helpers.tasks.base import Evaluation, Task
from slm_helpers.text.records import LETTERS, Record, delexicalise, fill, parse_facts, states
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers._backend import keras
    from slm_helpers.models.saved import SavedModel
    from slm_helpers.training.batches import Examples

LENGTHS = ("short", "medium", "long")
NUM_CANDIDATES, TEMPERATURE = 8, 0.7
SCRATCH = {"cell": "gru", "embedding_dim": 256, "units": 768, "num_layers": 1}  # as the base
SCRATCH_VOCAB_SIZE = 2048
COPIED_SHARE = 0.8  # share of training texts from which the values of a fact are copied word for word, if they are placeholders
_RARE = 5  # records with a fact name below which it is judged together with other rare ones
_SELDOM = 0.1  # share of training texts up to which a fact that is named twice, or left out, is taken for a slip
_OPEN = 0.01  # share of facts with a name of their own from which on new names are expected

Check = Callable[[str, Record], tuple[int, int]]


class DataToText(Task):
    """State the facts of a record in a text: adverts, product notes, descriptions; in a tone and length that can be asked for.

    Rows have source (facts as `parse_facts` reads them, "name: value | name: value"), target and, if texts differ in it, tone.

    Args:
        base: A language model to start from, or None for random weights and a vocabulary of the training texts.
        lengths: Say before each text whether it is short, medium or long among those of its tone, so that this can be asked for.
        copied_share: Share of training texts in which the values of a fact must stand word for word for it to be a placeholder.
        num_candidates: Texts sampled for each record, of which `best_candidate` keeps one.
        temperature: Of the sampling; 0 takes the most probable token each time, and then one candidate is all there is.
        dropout: Share of activations dropped in training.
        epochs, batch_size, learning_rate, max_seconds, config, seed: As in `Task`.

    Example:
        >>> model = DataToText(base=None, epochs=1, num_candidates=2)
        >>> model = model.fit([f"name: {name} | food: fish" for name in ("Ann's", "Tom's") * 8], ["Ann's has fish.", "Tom's has fish."] * 8)
        >>> texts = model.predict(["name: Bob's | food: fish"])

    Reference:
        Wen et al. (2015), arXiv:1508.01745; Dušek and Jurčíček (2016), "Sequence-to-Sequence Generation for Spoken Dialogue via Deep
        Syntax Trees and Strings", arXiv:1606.05491 (re-ranking by what is missing or added).
    """

    task: ClassVar[str] = "write"
    columns: ClassVar[tuple[str, ...]] = ("source", "target", "tone")
    target: ClassVar[str] = "target"
    predict_columns: ClassVar[tuple[str, ...]] = ("source", "tone", "length")
    optional: ClassVar[dict[str, Any]] = {"tone": ""}
    predict_optional: ClassVar[dict[str, Any]] = {"tone": "", "length": ""}
    may_be_empty: ClassVar[tuple[str, ...]] = ("tone", "length")
    default_config: ClassVar[TrainConfig] = TrainConfig(epochs=5, batch_size=8, learning_rate=2e-3, patience=2)

    def __init__(
        self,
        base: Any = "slm-base-en",
        *,
        lengths: bool = True,
        copied_share: float = COPIED_SHARE,
        num_candidates: int = NUM_CANDIDATES,
        temperature: float = TEMPERATURE,
        dropout: float = 0.2,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base, self.lengths, self.copied_share, self.dropout = base, lengths, copied_share, dropout
        self.num_candidates, self.temperature = num_candidates, temperature
        self.epochs, self.batch_size, self.learning_rate, self.max_seconds = epochs, batch_size, learning_rate, max_seconds
        self.config, self.seed = config, seed

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if a record has no facts, some rows have a tone and others none, or valid has a tone that train lacks."""
        tones_of(frame)

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks):
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.training.finetune import fit_examples

        rows = frame[frame["split"] == "train"]
        settings = _learn_settings(rows, self.lengths, self.copied_share)
        if base is None:
            tokenizer = train_bpe_tokenizer((prompt + text for prompt, text in _pairs(settings, rows)), vocab_size=SCRATCH_VOCAB_SIZE)
        else:
            tokenizer = base.tokenizer
        model = _new_network(base, tokenizer.vocab_size, dropout=self.dropout)
        saved = SavedModel(model=model, tokenizer=tokenizer, task=self.task, labels=tones_of(frame), settings=settings)
        parts = {split: _examples(saved, part) for split, part in frame.groupby("split") if split in ("train", "valid")}
        options = {"config": config, "checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
        return saved, fit_examples(model, parts["train"], parts.get("valid"), **options)

    def evaluate_frame(self, frame: pd.DataFrame, *, check: Check | None = None) -> Evaluation:
        """Write one text for each record and tone and score it: slot errors first, then against all texts that people wrote for it.

        Returns:
            slot_error_rate, missing_rate and invented_rate (errors per fact), bleu and chrf (0-100), with 95 % intervals over
            records; the table texts: each record with its text and its errors.
        """
        frame = frame.assign(tone=_column(frame, "tone"))
        grouped = frame.groupby(["source", "tone"], sort=False)["target"].agg(list).reset_index()
        texts = [row["prediction"] for row in self.write(grouped["source"].tolist(), grouped["tone"].tolist(), check=check)]
        scores, counts = self.text_scores(grouped["source"].tolist(), grouped["target"].tolist(), texts, check=check)
        table = grouped[["source", "tone"]].assign(prediction=texts, missing=counts[:, 0], invented=counts[:, 1])
        return Evaluation(rows=len(grouped), metrics=scores, tables={"texts": table})

    def text_scores(
        self, sources: Sequence[str], references: Sequence[Sequence[str]], texts: Sequence[str], *, check: Check | None = None
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the scores of texts as `evaluate_frame` gives them, and the counts of `count_slot_errors`."""
        records = [parse_facts(source) for source in sources]
        counts = count_slot_errors(texts, records, check=check or _checker(self._fitted().settings))
        return pd.concat([slot_error_table(counts), translation_table(references, texts)], ignore_index=True), counts

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction and confidence for rows with source and, if the model knows tones, tone; length may say how long."""
        columns = ([row.get(name, "") for row in rows] for name in ("source", "tone", "length"))
        return self.write(*columns)

    def write(
        self,
        sources: Sequence[str],
        tones: str | Sequence[str] = "",
        lengths: str | Sequence[str] = "",
        *,
        num_candidates: int | None = None,
        temperature: float | None = None,
        constrained: bool = True,
        check: Check | None = None,
    ) -> list[dict[str, Any]]:
        """Return for each record prediction (a text), confidence and errors: the best of several candidates.

        Args:
            sources: Records.
            tones: One for all, or one each; may be left out if the model has one or none.
            lengths: Of LENGTHS, one for all, or one each; may be left out.
            num_candidates, temperature: In place of those of the constructor.
            constrained: Sample no placeholder that would be wrong, see `candidates`.
            check: As in `count_slot_errors`; facts are looked for word for word unless given.

        Raises:
            ValueError: If a record has no facts or a fact that train never had (where train's names are a closed list), or the tone
                or the length is unknown.
        """
        rows = self.candidates(sources, tones, lengths, num_candidates=num_candidates, temperature=temperature, constrained=constrained)
        check = check or _checker(self._fitted().settings)
        chosen = []
        for number, (source, texts) in enumerate(zip(sources, rows, strict=True)):
            length = lengths if isinstance(lengths, str) else lengths[number]
            best, errors = best_candidate(texts, parse_facts(source), length=length, check=check)
            text, score = texts[best]
            chosen.append({"prediction": text, "confidence": round(float(np.exp(score)), 4), "errors": errors})
        return chosen

    def candidates(
        self,
        sources: Sequence[str],
        tones: str | Sequence[str] = "",
        lengths: str | Sequence[str] = "",
        *,
        num_candidates: int | None = None,
        temperature: float | None = None,
        constrained: bool = True,
    ) -> list[list[tuple[str, float]]]:
        """Return for each record texts with their values filled in, and the mean log-probability of a token of each; see `write`.

        Constrained, a placeholder without a value is never sampled; nor, for facts that training texts name once, one that stands
        there already; and the text does not end before those stand there that training texts do not leave out.
        """
        from slm_helpers.generation.constrained import PlaceholderConstraint, sample_texts
        from slm_helpers.generation.sampling import Sampler

        num_candidates = self.num_candidates if num_candidates is None else num_candidates
        temperature = self.temperature if temperature is None else temperature
        check_positive(num_candidates=num_candidates)
        saved = self._fitted()
        tones, lengths = ([one] * len(sources) if isinstance(one, str) else list(one) for one in (tones, lengths))
        prompts, records = [], []
        for row, (source, tone, length) in enumerate(zip(sources, tones, lengths, strict=True), 1):
            prompts.append(self.prompt_of(source, tone=tone, length=length, where=f"row {row}"))
            records.append(_read(saved.settings, source))
        if not prompts:
            return []
        number = 1 if temperature == 0 else num_candidates
        settings = saved.settings
        constraint = PlaceholderConstraint(saved.tokenizer, records, settings["repeated"], settings["left_out"]) if constrained else None
        options = {"num_samples": number, "sampler": Sampler(temperature=temperature), "constraint": constraint, "seed": self.seed}
        sampled = sample_texts(saved.model, saved.tokenizer, prompts, **options)
        return [[(fill(text, record), score) for text, score in texts] for record, texts in zip(records, sampled, strict=True)]

    def prompt_of(self, source: str, *, tone: str = "", length: str = "", where: str = "the record") -> str:
        """Return what the model reads of a record before it writes; errors are those of `write` and begin with `where`."""
        saved = self._fitted()
        record = _read(saved.settings, source, where)
        unknown = [name for name in record.names if saved.settings["names"] and name not in saved.settings["names"]]
        if unknown:
            raise ValueError(
                f"{where}: the fact {unknown[0]!r} never stands in train, which knows {', '.join(saved.settings['names'])}. "
                "Correct its name, or train with rows that have it."
            )
        if tone not in saved.labels and (tone or len(saved.labels) > 1):
            known = f"knows {', '.join(saved.labels)}" if saved.labels else "was trained without tones"
            given = f"the tone {tone!r} is unknown to this model, which" if tone else "no tone is given, but this model"
            raise ValueError(f"{where}: {given} {known}.")
        if length and length not in LENGTHS:
            raise ValueError(f"{where}: the length is {length!r}, but must be one of {', '.join(LENGTHS)}.")
        return _prompt(saved.settings, record, tone or "".join(saved.labels), length or "medium")


def best_candidate(texts: Sequence[tuple[str, float]], record: Record, *, length: str = "", check: Check | None = None) -> tuple[int, int]:
    """Return the index of the best of several texts for a record, as `DataToText.candidates` gives them, and its slot errors.

    That is one with the fewest slot errors: of several the shortest or the longest if "short" or "long" is asked for, else the
    most probable per token.
    """
    errors = count_slot_errors([text for text, _ in texts], [record] * len(texts), check=check)[:, :2].sum(axis=1)
    sign = {"short": 1, "long": -1}.get(length)
    ranks = [sign * len(text.split()) if sign else -score for text, score in texts]
    best = min(range(len(texts)), key=lambda i: (errors[i], ranks[i]))
    return best, int(errors[best])


def tones_of(frame: pd.DataFrame) -> list[str]:
    """Return the tones of train, none if they are not known; see `DataToText.check_frame` for the errors."""
    if not (frame["split"] == "train").any():
        raise ValueError("train has no rows to learn from.")
    tones = _column(frame, "tone")
    known = sorted(set(tones[(frame["split"] == "train").to_numpy()]))
    for row, (source, target, tone, split) in enumerate(zip(frame["source"], frame["target"], tones, frame["split"], strict=True)):
        where = f"{split}, row {row + 1}"
        _read({"letters": {}}, source, where)
        if not target.strip():
            raise ValueError(f"{where}: the text is empty. Leave such rows out.")
        if tone not in known:
            raise ValueError(f"{where}: the tone {tone!r} never stands in train, which has {', '.join(known) or 'none'}.")
    if "" in known and len(known) > 1:
        raise ValueError(f"Some rows of train have no tone, but others have ({known[1]} ...). Fill them in.")
    return [tone for tone in known if tone]


def _new_network(base: SavedModel | None, vocab_size: int, *, dropout: float) -> keras.Model:
    """Return a language model with the weights of the base, or with random ones."""
    from slm_helpers.models.language_model import build_language_model
    from slm_helpers.models.registry import backbone_config, load_backbone_weights

    if base is None:
        return build_language_model(**SCRATCH, vocab_size=vocab_size, dropout=dropout)
    model = build_language_model(**backbone_config(base.model), dropout=dropout)
    load_backbone_weights(model, base.model)
    return model


def _learn_settings(rows: pd.DataFrame, lengths: bool, copied_share: float) -> dict[str, Any]:
    """Return what the training rows say of facts: letters of common names, which are copied word for word, how long texts are."""
    stands: dict[str, list[bool]] = defaultdict(list)
    names: Counter = Counter()
    values: dict[str, Counter] = defaultdict(Counter)
    closed = True
    for source, part in rows.groupby("source", sort=False):
        record = parse_facts(source)
        names.update(record.names)
        closed &= not record.relations  # a relation between things may always be a new one
        for name, value in zip(record.names, record.contents, strict=True):
            values[name][value] += 1
            stands[name] += [states(target, value) for target in part["target"]]
    rare = [each for name, found in stands.items() if names[name] < _RARE for each in found]
    copied = {name for name, found in stands.items() if np.mean(rare if names[name] < _RARE else found) >= copied_share}
    common = [name for name, count in names.most_common(len(LETTERS)) if count >= _RARE]
    # Good and Turing: the share of facts whose name occurs once estimates how often the next fact has a name of its own.
    closed &= _share_of_singles(names) < _OPEN
    known = {name: [value for value, _ in values[name].most_common()] for name in sorted(copied) if closed}
    settings: dict[str, Any] = {
        "letters": {name: letter.lower() for name, letter in zip(common, LETTERS, strict=False)},
        "names": sorted(names) if closed else [],
        "not_copied": sorted(set(names) - copied),
        "known_values": {name: found for name, found in known.items() if _share_of_singles(values[name]) < _OPEN},
        "length_edges": {},
    }
    counted: dict[str, list[int]] = defaultdict(list)  # how often a fact stands in each text
    for source, target in zip(rows["source"], rows["target"], strict=True):
        record = _read(settings, source)
        written = Counter(re.findall(r"#([A-Za-z])\b", _delexicalise(settings, target, record)))
        for name, letter in zip(record.names, record.letters, strict=True):
            counted[name if names[name] >= _RARE else ""].append(written[letter])
    shares = {name: (np.mean(np.array(found) > 1), np.mean(np.array(found) == 0)) for name, found in counted.items()}
    for place, kind in enumerate(("repeated", "left_out")):
        settings[kind] = sorted(name for name in names if shares[name if names[name] >= _RARE else ""][place] > _SELDOM)
    if lengths:
        counts = rows["target"].str.split().str.len()
        for tone, part in counts.groupby(_column(rows, "tone")):
            short, long = np.quantile(part, [1 / 3, 2 / 3])
            if short < long:  # else all are about equally long, and there is nothing to ask for
                settings["length_edges"][tone] = [float(short), float(long)]
    return settings


def _share_of_singles(counts: Counter) -> float:
    return sum(count == 1 for count in counts.values()) / counts.total()


def _read(settings: dict[str, Any], source: str, where: str = "") -> Record:
    try:
        return parse_facts(source, settings["letters"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def _delexicalise(settings: dict[str, Any], text: str, record: Record) -> str:
    return delexicalise(text, record, copied=[name not in settings["not_copied"] for name in record.names])


def _pairs(settings: dict[str, Any], frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what the model reads and what it is to write, for each row."""
    pairs = []
    for source, target, tone in zip(frame["source"], frame["target"], _column(frame, "tone"), strict=True):
        record = _read(settings, source)
        edges = settings["length_edges"].get(tone)
        length = LENGTHS[int(np.searchsorted(edges, len(target.split())))] if edges else ""
        pairs.append((_prompt(settings, record, tone, length), f" {_delexicalise(settings, target, record)}"))
    return pairs


def _prompt(settings: dict[str, Any], record: Record, tone: str, length: str) -> str:
    """Return what is read: a value is shown if it is plain words, which a language model can know, or has to be worded by it."""
    facts = []
    for name, value, letter in zip(record.names, record.contents, record.letters, strict=True):
        known = settings["known_values"].get(name, [value])
        # A value that train never had is read as the commonest it had: only its letter is written.
        value = value if value in known else known[0]
        shown = record.relations or name in settings["not_copied"] or re.fullmatch(r"[a-z' -]+", value)
        facts.append(f"#{letter} {value}" if record.relations else f"#{letter} {name}: {value}" if shown else f"#{letter} {name}")
    asked = ", ".join(part for part in (tone, length if tone in settings["length_edges"] else "") if part)
    # What is asked for stands last: a recurrent state forgets what came before a long record.
    return "; ".join([*facts, *record.relations]) + f"\n{asked}:" * bool(asked) + "\n" * (not asked)


def _examples(saved: SavedModel, frame: pd.DataFrame) -> Examples:
    """Return token ids and, at each position, the next token if it belongs to the text."""
    from slm_helpers.training.batches import Examples

    inputs, targets = [], []
    end = saved.tokenizer.end_id
    for prompt, text in _pairs(saved.settings, frame):
        asked = np.concatenate([[end], saved.tokenizer.encode(prompt)])
        ids = np.concatenate([asked, saved.tokenizer.encode(text), [end]])
        inputs.append(ids[:-1].astype("int32"))
        targets.append(np.where(np.arange(1, len(ids)) >= len(asked), ids[1:], -1))
    return Examples({"token_ids": inputs}, targets, along="token_ids")


def _checker(settings: dict[str, Any]) -> Check:
    """Return a check of the facts that texts state word for word; of others (family friendly: yes) nothing can be said."""

    def check(text: str, record: Record) -> tuple[int, int]:
        pairs = zip(record.names, record.contents, strict=True)
        missing = [value for name, value in pairs if name not in settings["not_copied"] and not states(text, value)]
        return len(missing), len(invented_terms(text, record))

    return check


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    return (frame[name] if name in frame else pd.Series("", index=frame.index)).fillna("").to_numpy(dtype=object)
