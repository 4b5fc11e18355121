import builtins
import gzip
import json
import sys
from types import ModuleType

from slm_helpers.data import public as public_data
from slm_helpers.data.files import sha256_of
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.public import PUBLIC, download
from slm_helpers.data.schema import TASK_COLUMNS

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of its own and no mirror, whatever this machine has; the hub is out of reach."""
    monkeypatch.delenv("SLM_DATA_DIR", raising=False)
    monkeypatch.setenv("SLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "datasets", None)  # makes `import datasets` raise ImportError
    return tmp_path / "cache"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Return a function that puts files of one set into a mirror folder; names ending in .gz are packed."""
    folder = tmp_path / "mirror"
    monkeypatch.setenv("SLM_DATA_DIR", str(folder))

    def put(name, **files):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            path = folder / name / file.replace("__", ".")
            path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())

    return put


def reviews(num_rows, start=0):
    return "label\ttext\n" + "".join(f"{'positive' if i % 2 else 'negative'}\treview {spell(i)}\n" for i in range(start, start + num_rows))


def spell(number):
    """A number in letters, since near copies are found with digits left out."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


class FakeSplit(list):
    """What `datasets.load_dataset` returns, as far as it is used: rows, and features by column."""

    features: dict


class FakeClassLabel:
    names = ("neg", "pos")

    def int2str(self, number):
        return self.names[number]


@pytest.fixture
def hub(monkeypatch):
    """Put a stub of Hugging Face `datasets` in place; `hub.parts` holds its data, `hub.asked` what was fetched."""
    stub = ModuleType("datasets")
    stub.parts, stub.asked = {}, []

    def load(repository, config, *, split):
        stub.asked.append((repository, config, split))
        if split not in stub.parts:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(stub.parts)}.')
        rows, features = stub.parts[split]
        part = FakeSplit(rows)
        part.features = features
        return part

    stub.load_dataset = load
    monkeypatch.setitem(sys.modules, "datasets", stub)
    return stub


# The list of sets


@pytest.mark.parametrize("name", PUBLIC)
def test_every_set_has_a_known_task_files_and_a_line_about_it(name):
    public = PUBLIC[name]
    assert public.task in TASK_COLUMNS
    assert public.about
    assert public.files
    assert set(public.files) <= {"train", "valid", "test", "all"}
    assert all(patterns for patterns in public.files.values())
    assert set(public.hub_splits) <= {"train", "valid", "test", "all"}
    assert set(public.columns) | set(public.hub_columns) <= set(TASK_COLUMNS[public.task])


# The mirror


def test_classify_tsv_with_its_own_valid_part(mirror):
    mirror("sst2", train__tsv=reviews(20), dev__tsv=reviews(4, 20), test__tsv=reviews(6, 24))
    frame = load_dataset("sst2")
    assert frame["split"].value_counts().to_dict() == {"train": 20, "test": 6, "valid": 4}
    assert frame.iloc[1].to_dict() == {"text": "review b", "label": "positive", "split": "train"}
    assert load_dataset("sst2", split="valid")["text"].tolist() == ["review ca", "review cb", "review cc", "review cd"]


def test_several_packed_files_and_a_valid_part_dealt_from_train(mirror):
    mirror("imdb", train_a__tsv__gz=reviews(60), train_b__tsv__gz=reviews(40, 60), test__tsv__gz=reviews(10, 100))
    frame = load_dataset("imdb")
    assert frame["split"].value_counts().to_dict() == {"train": 90, "valid": 10, "test": 10}
    assert set(frame.loc[frame["split"] == "test", "text"]) == {f"review {spell(i)}" for i in range(100, 110)}, "test rows were dealt anew"
    assert frame["split"].tolist() == load_dataset("imdb")["split"].tolist()


def test_set_of_one_part_is_dealt_in_three(mirror):
    mirror("rt_polarity", all__tsv=reviews(50))
    assert load_dataset("rt_polarity")["split"].value_counts().to_dict() == {"train": 40, "valid": 5, "test": 5}


def test_equal_texts_stay_together_when_valid_is_dealt(mirror):
    rows = reviews(30).splitlines()
    mirror("airline_sentiment", train__tsv="\n".join([rows[0], *rows[1:] * 2]) + "\n", test__tsv=reviews(3, 30))
    frame = load_dataset("airline_sentiment")
    assert frame.groupby("text")["split"].nunique().max() == 1
    assert "valid" in set(frame["split"])


def test_columns_of_other_names_and_extra_parts(mirror):
    part = "intent\ttext\nbalance\twhat have I got\n"
    parts = {
        f"{where}{split}__tsv": part.replace("balance", where.strip("_") or "balance")
        for where in ("", "oos_")
        for split in ("train", "val", "test")
    }
    mirror("clinc150", **parts)
    frame = load_dataset("clinc150")
    assert frame["label"].tolist() == ["balance", "oos"] * 3
    assert frame["split"].tolist() == ["train", "train", "valid", "valid", "test", "test"]


def test_news_titles_are_joined_to_their_text(mirror):
    part = "label\ttitle\tdescription\nSports\tCup final\tThey won.\n"
    mirror("ag_news", train_part__tsv="label\ttext\n" + "".join(f"World\tnews {spell(i)}\n" for i in range(20)), test__tsv=part)
    mirror("bbc_news", train__jsonl=json.dumps({"label": "sport", "title": "Cup", "text": "Won."}) + "\n", test__jsonl=json.dumps(
        {"label": "tech", "title": "Chip", "text": "Fast."}) + "\n")  # fmt: skip
    assert load_dataset("ag_news", split="test")["text"].tolist() == ["Cup final. They won."]
    assert load_dataset("bbc_news", split="test")["text"].tolist() == ["Chip\nFast."]


def test_second_header_line_of_the_phrasebank_is_no_row(mirror):
    mirror("financial_phrasebank", train__tsv=reviews(20) + "result\tcontent\n", test__tsv=reviews(2, 20))
    assert set(load_dataset("financial_phrasebank")["label"]) == {"positive", "negative"}


def test_conll_tags(mirror):
    part = "Ada\tB-PER\nK.\tI-PER\nran\tO\n\nIn\tO\nNew York\tB-LOC\n"
    mirror("wnut17", train__tsv=part, dev__tsv=part, test__tsv=part)
    frame = load_dataset("wnut17", split="train")
    assert frame["tokens"].tolist() == ["Ada K. ran", "In New_York"]
    assert frame["tags"].tolist() == ["B-PER I-PER O", "O B-LOC"]


def test_works_of_several_words_are_put_together_where_the_mirror_took_them_apart(mirror):
    work = "B-creative-work"
    torn = f"I\tO\nsaw\tO\nThe\t{work}\nLong\t{work}\nWay\t{work}\n\nDune\t{work}\nAda\tB-person\nDune\t{work}\n"
    whole = f"The\t{work}\nWay\tI-creative-work\nDune\t{work}\n"
    mirror("wnut17", train__tsv=torn, dev__tsv=whole, test__tsv="a\tO\n")
    frame = load_dataset("wnut17")
    assert frame["tags"].tolist() == [
        "O O B-creative-work I-creative-work I-creative-work",
        "B-creative-work B-person B-creative-work",
        "B-creative-work I-creative-work B-creative-work",  # of a mirror that has them whole nothing is changed
        "O",
    ]


def test_ill_formed_tags_of_a_mirror_are_refused(mirror):
    mirror("wnut17", train__tsv="Ada\tI-PER\n", dev__tsv="a\tO\n", test__tsv="a\tO\n")
    with pytest.raises(ValueError, match="wnut17, row 1, token 1: I-PER follows O"):
        load_dataset("wnut17")


def test_slots_with_intents(mirror):
    part = "intent\ttokens\tslots\nGetWeather\train in mt\tO O B-state\n"
    mirror("snips", train__tsv=part, valid__tsv=part, test__tsv=part)
    assert load_dataset("snips").iloc[0].to_dict() == {
        "tokens": "rain in mt",
        "tags": "O O B-state",
        "intent": "GetWeather",
        "split": "train",
    }


def test_sentence_pairs_with_their_languages(mirror):
    part = "en\tzh\nHello.\t你好。\n"
    mirror("tatoeba_en_zh", train__tsv=part, valid__tsv=part, test__tsv=part)
    row = load_dataset("tatoeba_en_zh", split="test").iloc[0]
    assert row.to_dict() == {"source": "Hello.", "target": "你好。", "source_language": "en", "target_language": "zh", "split": "test"}


def test_meanings_and_triples_become_source_text(mirror):
    mirror(
        "e2e_nlg",
        devset__tsv="mr\tref\n" + "name[The Mill], area[city centre]\tThe Mill is central.\n" * 5,
        testset__tsv="mr\tref\nname[X]\tX.\n",
    )
    assert load_dataset("e2e_nlg", split="train")["source"].iloc[0] == "name: The Mill | area: city centre"
    line = {"category": "Airport", "triples": [["Aarhus", "leaderName", "Jacob_B"], ["Aarhus", "size", "2.0"]], "texts": ["One.", "Two."]}
    mirror("webnlg", **{f"{part}__jsonl": json.dumps(line) + "\n" for part in ("train", "dev", "test")})
    frame = load_dataset("webnlg", split="train")
    assert frame["source"].tolist() == ["Aarhus : leaderName : Jacob B | Aarhus : size : 2.0"] * 2
    assert frame["target"].tolist() == ["One.", "Two."]
    assert set(frame["kind"]) == {"Airport"}


def test_articles_and_lines_of_a_text_file(mirror):
    mirror("wikipedia_en", **{f"part_{i}__txt__gz": "\n\n".join(f"Title {spell(10 * i + j)}\nBody." for j in range(10)) for i in range(2)})
    frame = load_dataset("wikipedia_en")
    assert frame["text"].iloc[0] == "Title a\nBody."
    assert frame["split"].value_counts().to_dict() == {"train": 16, "valid": 2, "test": 2}
    mirror("abc_news", rural__txt="\n".join(f"line {spell(i)}" for i in range(10)))
    assert load_dataset("abc_news")["text"].tolist() == [f"line {spell(i)}" for i in range(10)]


def test_one_long_text_stays_whole(mirror):
    mirror("tiny_shakespeare", input__txt="First Citizen:\n\nSpeak.\n")
    assert load_dataset("tiny_shakespeare").to_dict("records") == [{"text": "First Citizen:\n\nSpeak.\n", "split": "train"}]


def test_stories_and_questions_of_one_folder(mirror):
    story = json.dumps({"story": "fox", "sections": ["Once there was\na  Fox.", "The end."]}) + "\n"
    about = {"story": "fox", "question": "Who?", "attribute": "character", "type": "explicit"}
    asked = [about | {"sections": [1], "answer": "a fox"}, about | {"sections": [1, 2], "answer": "Somebody else"}]
    asked += [about | {"sections": [2, 1], "answer": "The end. Once"}]
    questions = "".join(json.dumps(row) + "\n" for row in asked)
    mirror(
        "fairytaleqa",
        train_stories__jsonl__gz=story,
        val_stories__jsonl=story,
        train_questions__jsonl__gz=questions,
        val_questions__jsonl=questions,
    )
    assert load_dataset("fairytaleqa_stories", split="valid")["text"].tolist() == ["Once there was\na  Fox.\n\nThe end."]
    frame = load_dataset("fairytaleqa")
    # As it is written in the sections that were asked about; answers that do not stand there are left out.
    assert frame.loc[frame["split"] == "test", "answer"].tolist() == ["a  Fox", "The end. Once"]
    assert all(row.context[row.answer_start :].startswith(row.answer) for row in frame.itertuples())
    assert set(frame["story"]) == {"fox"} and set(frame["kind"]) == {"character"}


def test_passages_and_bare_facts(mirror):
    line = {"context": "It was 1870 then.", "question": "When?", "answer": "1870", "answer_start": 7, "id": "x"}
    mirror("xquad", xquad__en__jsonl="".join(json.dumps(line | {"context": f"It was 1870 {spell(i)}."}) + "\n" for i in range(20)))
    frame = load_dataset("xquad_en")
    assert set(frame["answer_start"]) == {7}
    assert frame["split"].value_counts().to_dict() == {"train": 16, "valid": 2, "test": 2}
    mirror("country_facts", countries__tsv="country\tcapital\tregion\tcurrency\tlanguages\nNorway\tOslo\tEurope\t\tNynorsk,Bokmål\n")
    facts = load_dataset("country_facts")
    assert dict(zip(facts["question"], facts["answer"], strict=True)) == {
        "capital of Norway": "Oslo", "region of Norway": "Europe", "languages of Norway": "Nynorsk",
    }  # fmt: skip


def test_questions_without_passage_are_dealt_by_question(mirror):
    countries = "".join(f"Land {spell(i)}	Town	Europe		\n" for i in range(20))
    mirror("country_facts", countries__tsv="country\tcapital\tregion\tcurrency\tlanguages\n" + countries)
    assert load_dataset("country_facts")["split"].value_counts().to_dict() == {"train": 32, "valid": 4, "test": 4}


def test_dialogues(mirror):
    mirror("dailydialog", validation__jsonl="".join(json.dumps({"turns": [f"Hi {spell(i)} ", "Hello"]}) + "\n" for i in range(10)))
    turns = load_dataset("dailydialog")["turns"].iloc[0]
    assert turns == [{"speaker": "A", "text": "Hi a"}, {"speaker": "B", "text": "Hello"}]


def test_first_turns_of_task_dialogues_are_labelled_by_their_one_domain(mirror):
    def dialogue(number, *services, first="USER"):
        turns = [[first, f" Hello {spell(number)} "], ["SYSTEM", "Yes?"], ["USER", "Please."]]
        return json.dumps({"id": str(number), "services": services, "turns": turns}) + "\n"

    train = "".join(dialogue(i, ("Banks_1", "Homes_2")[i % 2]) for i in range(20)) + dialogue(20, "Banks_1", "Homes_2")
    dev = dialogue(30, "Banks_2") + dialogue(31, "Alarm_1") + dialogue(32, "Homes_1", "Homes_2") + dialogue(33, "Homes_1", first="SYSTEM")
    mirror("schema_guided_dialogue", train__jsonl__gz=train, dev__jsonl=dev)
    frame = load_dataset("schema_guided_openings")
    assert frame["split"].value_counts().to_dict() == {"train": 18, "test": 3, "valid": 2}
    test = frame[frame["split"] == "test"]
    assert test[["text", "label"]].to_numpy().tolist() == [
        ["Hello " + spell(30), "Banks"],
        ["Hello " + spell(32), "Homes"],
        ["Please.", "Homes"],
    ]
    assert set(frame["label"]) == {"Banks", "Homes"} and "20" not in set(frame["id"])


def test_requests_with_intents_keep_their_official_parts(mirror):
    head = "category\tintent\tentity_type\tentity_value\tutterance\ttags\n"
    part = {
        name: head + f"ORDER\tcancel_order\t\t\tcancel {name} now\tB\nORDER\ttrack_order\torder_id\t12\twhere is 12\tBL\n" for name in "abc"
    }
    mirror("bitext_customer_service", train__tsv=part["a"], dev__tsv=part["b"], test__tsv=part["c"])
    frame = load_dataset("bitext_customer_service")
    assert frame["split"].tolist() == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    assert frame.iloc[0][["text", "label"]].tolist() == ["cancel a now", "cancel_order"]


def test_learners_are_not_torn_apart_nor_mixed_up(mirror):
    part = "n\tskills\tcorrect\n" + "3\t51 51 7\t0 1 1\n" * 30
    mirror("assistments2009", train__tsv=part, test__tsv=part)
    frame = load_dataset("assistments2009")
    assert len(frame) == 2 * 30 * 3
    assert set(frame["split"]) == {"train", "valid", "test"}
    assert frame.groupby("student")["split"].nunique().max() == 1
    attempts = frame.groupby("student")["step"].apply(list)
    assert len(attempts) == 60, "learners of two files share a name"
    assert set(map(tuple, attempts)) == {(0, 1, 2)}
    assert frame.loc[:2, ["skill", "correct"]].to_numpy().tolist() == [["51", 0], ["51", 1], ["7", 1]]


def test_books_with_their_own_shares_and_books_that_are_only_scored(mirror):
    mirror("story_books_2", **{f"tale_{spell(i)}__txt": f"Tale {spell(i)}.\n\nThe end." for i in range(40)})
    assert load_dataset("story_books_2")["split"].value_counts().to_dict() == {"train": 38, "valid": 1, "test": 1}
    free = {"college_success__txt": "a", "life_liberty__txt__gz": "b", "physics__txt": "c", "principles_of_economics_3e__txt": "d"}
    other = {"introduction_to_sociology_3e__txt": "e", "introduction_to_philosophy_2e__txt": "f", "u_s_history__txt": "g"}
    mirror("textbooks", **free, **other)
    frame = load_dataset("textbooks")
    assert {split: "".join(rows["text"]) for split, rows in frame.groupby("split")} == {"train": "abcd", "valid": "e", "test": "f"}


def test_simple_stories_begin_where_they_open(mirror):
    mirror("tinystories_more", train_more__txt="Tom ran.\n\nOne day, Ann sat.\n\nâ€œNo,â€ she said.\n\nOnce upon a time, it rained.")
    assert sorted(load_dataset("tinystories_more")["text"]) == [
        "Once upon a time, it rained.",
        "One day, Ann sat.\n\n“No,” she said.",
        "Tom ran.",
    ]


def test_each_reading_level_is_a_text(mirror):
    row = {"id": "x", "elementary": "It is hot.", "intermediate": "", "advanced": "It is exceedingly hot."}
    mirror("onestopenglish", train__jsonl__gz=json.dumps(row) + "\n")
    assert load_dataset("onestopenglish")["text"].tolist() == ["It is hot.", "It is exceedingly hot."]


def test_dialogues_of_one_folder_and_spaces_of_tokenised_ones(mirror):
    rows = [{"turns": [["user", "I 've a dog , ok ?"], ["agent", "It is n't here ( yet ) . Name : Rex 's"]]}]
    files = {f"{name}_{part}__jsonl": json.dumps(rows[0]) + "\n" for name in ("multiwoz21", "self_dialogue") for part in ("train", "valid")}
    mirror("dialogues", **files)
    assert [turn["text"] for turn in load_dataset("multiwoz21", split="train")["turns"][0]] == [
        "I've a dog, ok?", "It isn't here (yet). Name: Rex's"
    ]  # fmt: skip
    assert load_dataset("self_dialogue", split="valid")["turns"].iloc[0][0] == {"speaker": "user", "text": "I 've a dog , ok ?"}


def test_turns_of_a_customer_make_one_dialogue(mirror):
    head = "domain\tconversation\tturn\tintent\tutterance\tslots\n"
    rows = "air\tone\t1\thi\thello\tO\nair\tone\t2\tbook\ta seat\tO O\nair\ttwo\t1\thi\they\tO\n"
    mirror("multidogo", train__tsv__gz=head + rows, valid__tsv=head + "air\tthree\t1\thi\tyes\tO\n")
    turns = load_dataset("multidogo_customers", split="train")["turns"]
    assert [[turn["text"] for turn in each] for each in turns] == [["hello", "a seat"], ["hey"]]


def test_trivia_and_minimal_pairs(mirror):
    row = {"category": "sports", "question": "Who won?", "choice": ["Ann", "Bob"], "answer": "Bob"}
    mirror("open_trivia_qa", train__jsonl=json.dumps(row) + "\n", valid__jsonl=json.dumps(row) + "\n")
    assert load_dataset("open_trivia_qa", split="train").iloc[0].to_dict() == {
        "context": "", "question": "Who won?", "answer": "Bob", "answer_start": -1, "split": "train"
    }  # fmt: skip
    pair = {"UID": "drop", "phenomenon": "s-selection", "sentence_good": "He runs.", "sentence_bad": "He run."}
    mirror("blimp", pairs__jsonl__gz=json.dumps(pair) + "\n")
    assert load_dataset("blimp").iloc[0].to_dict() == {
        "good": "He runs.", "bad": "He run.", "phenomenon": "argument_structure", "paradigm": "drop", "split": "test"
    }  # fmt: skip


def test_part_missing_in_the_mirror_is_named(mirror):
    mirror("sst2", train__tsv=reviews(20))
    with pytest.raises(FileNotFoundError, match=r"sst2.dev\.tsv\*: there is no such file in the mirror. Copy the set again"):
        load_dataset("sst2")


# Neither mirror nor cache


def test_mirror_that_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SLM_DATA_DIR", str(tmp_path / "unplugged"))
    with pytest.raises(FileNotFoundError, match=r"SLM_DATA_DIR is '.*unplugged', but there is no such folder"):
        load_dataset("sst2")


def test_missing_set_says_what_to_do(mirror):
    mirror("other", a__tsv="x\n")
    with pytest.raises(
        FileNotFoundError, match=r"sst2 is not in the local mirror .*folder that holds sst2/.*pip install --editable '\.\[public\]'"
    ):
        load_dataset("sst2")
    with pytest.raises(FileNotFoundError, match=r"ptb is not .*no online source. Point SLM_DATA_DIR at a folder that holds ptb/"):
        load_dataset("ptb")


def test_without_mirror_and_without_datasets_the_extra_is_named(cache):
    with pytest.raises(FileNotFoundError, match=r"SLM_DATA_DIR=not set.*pip install --editable '\.\[public\]'"):
        load_dataset("sst2")
    assert not cache.exists()


def test_bundled_sets_need_none_of_it():
    assert len(load_dataset("stories")) > 0


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'sst3' is no public set. Known: .*sst2"):
        download("sst3")


# The hub


def test_hub_rows_get_class_names_and_a_valid_part(hub, cache):
    features = {"text": None, "label": FakeClassLabel()}
    hub.parts = {
        "train": ([{"text": f"film {spell(i)}", "label": i % 2} for i in range(20)], features),
        "test": ([{"text": "film x", "label": 1}], features),
    }
    frame = load_dataset("imdb")  # has no validation part
    assert frame["split"].value_counts().to_dict() == {"train": 18, "valid": 2, "test": 1}
    assert frame.loc[frame["text"] == "film b", "label"].tolist() == ["pos"]
    assert hub.asked == [("stanfordnlp/imdb", None, part) for part in ("train", "validation", "test")]
    assert sorted(path.name for path in (cache / "imdb").iterdir()) == ["all.jsonl", "all.sha256"]


def test_cached_file_is_used_the_second_time(hub):
    features = {"text": None, "label": FakeClassLabel()}
    hub.parts = {"train": ([{"text": f"film {spell(i)}", "label": i % 2} for i in range(20)], features)}
    first = load_dataset("rt_polarity")
    asked = len(hub.asked)
    assert load_dataset("rt_polarity").equals(first)
    assert len(hub.asked) == asked == 3


def test_mirror_goes_before_hub_and_cache(hub, mirror):
    mirror("rt_polarity", all__tsv=reviews(10))
    assert len(load_dataset("rt_polarity")) == 10
    assert hub.asked == []


def test_hub_columns_of_other_names_and_plain_numbers(hub):
    hub.parts = {
        part: ([{"text": f"a {part}", "label": 0, "label_text": "negative"}], {"text": None}) for part in ("train", "validation", "test")
    }
    assert load_dataset("sst2")["label"].tolist() == ["negative"] * 3
    assert load_dataset("sst5")["label"].tolist() == ["0"] * 3  # as in the mirror, text


def test_hub_answers_in_lists(hub):
    row = {"question": "When?", "answers": {"text": ["1870", "in 1870"], "answer_start": [7, 4]}}
    rows = [row | {"context": f"It was 1870 {spell(i)}."} for i in range(19)] + [
        {"context": "No.", "question": "?", "answers": {"text": [], "answer_start": []}}
    ]
    hub.parts = {"validation": (rows, dict.fromkeys(row))}
    frame = load_dataset("xquad_en")
    assert frame["split"].value_counts().to_dict() == {"train": 16, "valid": 2, "test": 2}
    assert frame[["answer", "answer_start"]].value_counts().to_dict() == {("1870", 7): 19, ("", -1): 1}


def test_hub_out_of_reach_or_empty_leaves_no_cache(hub, cache, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"sst2 is not .*SetFit/sst2 has none of the parts train, validation, test"):
        load_dataset("sst2")
    for error in (ConnectionError("no route"), RuntimeError("scripts are no longer supported")):

        def fail(*args, error=error, **options):
            raise error

        monkeypatch.setattr(hub, "load_dataset", fail)
        with pytest.raises(FileNotFoundError, match=f"SetFit/sst2 could not be fetched .{error}"):
            load_dataset("sst2")
    assert not cache.exists()


def test_naming_a_set_imports_nothing(monkeypatch):
    """Listing sets must not touch the hub."""
    real = builtins.__import__

    def guarded(name, *args, **options):
        assert name != "datasets", "datasets was imported without need"
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", guarded)
    from slm_helpers.data.loading import list_datasets

    assert len(list_datasets()) > len(public_data.PUBLIC)


@pytest.fixture
def cached(hub, cache):
    """A set in the cache, as `download` leaves it."""
    hub.parts = {"train": ([{"text": f"film {spell(i)}", "label": i % 2} for i in range(20)], {"text": None, "label": FakeClassLabel()})}
    load_dataset("imdb")
    return cache / "imdb" / "all.jsonl"


def test_altered_cache_is_not_used(cached):
    content = cached.read_text()
    cached.write_text(content.replace("pos", "neg", 1))
    with pytest.raises(ValueError, match=r"all\.jsonl: the file is not the one that was downloaded.*slm download imdb"):
        load_dataset("imdb")
    cached.write_text(content)
    assert len(load_dataset("imdb")) == 20
    cached.with_name("all.sha256").unlink()
    with pytest.raises(ValueError, match="recorded none"):
        load_dataset("imdb")


def test_cache_without_the_columns_of_its_task_is_told(cached):
    cached.write_text('{"text": "a", "split": "train"}\n')
    cached.with_name("all.sha256").write_text(sha256_of(cached))
    with pytest.raises(ValueError, match=r"the column 'label' is missing. Fetch the set again"):
        load_dataset("imdb")


def test_without_a_home_folder_the_cache_has_to_be_named(cache, monkeypatch):
    monkeypatch.delenv("SLM_CACHE_DIR")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", no_home)
    with pytest.raises(ValueError, match=r"no home folder to keep downloaded sets in. Set SLM_CACHE_DIR"):
        load_dataset("imdb")
