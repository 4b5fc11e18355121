"""Train a translator from English on the public Tatoeba pairs, measure it on the full test split, and write its folder.

    SLM_DATA_DIR=... python -m slm_helpers.recipes.train_translator               # English to Spanish: data/pretrained/slm-en-es
    SLM_DATA_DIR=... python -m slm_helpers.recipes.train_translator es fr de zh   # one model for four languages

One command, one fixed seed. It may be stopped at any time: the same command goes on from the last checkpoint in runs/. Scores of the
model and of the baselines go into data/results/public.csv; what stands there already is not measured again.
"""

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm_helpers._paths import RUNS_DIR
from slm_helpers.baselines.translation import CopySource, PhraseLookup, build_translation_memory
from slm_helpers.data.loading import load_dataset
from slm_helpers.metrics.translation import translation_table
from slm_helpers.models.saved import SavedModel
from slm_helpers.recipes.publishing import keep_scores, known_models, model_card, publish_model, recipe_parser, size_of
from slm_helpers.tasks.base import round_to_half
from slm_helpers.tasks.translation import Translator, make_vocabulary
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.training.config import TrainConfig

import pandas as pd

SEED = 42
LANGUAGES = ("es", "fr", "de", "zh")
NETWORK = {"embedding_dim": 256, "encoder_units": 256, "units": 512, "num_decoder_layers": 2}
DROPOUT = 0.2
NUM_JOINED = 5000  # pairs made of two, for each language
BEAM_SIZE = 6
LENGTH_PENALTY = 1.5  # of the search: of 0.6 to 2 the best chrF on valid; outputs are 3 % shorter than people's, with 1.0 4 %
VOCAB_SIZE = {False: 4096, True: 7168}  # several languages or not; either model stays below 10 MB
# Muon was 0.28 nats ahead of Adam (at 2e-3, batches of 192) after 200 seconds of either, with 3 points more of BLEU.
TRAINING = TrainConfig(
    optimizer="muon",
    batch_size=384,
    learning_rate=5e-3,
    weight_decay=0.02,
    label_smoothing=0.1,
    schedule="linear",
    warmup_steps=100,
    eval_steps=250,
    precision="auto",
    seed=SEED,
)
BASELINES: dict[str, Callable[[], Any]] = {"copy": CopySource, "nearest sentence": build_translation_memory, "phrase lookup": PhraseLookup}
SHARED = {"task": "translate", "split": "test", "seed": SEED}  # by all rows of the table
NAMES = {"es": "Spanish", "fr": "French", "de": "German", "zh": "Chinese"}


def load_pairs(languages: tuple[str, ...]) -> pd.DataFrame:
    """Return the public pairs from English into all of the languages, with the bundled ones of train put to train.

    Of either set, pairs of train whose English sentence stands in valid or test of the other one are left out.
    """
    public = load_dataset("+".join(f"tatoeba_en_{language}" for language in languages))
    bundled = load_dataset("translations")
    bundled = bundled[bundled["target_language"].isin(languages)]

    def learned(rows: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
        asked = set(other.loc[other["split"] != "train", "source"].map(_only_words))
        return (rows["split"] == "train") & ~rows["source"].map(_only_words).isin(asked)

    kept = public[learned(public, bundled) | (public["split"] != "train")]
    return pd.concat([kept, bundled[learned(bundled, public)]], ignore_index=True)[list(public.columns)]


def join_pairs(rows: pd.DataFrame, number: int, *, seed: int = SEED) -> pd.DataFrame:
    """Return so many new pairs, each made of a short statement and any short sentence after it: "Come in, where have you been?".

    Tatoeba has few sentences of two parts: a translator that has read no others takes the "how" of "Hello, how are you?" for that of
    "I know how you feel". The second sentence begins in lower case unless its first word is mostly written with a capital.
    There are none if no statement is short enough.

    Args:
        rows: Columns source, target and target_language, which is the same in all.
        number: Of pairs to draw.
        seed: Of the draws.

    Reference:
        Kondo et al. (2021), "Sentence Concatenation Approach to Data Augmentation for Neural Machine Translation", arXiv:2104.08478.
    """
    words = rows["source"].str.split().str.len()
    first = (words <= 3) & rows["source"].str.contains(r"[.!]$") & rows["target"].str.contains(r"[.!。！]$")
    if not first.any():
        return rows.iloc[:0]
    drawn = [rows[part].sample(number, replace=True, random_state=seed + place) for place, part in enumerate((first, words <= 8))]
    joined = drawn[0].reset_index(drop=True)
    for name in ("source", "target"):
        inner = Counter(word for text in rows[name] for word in re.findall(r"(?<=[\w,] )\w[\w']*", text))
        comma = "，" if name == "target" and joined["target_language"].iloc[0] == "zh" else ", "
        joined[name] = [
            one.lstrip("¡").rstrip(".!。！") + comma + _uncapitalised(other, inner)
            for one, other in zip(drawn[0][name], drawn[1][name], strict=True)
        ]
    return joined


def _uncapitalised(text: str, inner: Counter) -> str:
    """Return a sentence with its first word in lower case, if that is how it is written most often inside of sentences."""
    word = re.search(r"\w[\w']*", text)
    if word is None:
        return text
    low = word.group()[0].lower() + word.group()[1:]
    return text[: word.start()] + low + text[word.end() :] if inner[low] > inner[word.group()] else text


def _only_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def train_translator(work: Path, languages: tuple[str, ...], *, epochs: int, max_seconds: float = 0.0) -> tuple[SavedModel, pd.DataFrame]:
    """Train, or go on training, on the pairs and on joined ones; vocabulary and checkpoints stand in `work`.

    Args:
        work: A folder for this run alone.
        languages: To translate into.
        epochs: Passes over the pairs.
        max_seconds: Ends the training after this time, with the schedule finished; 0 for no limit.
    """
    frame = load_pairs(languages)
    work.mkdir(parents=True, exist_ok=True)
    path = work / "tokenizer.json"
    if not path.exists():
        make_vocabulary(frame[frame["split"] == "train"], vocab_size=VOCAB_SIZE[len(languages) > 1]).save(path)
    config = dataclasses.replace(TRAINING, epochs=epochs, max_seconds=max_seconds)
    train = frame[frame["split"] == "train"]
    joined = [join_pairs(rows, min(NUM_JOINED, len(rows))) for _, rows in train.groupby("target_language")]
    translator = Translator(config=config, dropout=DROPOUT, network=NETWORK, tokenizer=Tokenizer.load(path), seed=config.seed)
    translator.fit_frame(pd.concat([frame, *joined], ignore_index=True), checkpoint_dir=work)
    return translator.saved_, translator.history_


def measure_baselines(language: str) -> None:
    """Score the baselines on the test split of one language, but for what is in the table."""
    dataset = f"tatoeba_en_{language}"
    known = {model for model, _ in known_models(dataset)}
    frame = load_dataset(dataset)
    train, test = (frame[frame["split"] == split] for split in ("train", "test"))
    for name, build in BASELINES.items():
        if name in known:
            continue
        started = time.perf_counter()
        fitted = build().fit(train["source"].tolist(), train["target"].tolist())
        seconds = time.perf_counter() - started
        scores = translation_table(test["target"].tolist(), fitted.predict(test["source"].tolist()), languages=[language] * len(test))
        keep_scores(scores, SHARED | {"dataset": dataset, "model": name, "train_rows": len(train), "train_seconds": seconds})


def measure_translator(saved: SavedModel, name: str, frame: pd.DataFrame, *, train_seconds: float) -> dict[str, dict[str, float]]:
    """Score a translator on the whole test split of each of its languages, greedy and by beam; returns the metrics for its folder."""
    metrics: dict[str, dict[str, float]] = {}
    translator = Translator.from_saved(saved)
    for language in saved.labels:
        rows = frame[(frame["split"] == "test") & (frame["target_language"] == language)]
        sources, targets = rows["source"].tolist(), rows["target"].tolist()
        about = SHARED | {
            "dataset": f"tatoeba_en_{language}",
            "train_rows": int((frame["split"] == "train").sum()),
            "train_seconds": train_seconds,
        }
        about |= size_of(saved)
        for suffix, beam_size in ((", greedy", 1), ("", saved.settings["beam_size"])):
            translator.translate(sources[:128], language, beam_size=beam_size)  # compiles
            started = time.perf_counter()
            found = [row["prediction"] for row in translator.translate(sources, language, beam_size=beam_size)]
            speed = len(rows) / (time.perf_counter() - started)
            scores = translation_table(targets, found, languages=[language] * len(rows))
            keep_scores(
                pd.concat([scores, pd.DataFrame([{"metric": "sentences_per_second", "value": speed}])]), about | {"model": name + suffix}
            )
            if not suffix:
                metrics |= {
                    f"{row.metric}/{language}": {"value": row.value, "ci_low": row.ci_low, "ci_high": row.ci_high}
                    for row in scores.itertuples()
                }
    return metrics


def publish(work: Path, languages: tuple[str, ...], *, epochs: int, max_seconds: float = 0.0, out: Path | None = None) -> Path:
    """Train (or load what was trained), measure model and baselines, and write the model folder."""
    name = "slm-en-es" if languages == ("es",) else "slm-en-many" if len(languages) > 1 else f"slm-en-{languages[0]}"
    saved, history = train_translator(work, languages, epochs=epochs, max_seconds=max_seconds)
    round_to_half(saved)
    saved.settings |= {"beam_size": BEAM_SIZE, "length_penalty": LENGTH_PENALTY}
    for language in languages:
        measure_baselines(language)
    seconds = float(history["seconds"].iloc[-1])
    frame = load_pairs(languages)
    metrics = measure_translator(saved, name, frame, train_seconds=seconds)
    return publish_model(
        saved,
        name,
        out=out,
        seconds=seconds,
        metrics=metrics,
        history=history,
        card=_card(name, saved, frame, history, epochs, metrics),
        settings={"training": dataclasses.asdict(TRAINING) | {"epochs": epochs}},
    )


def _card(name: str, saved: SavedModel, frame: pd.DataFrame, history: pd.DataFrame, epochs: int, metrics: dict) -> str:
    counts = ", ".join(f"{int((frame['split'] == split).sum()):,} {split}" for split in ("train", "valid", "test"))
    into = ", ".join(NAMES[language] for language in saved.labels)
    command = "" if saved.labels == ["es"] else " " + " ".join(saved.labels)
    return model_card(
        name,
        f'A recurrent translator from English into {into}: `slm translate "Hello, how are you?" --to {saved.labels[0]} --model {name}`.',
        network=f"""Encoder of two GRUs of {NETWORK["encoder_units"]} units, one from each side; decoder GRU of {NETWORK["units"]} units
  with attention behind it and a second GRU above; one vocabulary of {saved.tokenizer.vocab_size:,} byte-level BPE tokens for all languages;
  {saved.model.count_params():,} weights, stored as float16.""",
        data=f"""Tatoeba sentence pairs (CC BY 2.0 FR; Tatoeba contributors, selected by manythings.org): {counts} pairs; an English
  sentence stands in one split only. No text of them is in the repository. The bundled pairs of train (CC0) are among those of train,
  and {NUM_JOINED:,} more for each language were made by joining two short ones with a comma.""",
        training=f"""{history["epoch"].max():.1f} of {epochs} passes, batches of about {TRAINING.batch_size} pairs, Muon at
  {TRAINING.learning_rate:g}, label smoothing {TRAINING.label_smoothing:g}, seed {SEED}.
  Again from scratch: `SLM_DATA_DIR=... python -m slm_helpers.recipes.train_translator{command}`.""",
        seconds=float(history["seconds"].iloc[-1]),
        scored=f"""On the whole test split, beam of {saved.settings["beam_size"]}, one reference each; 95 % bootstrap intervals over
sentences. BLEU and chrF as sacrebleu counts them (13a tokens, Chinese by characters; chrF2), cased.""",
        metrics=metrics,
        digits=1,
        limits="""It has read short everyday sentences, many of them about Tom, by many hands: of other topics, long sentences, names and
numbers it is unsure, and it says something fluent all the same. English "you" becomes whatever form was more frequent. Nobody has read
its output for harm or prejudice. Do not rely on it where a wrong word matters.""",
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = recipe_parser("train_translator", __doc__, "slm-en-...")
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help=f"to translate into, of {', '.join(LANGUAGES)} (default es)")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the pairs (default 12)")
    parser.add_argument("--max-seconds", type=float, default=0.0, help="end the training after this time (default: no limit)")
    parser.add_argument("--work", type=Path, help="folder of vocabulary and checkpoints (default runs/translate_LANGUAGES)")
    options = parser.parse_args(arguments)
    languages = tuple(language for language in LANGUAGES if language in (options.languages or ["es"]))
    unknown = [language for language in options.languages if language not in LANGUAGES]
    if unknown:
        parser.error(f"{unknown[0]} is not one of {', '.join(LANGUAGES)}")
    work = options.work or RUNS_DIR / f"translate_{'_'.join(languages)}"
    print(f"Written: {publish(work, languages, epochs=options.epochs, max_seconds=options.max_seconds, out=options.out)}")


if __name__ == "__main__":
    main()
