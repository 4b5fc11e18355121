"""Train a reader on public passages, measure it on the test split of FairytaleQA, and write its folder.

    SLM_DATA_DIR=... python -m slm_helpers.recipes.train_reader                 # data/pretrained/slm-reader-en

Two rounds, on top of the base model, whose layers stay as they are: questions made of the sentences of encyclopaedia and tales,
then the questions that people asked about the tales. Scores of the reader and of the baseline go into data/results/public.csv.
"""

import time
from pathlib import Path

from slm_helpers._backend import keras
from slm_helpers.baselines.extractive_qa import SpanBaseline
from slm_helpers.data.loading import load_dataset
from slm_helpers.metrics.question_answering import answer_table
from slm_helpers.models.saved import SavedModel, load_pretrained
from slm_helpers.recipes.publishing import keep_scores, known_models, model_card, publish_model, run_recipe, size_of
from slm_helpers.tasks.base import metrics_of, round_to_half
from slm_helpers.tasks.cloze import make_cloze
from slm_helpers.tasks.extractive_qa import ExtractiveQA, finish_reader, fit_reader, new_reader
from slm_helpers.tasks.reading import Reading, answer_examples
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

NAME, BASE, SEED = "slm-reader-en", "slm-base-en", 42
TALES, ARTICLES = "fairytaleqa", "wikipedia_en"
BASELINE = "log-linear model of spans"
NONE_SHARE = 0.15  # of the questions: put to a passage that does not hold the answer
NUM_CLOZE = {ARTICLES: 6000, TALES: 4000}  # questions made of the passages of each
NUM_ARTICLES = 1200  # paragraphs
FIRST = TrainConfig(epochs=1, batch_size=32, learning_rate=2e-3, seed=SEED)
SECOND = TrainConfig(epochs=8, batch_size=32, learning_rate=2e-3, seed=SEED)


def load_questions(*, seed: int = SEED) -> pd.DataFrame:
    """Return the questions on tales, and for some of train and valid the same question put to another part of its story."""
    frame = load_dataset(TALES)
    rng = np.random.default_rng(seed)
    sections = frame.groupby(["split", "story"])["context"].unique()
    rows = []
    for row in frame[frame["split"] != "test"].sample(frac=1, random_state=seed).to_dict("records"):
        others = [context for context in sections[row["split"], row["story"]] if row["answer"].lower() not in context.lower()]
        if others and rng.random() < NONE_SHARE:
            rows.append(row | {"context": others[rng.integers(len(others))], "answer": "", "answer_start": -1})
    return pd.concat([frame, pd.DataFrame(rows)], ignore_index=True)


def make_exercises(questions: pd.DataFrame, *, seed: int = SEED) -> pd.DataFrame:
    """Return questions made of the sentences of articles and of the tales of train."""
    articles = load_dataset(ARTICLES)
    # Titles are one line, paragraphs the others.
    lines = [line for text in articles.loc[articles["split"] == "train", "text"] for line in text.split("\n")[1:]]
    passages = {
        ARTICLES: [line for line in lines if 60 <= len(line.split()) <= 160][:NUM_ARTICLES],
        TALES: questions.loc[(questions["split"] == "train"), "context"].unique().tolist(),
    }
    made = [make_cloze(passages[name], num_rows=rows, none_share=NONE_SHARE, seed=seed) for name, rows in NUM_CLOZE.items()]
    return pd.concat(made, ignore_index=True)


def train_reader(questions: pd.DataFrame, *, base: SavedModel) -> tuple[SavedModel, pd.DataFrame]:
    """Train both rounds on the columns of the task `answer` and `split`; returns the reader and the history of the second."""
    keras.utils.set_random_seed(SEED)
    reading = Reading(base.tokenizer)
    model = new_reader(base, base.tokenizer)
    cached: dict = {}
    exercises = answer_examples(reading, make_exercises(questions), name="exercises")
    fit_reader(model, exercises, None, config=FIRST, cached=cached)
    train = answer_examples(reading, questions[questions["split"] == "train"], name="train")
    valid = answer_examples(reading, questions[questions["split"] == "valid"], name="valid", same_length=True)
    history = fit_reader(model, train, valid, config=SECOND, cached=cached)
    return finish_reader(model, base.tokenizer, questions), history


def publish(out: Path | None = None) -> Path:
    """Train the reader, measure it and the baseline, and write the model folder."""
    questions = load_questions()
    train, test = (questions[questions["split"] == split] for split in ("train", "test"))
    about = {"task": "answer", "dataset": TALES, "split": "test", "train_rows": len(train), "seed": SEED}
    started = time.perf_counter()
    saved, history = train_reader(questions, base=load_pretrained(BASE))
    seconds = time.perf_counter() - started
    round_to_half(saved)
    scores = ExtractiveQA.from_saved(saved).evaluate_frame(test)
    keep_scores(scores.metrics, about | {"model": NAME, "train_seconds": seconds} | size_of(saved))
    if (BASELINE, str(SEED)) not in known_models(TALES):
        started = time.perf_counter()
        fitted = SpanBaseline().fit(*(train[name].tolist() for name in ("context", "question", "answer")))
        seconds_baseline = time.perf_counter() - started
        found = fitted.predict(test["context"].tolist(), test["question"].tolist())
        keep_scores(answer_table(test["answer"].tolist(), found), about | {"model": BASELINE, "train_seconds": seconds_baseline})
    metrics = metrics_of(scores)
    card = _card(saved, questions, seconds, metrics)
    return publish_model(saved, NAME, out=out, seconds=seconds, metrics=metrics, history=history, card=card)


def _card(saved: SavedModel, questions: pd.DataFrame, seconds: float, metrics: dict[str, dict[str, float]]) -> str:
    num_rows = questions[questions["answer"] != ""]["split"].value_counts()
    return model_card(
        NAME,
        f"""A recurrent reader for English: it finds the answer to a question in a passage, or says that there is none. Meant as a start:
`slm finetune answer --base {NAME} --train my_questions.csv --out my_reader`.""",
        network=f"""The layers of `{BASE}`, attention from passage to question, two GRUs over the words of the passage;
  {saved.model.count_params():,} weights, stored as float16.""",
        data=f"""Round 1: {sum(NUM_CLOZE.values()):,} questions made of sentences with a gap, from Wikipedia articles (CC BY-SA 3.0) and
  tales. Round 2: {num_rows["train"]:,} questions that people asked about {questions["story"].nunique()} tales and whose answer stands
  there ({TALES}, Apache 2.0), and as one in {round(1 / NONE_SHARE)} more the same question put to a part of the story that does
  not answer it; {num_rows["valid"]:,} more questions chose the pass. No text of either is in the repository.""",
        training=f"""{FIRST.epochs} + {SECOND.epochs} passes, Adam, seed {SEED}. Again from scratch:
  `SLM_DATA_DIR=... python -m slm_helpers.recipes.train_reader`.""",
        seconds=seconds,
        scored=f"""On the {num_rows["test"]:,} questions of the official validation part whose answer stands in the text, which served as
test; 95 % bootstrap intervals over questions.""",
        metrics=metrics,
        limits="""It has read tales and short articles, and questions of who, what, where and why about them. It is often wrong, and not the
less fluent for it, since it can only quote. Check what it quotes.""",
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    run_recipe(publish, arguments, module="train_reader", doc=__doc__, name=NAME)


if __name__ == "__main__":
    main()
