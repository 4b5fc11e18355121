"""Train a question generator on public passages, measure it on the test split of FairytaleQA, and write its folder.

    SLM_DATA_DIR=... python -m slm_helpers.recipes.train_question_generator                 # data/pretrained/slm-asker-en

Two rounds, on top of the base model: sentences of Wikipedia with a question each (SQuAD, without answers) and tales with questions
and answers, mixed; then the tales alone. The scores go into data/results/public.csv, beside those of the base and the baselines that
`slm_helpers.recipes.public_results` measures.
"""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.models.saved import SavedModel, load_pretrained
from slm_helpers.recipes.public_questions import load_question_rows
from slm_helpers.recipes.publishing import keep_scores, model_card, publish_model, run_recipe, size_of
from slm_helpers.tasks.base import metrics_of, round_to_half
from slm_helpers.tasks.question_generation import CONTINUED_LEARNING_RATE, QuestionGenerator, new_generator, question_examples
from slm_helpers.training.finetune import fit_examples

import pandas as pd

NAME, BASE, SEED = "slm-asker-en", "slm-base-en", 42
TALES, SENTENCES = "fairytaleqa_questions", "squad_question_generation"
FIRST = replace(QuestionGenerator.default_config, epochs=5, seed=SEED)
SECOND = replace(QuestionGenerator.default_config, epochs=3, learning_rate=CONTINUED_LEARNING_RATE, seed=SEED)
_SPELLED = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "``": '"', "''": '"', "--": "-"}


def as_written(text: str) -> str:
    """Return a text that was cut into words, with its signs where people put them and a capital to begin with; names stay small."""
    text = " ".join(_SPELLED.get(word, word) for word in text.split())
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    text = re.sub(r" (n't|'\w{1,2}\b|[,.;:?!%)\]])", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    return re.sub(r"^\W*\w", lambda first: first.group().upper(), text)


def load_rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows that are learned from: sentences (train and valid; no answers), tales of train, of valid and of test."""
    pairs = load_question_rows(SENTENCES)
    pairs = pairs[pairs["split"] != "test"]  # what `slm_helpers.recipes.public_results` measures others on
    sentences = [row | {name: as_written(row[name]) for name in ("context", "question")} for row in pairs.to_dict("records")]
    tales = load_question_rows(TALES)
    return {"sentences": sentences} | {split: rows.to_dict("records") for split, rows in tales.groupby("split")}


def train_question_generator(rows: dict[str, list[dict[str, Any]]], *, base: SavedModel) -> tuple[SavedModel, pd.DataFrame]:
    """Train both rounds; returns the generator and the history of both."""
    keras.utils.set_random_seed(SEED)
    saved = new_generator(base, base.tokenizer)
    valid = question_examples(saved, rows["valid"], name="valid")
    histories = []
    for number, (part, config) in enumerate((("sentences and tales", FIRST), ("tales", SECOND)), 1):
        examples = question_examples(saved, rows["sentences"] * (number == 1) + rows["train"], name=part)
        histories.append(fit_examples(saved.model, examples, valid, config=config).assign(round=number))
    return saved, pd.concat(histories, ignore_index=True)


def publish(out: Path | None = None) -> Path:
    """Train the generator, measure it, and write the model folder."""
    rows = load_rows()
    started = time.perf_counter()
    saved, history = train_question_generator(rows, base=load_pretrained(BASE))
    seconds = time.perf_counter() - started
    round_to_half(saved)
    scores = QuestionGenerator.from_saved(saved).evaluate_frame(pd.DataFrame(rows["test"]))
    num_rows = len(rows["sentences"]) + len(rows["train"])
    about = {"task": "ask", "dataset": TALES, "split": "test", "train_rows": num_rows, "seed": SEED}
    keep_scores(scores.metrics, about | {"model": NAME, "train_seconds": seconds} | size_of(saved))
    metrics = metrics_of(scores)
    card = _card(saved, rows, seconds, metrics)
    return publish_model(saved, NAME, out=out, seconds=seconds, metrics=metrics, history=history, card=card)


def _card(saved: SavedModel, rows: dict[str, list[dict[str, Any]]], seconds: float, metrics: dict[str, dict[str, float]]) -> str:
    return model_card(
        NAME,
        f"""A recurrent question generator for English: given a passage and an answer that stands in it, it asks for that answer. Meant
as a start: `slm finetune ask --base {NAME} --train my_questions.csv --out my_asker`.""",
        network=f"""The layers of `{BASE}` read the sentence of the answer, then the answer, and go on with the question; attention looks
  back at what was read, and may copy from there; {saved.model.count_params():,} weights, stored as float16.""",
        data=f"""Round 1: {len(rows["sentences"]):,} sentences of Wikipedia with a question by a person (the pairs that Du, Shao and Cardie
  made of the development part of SQuAD, CC BY-SA 4.0; no answers, small letters only) and {len(rows["train"]):,} questions on tales whose
  answer stands there (FairytaleQA, Apache 2.0). Round 2: the tales alone. {len(rows["valid"]):,} more questions on tales chose the
  pass. No text of either is in the repository.""",
        training=f"""{FIRST.epochs} + {SECOND.epochs} passes, Adam, seed {SEED}. Again from scratch:
  `SLM_DATA_DIR=... python -m slm_helpers.recipes.train_question_generator`.""",
        seconds=seconds,
        scored=f"""On the {len(rows["test"]):,} questions of the official validation part whose answer stands in the text, which served as
test, against the one question that a person asked for the same answer; 95 % bootstrap intervals over questions.""",
        metrics=metrics,
        digits=1,
        limits="""It has read tales and single sentences. Its questions are short, often vague, and sometimes do not lead to the answer that
was meant, or have no answer at all: a person should choose among them before learners see them.""",
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    run_recipe(publish, arguments, module="train_question_generator", doc=__doc__, name=NAME)


if __name__ == "__main__":
    main()
