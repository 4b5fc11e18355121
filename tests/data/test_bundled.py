import json
import shutil
from collections import Counter
from itertools import pairwise

from slm_helpers.data import bundled as corpora
from slm_helpers.data.bundled import BUNDLED, CORPORA_DIR, LANGUAGES, check_bundled, load_bundled, write_checksums
from slm_helpers.data.files import read_rows
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.schema import SPLITS, TASK_COLUMNS, check_labels, check_tags
from slm_helpers.data.simulated import draw_skill_parameters, simulate_students
from slm_helpers.data.splits import find_shared_runs, normalise_text

import pandas as pd
import pytest

FILES = sorted(path.name for path in CORPORA_DIR.iterdir() if path.suffix in (".jsonl", ".csv"))
PROSE = [name for name in FILES if name.endswith(".jsonl")]
# What a row says about its text, and closed sets of values such as speakers; all other strings are free text.
NOT_PROSE = {
    "id", "split", "kind", "topic", "label", "domain", "phenomenon", "intent", "tags", "tone", "speaker", "relation", "answer", "article",
    "capital", "continent", "currency", "language", "country", "facts",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    """Rows of every bundled file as it stands on disk, by file name."""
    return {name: [dict(row) for row in read_rows(CORPORA_DIR / name)] for name in FILES}


@pytest.fixture(scope="module")
def frames():
    """Every corpus as `load_bundled` returns it."""
    return {name: load_bundled(name) for name in BUNDLED}


def texts_in(value, *, prose_only):
    """Yield the strings inside a row, lists and inner rows included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from texts_in(part, prose_only=prose_only)
    elif isinstance(value, dict):
        for name, part in value.items():
            if not (prose_only and name in NOT_PROSE):
                yield from texts_in(part, prose_only=prose_only)


def num_words(text):
    return len(text.split())


# What holds of every corpus.


def test_every_file_is_recorded_and_unchanged():
    table = check_bundled()
    assert table["file"].tolist() == FILES
    assert table["ok"].all(), f"changed: {table.loc[~table['ok'], 'file'].tolist()}; on purpose? python -m slm_helpers.data.bundled"
    assert {corpus.file for corpus in BUNDLED.values()} <= set(FILES)


@pytest.mark.parametrize("name", BUNDLED)
def test_columns_of_the_task_are_there_and_filled(frames, name):
    frame, task = frames[name], BUNDLED[name].task
    columns = {"tag": ("tokens", "tags"), "classify": ("text", "label")}.get(task, TASK_COLUMNS[task])
    assert {*columns, "split"} <= set(frame.columns)
    for column in columns:
        if column in ("answer_start", "step", "correct"):
            assert pd.api.types.is_integer_dtype(frame[column])
        elif column == "turns":
            assert all(set(turn) == {"speaker", "text"} for turns in frame["turns"] for turn in turns)
        elif column not in ("answer", "context"):
            assert frame[column].str.strip().ne("").all()
    assert frame.index.tolist() == list(range(len(frame)))


@pytest.mark.parametrize("name", [name for name in BUNDLED if name not in ("service_replies", "minimal_pairs")])
def test_all_three_parts_are_there(frames, name):
    shares = frames[name]["split"].value_counts(normalize=True)
    assert set(shares.index) == set(SPLITS)
    # The countries' questions hold out wordings as well as countries, sentiment two writers: so less is left to train on.
    assert shares["train"] >= (0.5 if name in ("countries", "sentiment") else 0.6)
    assert min(shares["valid"], shares["test"]) >= 0.05


@pytest.mark.parametrize("file", PROSE)
def test_ids_and_texts_are_unique(rows, file):
    ids = [row["id"] for row in rows[file]]
    assert len(set(ids)) == len(ids)
    if file not in ("countries.jsonl", "service_conversations.jsonl", "dialogues.jsonl"):
        main = Counter(next(text for text in texts_in(row, prose_only=True)) for row in rows[file])
        assert main.most_common(1)[0][1] == 1


@pytest.mark.parametrize("file", FILES)
def test_no_control_characters_and_no_loose_spaces(rows, file):
    for row in rows[file]:
        for text in texts_in(row, prose_only=False):
            strange = [c for c in text if not c.isprintable() and c not in "\n\u202f\u00a0"]  # French sets a narrow space before ?
            assert not strange, f"{row['id']}: {strange}"
            assert "\ufffd" not in text
            assert text == text.strip(), f"{row['id']}: space at an end of {text[:40]!r}"


# The countries' own rows are names without prose, the replies have no splits.
@pytest.mark.parametrize("file", [file for file in PROSE if file not in ("service_replies.jsonl", "countries.jsonl")])
def test_no_near_copy_across_splits(rows, file):
    pairs = [(text, row["split"]) for row in rows[file] for text in texts_in(row, prose_only=True)]
    assert len(pairs) >= len(rows[file])
    runs = find_shared_runs(*zip(*pairs, strict=True), num_words=8)
    assert runs.empty, f"shared by two splits: {runs['run'].iloc[0]!r}"


@pytest.mark.parametrize("file", [file for file in PROSE if file != "service_replies.jsonl"])
def test_no_row_equals_one_of_another_split(rows, file):
    """Compared as whole rows, in lower case and without digits and punctuation."""
    splits_of = {}
    for row in rows[file]:
        for text in [" ".join(texts_in(row, prose_only=True)) or row["country"], *list(texts_in(row, prose_only=True))[:1]]:
            splits_of.setdefault(normalise_text(text), set()).add(row["split"])
    assert not [text for text, splits in splits_of.items() if len(splits) > 1 and text]


def test_chinese_shares_no_run_of_eight_characters(rows):
    """Chinese has no spaces, so that runs of words do not see its copies."""
    pairs = [(" ".join(c for c in row["zh"] if c.isalpha()), row["split"]) for row in rows["translations.jsonl"] if "zh" in row]
    assert len(pairs) >= 450
    assert find_shared_runs(*zip(*pairs, strict=True), num_words=8).empty


def test_near_copies_would_be_found(rows):
    """The two tests above can fail: a training row with its numbers changed, put into test, is seen."""
    stories = rows["stories.jsonl"]
    train = next(row["text"] for row in stories if row["split"] == "train")
    assert not find_shared_runs([train, train.upper().replace(",", " 7 ")], ["train", "test"], num_words=8).empty


@pytest.mark.parametrize("name", [name for name, corpus in BUNDLED.items() if corpus.task == "classify" and name != "service_replies"])
def test_labels_are_balanced_over_the_splits(frames, name):
    frame = frames[name]
    check_labels(frame, name=name)
    table = pd.crosstab(frame["label"], frame["split"])[list(SPLITS)]
    print(table.to_string())  # shown by pytest -rP
    # Out-of-scope requests are held out more: nobody can train on all that is out of scope.
    table = table.drop(index="out_of_scope", errors="ignore")
    expected = table.sum(axis=1).to_numpy()[:, None] * (table.sum() / table.to_numpy().sum()).to_numpy()
    assert (table - expected).abs().to_numpy().max() <= 1.0


@pytest.mark.parametrize(
    ("name", "column"),
    [("sentiment", "domain"), ("articles", "kind"), ("dialogues", "topic"), ("voice_commands", "intent"), ("fact_records", "kind")],
)
def test_other_kinds_are_balanced_over_the_splits(frames, name, column):
    table = pd.crosstab(frames[name][column], frames[name]["split"])
    assert set(table.columns) == set(SPLITS)
    assert (table.max() - table.min()).max() <= 1


# What holds of each one.


def test_stories(frames):
    stories = frames["stories"]
    assert len(stories) >= 160
    assert stories["text"].map(num_words).between(100, 250).all()
    assert stories["title"].is_unique


def test_articles(frames):
    articles = frames["articles"]
    assert len(articles) >= 90
    assert articles["text"].map(num_words).between(80, 200).all()
    assert set(articles["kind"]) == {"news", "blog", "howto"}


def test_dialogues(frames):
    dialogues = frames["dialogues"]
    assert len(dialogues) >= 160
    assert dialogues["turns"].map(len).between(4, 10).all()
    for turns in dialogues["turns"]:
        assert len({turn["speaker"] for turn in turns}) == 2
        assert all(a["speaker"] != b["speaker"] for a, b in pairwise(turns)), "the speakers do not take turns"


def test_sentiment(frames):
    sentiment = frames["sentiment"]
    assert len(sentiment) >= 1000
    assert set(sentiment["label"]) == {"positive", "neutral", "negative"}
    assert sentiment["domain"].nunique() == 8
    assert set(sentiment.loc[sentiment["writer"].isin([2, 3]), "split"]) == {"test"}, "their style is what test asks about"
    assert set(sentiment.loc[sentiment["writer"] == 4, "split"]) == {"train", "valid"}
    assert pd.crosstab([sentiment["writer"], sentiment["split"]], sentiment["label"]).std(axis=1).max() == 0
    hard = pd.crosstab(sentiment["phenomenon"], sentiment["split"]).drop(index="plain")
    assert set(hard.index) == {"negation", "contrast", "irony", "mixed"}
    assert hard.to_numpy().min() >= 5, "a kind of hard text is missing in a split"


def test_news_topics(frames):
    assert len(frames["news_topics"]) >= 700
    assert set(frames["news_topics"]["label"]) == {"world", "business", "sport", "science", "culture"}


def test_messages(frames):
    messages = frames["messages"]
    assert len(messages) >= 700
    assert set(messages["label"]) == {"ham", "spam"}
    assert 0.2 < (messages["label"] == "spam").mean() < 0.5


@pytest.mark.parametrize("name", ["entities", "voice_commands"])
def test_tags_are_well_formed(frames, name):
    check_tags(frames[name], name=name)


def test_entities(frames):
    entities = frames["entities"]
    assert len(entities) >= 550
    for split in SPLITS:
        tags = Counter(tag for row in entities.loc[entities["split"] == split, "tags"] for tag in row.split())
        assert {tag[2:] for tag in tags if tag != "O"} == {"PER", "ORG", "LOC", "MISC"}
        assert min(tags[f"B-{kind}"] for kind in ("PER", "ORG", "LOC", "MISC")) >= 10
        assert tags["O"] / tags.total() > 0.5
    assert (entities["tags"].map(lambda tags: set(tags.split())) == {"O"}).any(), "every sentence has an entity"


def test_passages(rows, frames):
    passages = rows["passages.jsonl"]
    assert len(passages) >= 110
    for passage in passages:
        assert 3 <= len(passage["questions"]) <= 4
        for q in passage["questions"]:
            if q["answer"]:
                assert passage["context"][q["answer_start"] :].startswith(q["answer"]), q["id"]
            else:
                assert q["answer_start"] == -1, q["id"]
    questions = frames["passages"]
    assert questions["id"].is_unique
    unanswerable = questions["answer"].eq("").groupby(questions["split"]).mean()
    assert unanswerable.between(0.05, 0.35).all()
    assert questions.groupby("context")["split"].nunique().max() == 1, "a passage stands in two splits"


def test_countries(rows):
    countries = pd.DataFrame(rows["countries.jsonl"])
    assert len(countries) >= 190
    assert countries["country"].is_unique
    relations = ["capital", "continent", "currency", "language"]
    assert countries[relations].map(lambda value: bool(value.strip())).all(axis=None)
    assert set(countries["continent"]) == {"Africa", "Asia", "Europe", "North America", "South America", "Oceania"}
    assert set(countries["article"]) == {"", "the"}
    facts = countries.set_index("country")
    assert facts.loc["France", relations].tolist() == ["Paris", "Europe", "euro", "French"]
    assert facts.loc["Japan", relations].tolist() == ["Tokyo", "Asia", "Japanese yen", "Japanese"]
    wordings = pd.DataFrame(rows["country_question_wordings.jsonl"])
    assert set(wordings["relation"]) == set(relations)
    assert pd.crosstab(wordings["relation"], wordings["split"]).to_numpy().min() >= 2, "too few wordings of a relation"
    assert wordings["wording"].str.count(r"\{country\}").eq(1).all()


def test_country_questions_hold_out_countries_and_wordings(rows, frames):
    questions = frames["countries"]
    assert len(questions) == len(rows["countries.jsonl"]) * len(rows["country_question_wordings.jsonl"])
    assert not questions["question"].str.contains("[{}]").any()
    assert questions["question"].str[0].str.isupper().all()
    france = questions[(questions["country"] == "France") & (questions["question"] == "What is the capital of France?")]
    assert france["answer"].tolist() == ["Paris"]
    assert (questions["held_out"].eq("") == questions["split"].eq("train")).all()
    trained = set(questions.loc[questions["split"] == "train", "country"])
    assert not trained & set(questions.loc[questions["held_out"].str.contains("country"), "country"])
    assert trained & set(questions.loc[questions["held_out"] == "wording", "country"])


def test_translations(rows, frames):
    pairs = rows["translations.jsonl"]
    assert len(pairs) >= 1600
    assert sum(set(LANGUAGES) <= set(row) for row in pairs) >= 450
    frame = frames["translations"]
    assert set(frame["source_language"]) == {"en"}
    counts = pd.crosstab(frame["target_language"], frame["split"])
    assert counts.loc["es"].sum() == len(pairs)
    assert set(counts.index) == {"es", "fr", "de", "zh"}
    assert counts.to_numpy().min() >= 30
    assert frame.groupby("source")["split"].nunique().max() == 1
    assert frame.loc[frame["source"] == "Hello, how are you?", "target"].iloc[0] == "Hola, ¿cómo estás?"
    chinese = frame.loc[frame["target_language"] == "zh", "target"]
    assert chinese.str.contains("[\u4e00-\u9fff]").all()


def test_service_corpora(frames):
    requests, replies, conversations = (frames[f"service_{name}"] for name in ("intents", "replies", "conversations"))
    counts = requests["label"].value_counts()
    assert len(counts.drop("out_of_scope")) == 25
    assert counts.drop("out_of_scope").min() >= 28
    assert requests.loc[requests["label"] == "out_of_scope", "split"].value_counts().min() >= 20
    assert set(replies["label"]) == set(counts.index), "an intent has no reply, or a reply no intent"
    assert len(conversations) >= 60
    assert set(conversations["intent"]) <= set(counts.index)
    assert {turn["speaker"] for turns in conversations["turns"] for turn in turns} == {"customer", "agent"}
    assert set(conversations["resolved"]) == {True, False}


def test_voice_commands(frames):
    commands = frames["voice_commands"]
    assert commands["intent"].value_counts().min() >= 45
    assert commands["intent"].nunique() == 12
    slots = {split: {tag[2:] for tags in part["tags"] for tag in tags.split() if tag != "O"} for split, part in commands.groupby("split")}
    assert slots["test"] <= slots["train"]
    assert slots["valid"] <= slots["train"]
    assert commands["tokens"].str.islower().all(), "spoken commands have no capitals"


def test_fact_records(rows, frames):
    records = rows["fact_records.jsonl"]
    assert len(records) >= 220
    for record in records:
        assert [text["tone"] for text in record["texts"]] == ["factual", "lively"]
        for text in record["texts"]:
            for name, value in record["facts"].items():
                # A value may open a sentence.
                assert value.lower() in text["text"].lower(), f"{record['id']}, {text['tone']}: {name} {value!r} is missing"
    frame = frames["fact_records"]
    assert len(frame) == 2 * len(records)
    assert frame["source"].str.match(r"\w[\w ]*: .+ \| ").all()


def test_students_are_the_simulation(frames):
    students = frames["students"]
    assert students["student"].nunique() == 400
    assert students["skill"].nunique() == 20
    pd.testing.assert_frame_equal(students, simulate_students())
    assert students.groupby("student")["split"].nunique().max() == 1
    skills = pd.read_csv(CORPORA_DIR / "student_skills.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(skills, draw_skill_parameters().to_frame())


# Changed files.


@pytest.fixture
def own_corpora(tmp_path, monkeypatch):
    """A copy of the bundled folder that a test may spoil."""
    folder = tmp_path / "corpora"
    shutil.copytree(CORPORA_DIR, folder)
    monkeypatch.setattr(corpora, "CORPORA_DIR", folder)
    return folder


@pytest.mark.parametrize(
    ("name", "file"), [("stories", "stories.jsonl"), ("students", "students.csv"), ("countries", "country_question_wordings.jsonl")]
)
def test_changed_file_is_refused(own_corpora, name, file):
    assert len(load_dataset(name)) > 0
    content = (own_corpora / file).read_bytes()
    (own_corpora / file).write_bytes(content.replace(b"a", b"A", 1))
    with pytest.raises(ValueError, match=rf"{file}: the file was changed .*SHA-256.*Restore it with git"):
        load_dataset(name)
    assert check_bundled().set_index("file")["ok"].drop(file).all()
    assert not check_bundled().set_index("file")["ok"][file]


def test_missing_file_is_told(own_corpora):
    (own_corpora / "stories.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"stories\.jsonl: the bundled file is missing"):
        load_dataset("stories")
    assert check_bundled().query("not ok")["file"].tolist() == ["stories.jsonl"]


def test_change_on_purpose_is_recorded(own_corpora):
    row = json.dumps({"id": "story-999", "split": "train", "title": "New", "text": "A new one."})
    with open(own_corpora / "stories.jsonl", "a", encoding="utf-8") as file:
        file.write(row + "\n")
    write_checksums()
    assert load_dataset("stories")["title"].iloc[-1] == "New"
    assert check_bundled()["ok"].all()


def test_the_sentences_of_a_minimal_pair_differ_in_one_place(frames):
    """What is left between a common beginning and a common end is three words at most, and not the same on both sides."""
    frame = frames["minimal_pairs"]
    assert (frame["split"] == "test").all() and (frame["phenomenon"].value_counts() == 12).all() and len(frame) == 144
    for good, bad in zip(frame["good"].str.split(), frame["bad"].str.split(), strict=True):
        start = next(i for i in range(len(good)) if i == len(bad) or good[i] != bad[i])
        end = next(i for i in range(len(good) + 1) if i == len(bad) or i == len(good) or good[-1 - i] != bad[-1 - i])
        assert max(len(good), len(bad)) - start - min(end, min(len(good), len(bad)) - start) <= 3, (good, bad)
