"""Facts to text: a language model goes on after a record with the text that states it, facts as placeholders; the best of several is kept.

Values that stand word for word in the training texts are *delexicalised*: the model writes `#c`, and the value is put in afterwards, so
that no name or number can be misspelt. For each record several texts are drawn, and the one with the fewest slot errors is kept.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_positive
from slm_helpers.generation.constrained import PlaceholderGuide, draw_texts
from slm_helpers.generation.sampling import SamplingRule
from slm_helpers.metrics.data_to_text import count_slot_errors, slot_error_table
from slm_helpers.metrics.translation import translation_table
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.registry import backbone_config, load_backbone_weights
from slm_helpers.models.saved import SavedModel
from slm_helpers.tasks.base import Evaluation
from slm_helpers.text.records import LETTERS, Record, delexicalise, fill, invented_terms, parse_facts, states
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples

import numpy as np
import pandas as pd

COLUMNS = ("source", "target", "tone")
PREDICT_COLUMNS = ("source", "tone", "length")
PREDICT_OPTIONAL = {"length": ""}
PREDICT_MAY_BE_EMPTY = ("tone", "length")
LENGTHS = ("short", "medium", "long")
NUM_CANDIDATES, TEMPERATURE = 8, 0.7
DEFAULT = TrainConfig(epochs=5, batch_size=8, learning_rate=2e-3, patience=2)
SCRATCH = {"cell": "gru", "embedding_dim": 256, "units": 768, "num_layers": 1}  # as the base
SCRATCH_VOCAB_SIZE = 2048
COPIED_SHARE = 0.8  # share of training texts from which the values of a fact are copied word for word, if they are placeholders
_RARE = 5  # records with a fact name below which it is judged together with other rare ones
_SELDOM = 0.1  # share of training texts up to which a fact that is named twice, or left out, is taken for a slip
_OPEN = 0.01  # share of facts with a name of their own from which on new names are expected

Check = Callable[[str, Record], tuple[int, int]]


def train(
    frame: pd.DataFrame,
    *,
    base: SavedModel | None,
    config: TrainConfig = TrainConfig(),
    lengths: bool = True,
    dropout: float = 0.2,
) -> tuple[SavedModel, pd.DataFrame]:
    """Teach a language model to state facts, from the columns source, target, tone (may be missing) and split.

    Args:
        frame: From `load_dataset`; source holds the facts as `parse_facts` reads them. The split valid, if there, chooses the epoch.
        base: A language model; None starts from random weights with a vocabulary of the training texts.
        config: Settings of the training.
        lengths: Say before each text whether it is short, medium or long among those of its tone, so that this can be asked for.
        dropout: Share of activations dropped in training.

    Returns:
        A language model with the tones as labels, and the history of its training.

    Raises:
        ValueError: If a record has no facts, some rows have a tone and others none, or valid has a tone that train lacks.

    Reference:
        Wen et al. (2015), arXiv:1508.01745; Dušek and Jurčíček (2016), "Sequence-to-Sequence Generation for Spoken Dialogue via Deep
        Syntax Trees and Strings", arXiv:1606.05491 (re-ranking by what is missing or added).
    """
    config = config.with_defaults(DEFAULT)
    tones = check_rows(frame)
    keras.utils.set_random_seed(config.seed)
    rows = frame[frame["split"] == "train"]
    settings = _learn_settings(rows, lengths)
    saved = SavedModel(model=None, tokenizer=None if base is None else base.tokenizer, task="write", labels=tones, settings=settings)
    if base is None:
        tokenizer = train_bpe_tokenizer((prompt + text for prompt, text in _pairs(settings, rows)), vocab_size=SCRATCH_VOCAB_SIZE)
        saved = replace(saved, tokenizer=tokenizer)
        shape = SCRATCH | {"vocab_size": saved.tokenizer.vocab_size}
    else:
        shape = backbone_config(base.model)
    model = build_language_model(**shape, dropout=dropout)
    if base is not None:
        load_backbone_weights(model, base.model)
    saved = replace(saved, model=model)
    parts = {split: _examples(saved, part) for split, part in frame.groupby("split") if split in ("train", "valid")}
    return saved, fit_examples(model, parts["train"], parts.get("valid"), config=config)


def check_rows(frame: pd.DataFrame) -> list[str]:
    """Return the tones of train, none if they are not known; see `train` for the errors."""
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


def evaluate(saved: SavedModel, frame: pd.DataFrame, *, check: Check | None = None) -> Evaluation:
    """Write one text for each record and tone and score it: slot errors first, then against all texts that people wrote for it.

    Returns:
        slot_error_rate, missing_rate and invented_rate (errors per fact), bleu and chrf (0-100), with 95 % intervals over records;
        the table texts: each record with its text and its errors.
    """
    frame = frame.assign(tone=_column(frame, "tone"))
    grouped = frame.groupby(["source", "tone"], sort=False)["target"].agg(list).reset_index()
    found = [row["prediction"] for row in write(saved, grouped["source"].tolist(), grouped["tone"].tolist(), check=check)]
    scores, counts = text_scores(saved, grouped["source"].tolist(), grouped["target"].tolist(), found, check=check)
    table = grouped[["source", "tone"]].assign(prediction=found, missing=counts[:, 0], invented=counts[:, 1])
    return Evaluation(rows=len(grouped), metrics=scores, tables={"texts": table})


def text_scores(
    saved: SavedModel, sources: Sequence[str], targets: Sequence[Sequence[str]], found: Sequence[str], *, check: Check | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the scores of texts as `evaluate` gives them, and the counts of `count_slot_errors`."""
    counts = count_slot_errors(found, [parse_facts(source) for source in sources], check=check or _checker(saved.settings))
    return pd.concat([slot_error_table(counts), translation_table(targets, found)], ignore_index=True), counts


def predict(saved: SavedModel, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return prediction and confidence for rows with source and, if the model knows tones, tone; length may say how long."""
    return write(saved, [row["source"] for row in rows], [row.get("tone", "") for row in rows], [row.get("length", "") for row in rows])


def write(
    saved: SavedModel,
    sources: Sequence[str],
    tones: str | Sequence[str] = "",
    lengths: str | Sequence[str] = "",
    *,
    num_candidates: int = NUM_CANDIDATES,
    temperature: float = TEMPERATURE,
    guided: bool = True,
    check: Check | None = None,
    seed: int = 42,
) -> list[dict[str, Any]]:
    """Return for each record prediction (a text), confidence and errors: the best of several candidates.

    Args:
        saved: From `train`.
        sources: Records.
        tones: One for all, or one each; may be left out if the model has one or none.
        lengths: Of LENGTHS, one for all, or one each; may be left out.
        num_candidates: Texts drawn for each record, of which `best_candidate` keeps one.
        temperature: Of the drawing; 0 takes the likeliest token each time, and then one candidate is all there is.
        guided: Draw no placeholder that would be wrong, see `candidates`.
        check: As in `count_slot_errors`; facts are looked for word for word unless given.
        seed: Of the drawing.

    Raises:
        ValueError: If a record has no facts or a fact that train never had (where train's names are a closed list), or the tone
            or the length is unknown.
    """
    rows = candidates(saved, sources, tones, lengths, num_candidates=num_candidates, temperature=temperature, guided=guided, seed=seed)
    check = check or _checker(saved.settings)
    chosen = []
    for place, (source, texts) in enumerate(zip(sources, rows, strict=True)):
        length = lengths if isinstance(lengths, str) else lengths[place]
        best, errors = best_candidate(texts, parse_facts(source), length=length, check=check)
        text, score = texts[best]
        chosen.append({"prediction": text, "confidence": round(float(np.exp(score)), 4), "errors": errors})
    return chosen


def best_candidate(texts: Sequence[tuple[str, float]], record: Record, *, length: str = "", check: Check | None = None) -> tuple[int, int]:
    """Return the place of the best of several texts for a record, as `candidates` gives them, and its slot errors.

    That is one with the fewest slot errors: of several the shortest or the longest if "short" or "long" is asked for, else the
    likeliest per token.
    """
    errors = count_slot_errors([text for text, _ in texts], [record] * len(texts), check=check)[:, :2].sum(axis=1)
    sign = {"short": 1, "long": -1}.get(length)
    ranks = [sign * len(text.split()) if sign else -score for text, score in texts]
    best = min(range(len(texts)), key=lambda place: (errors[place], ranks[place]))
    return best, int(errors[best])


def candidates(
    saved: SavedModel,
    sources: Sequence[str],
    tones: str | Sequence[str] = "",
    lengths: str | Sequence[str] = "",
    *,
    num_candidates: int = NUM_CANDIDATES,
    temperature: float = TEMPERATURE,
    guided: bool = True,
    seed: int = 42,
) -> list[list[tuple[str, float]]]:
    """Return for each record texts with their values filled in, and the mean log-probability of a token of each; see `write`.

    Guided, a placeholder without a value is never drawn; nor, for facts that training texts name once, one that stands there
    already; and the text does not end before those stand there that training texts do not leave out.
    """
    check_positive(num_candidates=num_candidates)
    tones, lengths = ([one] * len(sources) if isinstance(one, str) else list(one) for one in (tones, lengths))
    prompts, records = [], []
    for row, (source, tone, length) in enumerate(zip(sources, tones, lengths, strict=True), 1):
        prompts.append(prompt_of(saved, source, tone=tone, length=length, where=f"row {row}"))
        records.append(_read(saved.settings, source))
    number = 1 if temperature == 0 else num_candidates
    settings = saved.settings
    guide = PlaceholderGuide(saved.tokenizer, records, settings["repeated"], settings["left_out"]) if guided else None
    rule = SamplingRule(temperature=temperature)
    drawn = draw_texts(saved.model, saved.tokenizer, prompts, number=number, rule=rule, guide=guide, seed=seed)
    return [[(fill(text, record), score) for text, score in texts] for record, texts in zip(records, drawn, strict=True)]


def prompt_of(saved: SavedModel, source: str, *, tone: str = "", length: str = "", where: str = "the record") -> str:
    """Return what the model reads of a record before it writes; errors are those of `write` and begin with `where`."""
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


def _learn_settings(rows: pd.DataFrame, lengths: bool) -> dict[str, Any]:
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
    copied = {name for name, found in stands.items() if np.mean(rare if names[name] < _RARE else found) >= COPIED_SHARE}
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
    """Return token ids and, at each place, the next token if it belongs to the text."""
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
