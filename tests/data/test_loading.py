import gzip
import json
import re
import warnings
from collections import Counter
from pathlib import Path

from slm_helpers.data.files import read_checked
from slm_helpers.data.loading import list_datasets, load_dataset, skipped_rows
from slm_helpers.data.schema import TASK_COLUMNS, check_labels, check_tags, clean_row
from slm_helpers.data.splits import find_shared_runs, make_splits, make_windows, normalise_text

import numpy as np
import pandas as pd
import pytest

WORDS = [
    "amber", "birch", "cloud", "delta", "ember", "frost", "grove", "hazel", "inlet", "jetty",
    "knoll", "lemon", "maple", "night", "ocean", "pearl", "quill", "river", "stone", "tulip",
]  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Return a function that writes text or bytes to a file in tmp_path and returns its path as a string."""

    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return str(path)

    return write_file


def reviews(*extra, header="comment,stars"):
    """Twenty good rows of a CSV, ten each of two classes, then `extra` ones; the first extra row stands in line 22."""
    rows = [f"{word} is {'fine' if i % 2 else 'poor'},{1 + 4 * (i % 2)}" for i, word in enumerate(WORDS)]
    return "\n".join([header, *rows, *extra]) + "\n"


def load(path, **options):
    return load_dataset(path, **({"text": "comment", "label": "stars"} | options))


def test_own_csv_becomes_task_columns_and_a_split(write):
    frame = load(write("my.csv", reviews()))
    assert list(frame.columns) == ["text", "label", "split"]
    assert frame["text"].iloc[0] == "amber is poor"
    assert Counter(frame["split"]) == {"train": 16, "valid": 2, "test": 2}
    assert set(frame["label"]) == {"1", "5"}  # strings, even where they look like numbers
    assert skipped_rows(frame).empty
    assert list(skipped_rows(frame).columns) == ["where", "column", "reason"]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "jsonl", "parquet"])
def test_every_format_loads_the_same_rows(write, tmp_path, ending):
    table = pd.DataFrame([line.split(",") for line in reviews().splitlines()[1:]], columns=["comment", "stars"])
    content = {
        "csv": reviews(),
        "csv.gz": gzip.compress(reviews().encode()),
        "tsv": reviews().replace(",", "\t"),
        "jsonl": "".join(json.dumps({"comment": c, "stars": int(s)}) + "\n" for c, s in table.to_numpy()),
    }
    path = tmp_path / f"my.{ending}"
    if ending == "parquet":
        table.astype({"stars": float}).to_parquet(path)
    else:
        write(path.name, content[ending])
    pd.testing.assert_frame_equal(load(path), load(write("same.csv", reviews())))


def test_semicolon_csv_with_crlf_and_byte_order_mark(write):
    content = "\ufeff" + reviews().replace(",", ";").replace("\n", "\r\n")
    pd.testing.assert_frame_equal(load(write("excel.csv", content)), load(write("plain.csv", reviews())))


def test_known_column_names_need_no_options(write):
    frame = load_dataset(write("my.csv", reviews(header="text,label")))
    assert list(frame.columns) == ["text", "label", "split"]


def test_columns_of_no_task_are_left_out(write):
    content = "id,text,label,note\n" + "".join(f"{i},{word},{'ab'[i % 2]},x\n" for i, word in enumerate(WORDS))
    assert list(load_dataset(write("my.csv", content)).columns) == ["text", "label", "split"]


def test_named_column_wins_over_one_of_our_name(write):
    content = "text,comment,label\n" + "".join(f"short,{word},{'ab'[i % 2]}\n" for i, word in enumerate(WORDS))
    assert load_dataset(write("my.csv", content), text="comment")["text"].tolist() == WORDS


@pytest.mark.parametrize("text", ["שלום עולם", "👩‍👩‍👧 🇧🇷", "a\u200fb", "  spaces stay  "])
def test_text_arrives_unchanged(write, text):
    frame = load_dataset(write("my.csv", f'text\n"{text}"\n' + "".join(f"{word}\n" for word in WORDS)))
    assert frame["text"].iloc[0] == text


def test_encodings(write):
    content = reviews("Café olé,1")
    with pytest.raises(ValueError, match=r"my\.csv, line 22: the bytes are not utf-8 text.*encoding='cp1252'"):
        load(write("my.csv", content.encode("cp1252")))
    assert load(write("my.csv", content.encode("cp1252")), encoding="cp1252")["text"].iloc[-1] == "Café olé"
    assert load(write("my.csv", content.encode("utf-16")), encoding="utf-16")["text"].iloc[-1] == "Café olé"


def test_txt_is_text_for_a_language_model(write):
    frame = load_dataset(write("my.txt", "\n\n".join(f"{word}\nand more" for word in WORDS)))
    assert list(frame.columns) == ["text", "split"]
    assert frame["text"].tolist() == [f"{word}\nand more" for word in WORDS]


def test_conll_file_loads_as_tags(write):
    frame = load_dataset(write("my.conll", "".join(f"{word} B-LOC\nrains O\n\n" for word in WORDS)))
    assert frame.iloc[0][["tokens", "tags"]].tolist() == ["amber rains", "B-LOC O"]


def test_dialogues_and_attempts(write):
    turns = json.dumps([{"speaker": "A", "text": "Hi"}]).replace('"', '""')
    frame = load_dataset(write("d.csv", "turns\n" + f'"{turns}"\n'), split="train")
    assert frame["turns"].iloc[0] == [{"speaker": "A", "text": "Hi"}]
    rows = "".join(f"student-{i // 5},{i % 5},adding,{i % 2}.0\n" for i in range(60))
    frame = load_dataset(write("t.csv", "student,step,skill,right\n" + rows), correct="right")
    assert frame[["step", "correct"]].dtypes.tolist() == [np.int64, np.int64]
    assert frame.groupby("student")["split"].nunique().max() == 1, "a student's attempts stand in two splits"
    assert set(frame["split"]) == {"train", "valid", "test"}, "student-1 and student-2 were taken for one"


def test_unanswerable_question_keeps_its_empty_answer(write):
    rows = "".join(f"The {word} is old.,How old?,,-1\n" for word in WORDS)
    frame = load_dataset(write("q.csv", "context,question,answer,answer_start\n" + rows))
    assert len(frame) == len(WORDS)
    assert set(frame["answer"]) == {""}
    assert set(frame["answer_start"]) == {-1}


def test_questions_and_answers_need_no_passage_and_no_place(write):
    frame = load_dataset(write("q.csv", "question,reply\n" + "".join(f"Where is the {word}?,here\n" for word in WORDS)), answer="reply")
    assert set(frame["context"]) == {""} and set(frame["answer_start"]) == {-1}
    rows = "".join(f"The {word} is here.,Where?,here,{8 + len(word)}\n" for word in WORDS)
    frame = load_dataset(write("p.csv", "context,question,answer,place\n" + rows), answer_start="place")
    assert all(row.context[row.answer_start :] == "here." for row in frame.itertuples()) and frame["answer_start"].dtype == np.int64


def test_questions_without_passage_are_dealt_by_question(write):
    rows = "".join(f",Where is the {word}?,here\n" * 2 for word in WORDS)
    frame = load_dataset(write("q.csv", "context,question,answer\n" + rows))
    assert set(frame["split"]) == {"train", "valid", "test"}
    assert frame.groupby("question")["split"].nunique().max() == 1


def test_large_numbers_as_labels_stay_apart(write):
    lines = (json.dumps({"text": word, "label": [1234567, 1234568, 2.5, 3.0][i % 4]}) for i, word in enumerate(WORDS * 2))
    frame = load_dataset(write("my.jsonl", "\n".join(lines)))
    assert set(frame["label"]) == {"1234567", "1234568", "2.5", "3"}


def test_split_column_is_kept_and_its_usual_names_understood(write):
    names = ["train", "Training", "dev", "VAL", "validation", "eval", "valid", " test "]
    content = "text,label,split\n" + "".join(f"{w},{'ab'[i % 2]},{names[i % 8]}\n" for i, w in enumerate(WORDS[:16]))
    frame = load_dataset(write("my.csv", content))
    assert frame["split"].tolist() == ["train", "train", "valid", "valid", "valid", "valid", "valid", "test"] * 2


@pytest.mark.parametrize("name", ["holdout", "", "1"])
def test_bad_split_name_is_told_with_its_line(write, name):
    content = f"text,label,split\na,1,train\nb,2,{name}\n"
    with pytest.raises(ValueError, match=rf"my\.csv, line 3, column 'split': '{name}', but it must be train, valid or test"):
        load_dataset(write("my.csv", content))


def test_rows_without_split_among_rows_with_one(write):
    lines = [json.dumps({"text": "a", "split": "train"}), json.dumps({"text": "b"})]
    with pytest.raises(ValueError, match=r"my\.jsonl, line 2, column 'split': empty.*Fill it in"):
        load_dataset(write("my.jsonl", "\n".join(lines)))


def test_split_option_counts_a_whole_file_to_it_or_selects(write):
    assert set(load(write("a.csv", "comment,stars\nfine,5\n"), split="test")["split"]) == {"test"}
    both = write("b.csv", "text,split\na,train\nb,test\n")
    assert load_dataset(both, split="test")["text"].tolist() == ["b"]
    with pytest.raises(ValueError, match=r"b\.csv: no row has the split 'valid'"):
        load_dataset(both, split="valid")
    with pytest.raises(ValueError, match="split is 'dev', but must be one of 'train', 'valid', 'test'"):
        load_dataset(both, split="dev")


def test_too_few_rows_to_split(write):
    with pytest.raises(ValueError, match=r"my\.csv: 3 rows are too few to split. Give ten at least, or a column 'split'"):
        load(write("my.csv", "comment,stars\na,1\nb,2\nc,1\n"))


def test_seed_changes_the_deal_of_an_own_file_and_nothing_else(write):
    path = write("my.csv", reviews())
    first, again, other = load(path, seed=1), load(path, seed=1), load(path, seed=2)
    pd.testing.assert_frame_equal(first, again)
    assert first["split"].tolist() != other["split"].tolist()
    pd.testing.assert_frame_equal(first[["text", "label"]], other[["text", "label"]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.csv", "", "the file is empty. It needs a header line and at least one row"),
        ("my.csv", "comment,stars\n", "there is no row under the header. Add at least one"),
        ("my.csv", reviews(header="comment,rating"), r"no column 'stars' \(asked for as label\). It has: comment, rating"),
        ("my.csv", reviews(header="text,stars"), r"no column 'comment' \(asked for as text\). It has: text, stars"),
        ("my.csv", reviews(header="comment,comment"), "line 1: the column name 'comment' stands there twice. Give each"),
        ("my.csv", reviews('"open,1'), "line 22: broken quotes .* opening quote needs a closing one"),
        ("my.csv", reviews(*["good, really,1"] * 3), r"line 22: 3 cells, but the header has 2 columns \(comment, stars\).*double quotes"),
        ("my.csv", reviews("word " * 2_000_000 + ",1"), r"line 22, column 'comment': the cell has 10,000,000 characters.*Split"),
        ("my.csv", reviews().replace(",1", ",5"), r"column 'stars': the labels have 1 class\(es\) in train \('5'\).*Add rows"),
        ("my.csv", "comment,stars\n,1\n ,2\n", "no row is left: all 2 lack a value, e.g. .*line 2, column 'comment'"),
        ("my.tsv", "comment\tstars\na\tb\t1\n", "line 2: 3 cells, .*no cell can hold a tab"),
        ("my.csv.gz", gzip.compress(reviews().encode())[:-9], "the gzip file is damaged or cut short .* Copy it again"),
        ("my.parquet", reviews(), "not a parquet file, or cut short"),
        ("my.jsonl", '{"comment": "a", "stars": 1}\n{"comment"\n', "line 2: not a JSON object .*Each line holds one object"),
        ("my.jsonl", '["a", 1]\n', "line 1: a JSON list, but each line must hold an object"),
        ("my.jsonl", '{"comment": "a", "comment": "b", "stars": 1}\n', "line 1: .*the key 'comment' stands there twice"),
        ("my.jsonl", '{"comment": 5, "stars": 1}\n', "line 1, column 'comment': int 5, but text is needed. Put it in quotes"),
        ("my.jsonl", '{"comment": ["a"], "stars": 1}\n', "line 1, column 'comment': list .*but text is needed"),
        ("my.jsonl", '{"comment": "a", "stars": ["x", "y"]}\n', r"line 1, column 'stars': 2 labels \(x, y\), but each text has one"),
        ("my.jsonl", '{"comment": "a", "stars": 1}\n{"comment": "b", "stars": 1, "label": 2}\n', "line 2: the first row has no 'label'"),
    ],
    ids=lambda value: value[:18] if isinstance(value, str) else "gz",
)
def test_bad_file_is_told_with_name_place_and_remedy(write, name, content, message):
    with pytest.raises(ValueError, match=rf"[/\\]{re.escape(name)}\b.*{message}"):
        load(write(name, content))


@pytest.mark.parametrize("seed", range(8))
def test_class_of_few_rows_stays_in_train(write, seed):
    frame = load(write("my.csv", reviews("odd one,3", "odd two,3", "odd three,3")), seed=seed)
    assert frame.loc[frame["label"] == "3", "split"].tolist() == ["train"] * 3


def test_label_unseen_in_training_is_told_with_its_line(write):
    content = "comment,stars,split\na,1,train\nb,2,train\nc,2,valid\nd,7,test\n"
    with pytest.raises(ValueError, match=r"my\.csv, line 5, column 'stars': label '7' stands in test but never in train.*remove the rows"):
        load(write("my.csv", content))


def test_without_a_file_an_unseen_label_is_told_by_its_row_in_the_split():
    frame = pd.DataFrame({"label": ["1", "2", "1", "1", "7"], "split": ["train", "train", "valid", "test", "test"]})
    with pytest.raises(ValueError, match=r"^test, row 2: label '7' stands in test but never in train"):
        check_labels(frame)


def test_line_of_an_unseen_label_is_right_after_left_out_rows(write):
    content = "comment,stars,split\na,1,train\n,2,train\nb,2,train\nd,7,test\n"
    with pytest.raises(ValueError, match=r"my\.csv, line 5"):
        load(write("my.csv", content))


def test_test_file_alone_may_lack_labels_of_training(write):
    assert len(load(write("my.csv", "comment,stars\nfine,5\n"), split="test")) == 1


@pytest.mark.parametrize(
    ("tokens", "tags", "message"),
    [
        ("It rains", "O", "2 tokens but 1 tags. Each token needs one tag"),
        ("It rains", "O O O", "2 tokens but 3 tags"),
        ("It  rains", "O O", "3 tokens but 2 tags"),
        ("Old Bergen", "O I-LOC", "token 2: I-LOC follows O, but I-LOC may only continue B-LOC or I-LOC. Write B-LOC"),
        ("Ada Bergen", "B-PER I-LOC", "token 2: I-LOC follows B-PER"),
        ("Bergen rains", "I-LOC O", "token 1: I-LOC follows O"),
        ("Bergen rains", "LOC O", "token 1: 'LOC' is not an IOB2 tag such as O, B-LOC or I-LOC"),
        ("Bergen rains", "B- O", "token 1: 'B-' is not an IOB2 tag"),
        ("Bergen rains", "o O", "token 1: 'o' is not"),
    ],
)
def test_bad_tags_are_told_with_line_and_token(write, tokens, tags, message):
    content = "words,ner,split\nIn Bergen,O B-LOC,train\n" + f"{tokens},{tags},train\n"
    with pytest.raises(ValueError, match=rf"my\.csv, line 3, column 'ner'(, |: ){message}"):
        load_dataset(write("my.csv", content), tokens="words", tags="ner")


def test_good_tags_pass_and_frames_without_a_file_get_row_numbers():
    check_tags(pd.DataFrame({"tokens": ["Ada K. saw Bergen Bergen"], "tags": ["B-PER I-PER O B-LOC B-LOC"]}))
    with pytest.raises(ValueError, match="wnut17, row 2, token 1"):
        check_tags(pd.DataFrame({"tokens": ["a", "b"], "tags": ["O", "I-X"]}, index=[7, 7]), name="wnut17")


def test_check_labels_on_a_frame():
    frame = pd.DataFrame({"label": ["a", "b", "a", "c"], "split": ["train", "train", "valid", "test"]})
    check_labels(frame[:3])
    with pytest.raises(ValueError, match="mine, row 4: label 'c' stands in test"):
        check_labels(frame, name="mine")
    with pytest.raises(ValueError, match="two at least"):
        check_labels(frame[:1])


@pytest.mark.parametrize("value", ["maybe", "1.5", "inf", "nan", "-inf"])
def test_what_is_no_whole_number_is_told(write, value):
    content = f"student,step,skill,correct\ns1,0,adding,1\ns1,1,adding,{value}\n"
    with pytest.raises(ValueError, match=rf"my\.csv, line 3, column 'correct': .*{value}.* is not a whole number"):
        load_dataset(write("my.csv", content))


@pytest.mark.parametrize(("turns", "message"), [("Hello", "must be a JSON list such as"), ("[]", "one turn at least"), ("{}", "JSON list")])
def test_bad_turns_are_told(write, turns, message):
    with pytest.raises(ValueError, match=rf"my\.tsv, line 2, column 'turns': .*{message}"):
        load_dataset(write("my.tsv", f"turns\n{turns}\n"))


def test_file_with_no_known_column_shows_how_to_name_one(write):
    with pytest.raises(ValueError, match=r"none of its columns \(review, score\).*text=\"review\", in the shell --text \"review\""):
        load_dataset(write("my.csv", reviews(header="review,score")))


def test_rows_without_a_value_are_counted_and_listed(write):
    path = write("my.csv", reviews(",1", "no label,", "   ,5"))
    with pytest.warns(UserWarning, match=r"my\.csv: 3 of 23 rows were left out.*line 22, column 'comment'.*skipped_rows") as caught:
        frame = load(path)
    assert caught[0].filename == __file__, "the warning does not point at the caller's line"
    assert len(frame) == 20
    table = skipped_rows(frame)
    assert table["where"].str.extract(r"line (\d+)")[0].tolist() == ["22", "23", "24"]
    assert table["column"].tolist() == ["comment", "stars", "comment"]
    assert set(table["reason"]) == {"empty"}


def test_nulls_of_parquet_and_nan_of_json_are_left_out(write, tmp_path):
    table = pd.DataFrame({"text": [*WORDS, None], "label": [*"ab" * 10, "a"]})
    table.to_parquet(tmp_path / "my.parquet")
    with pytest.warns(UserWarning, match="1 of 21 rows"):
        frame = load_dataset(tmp_path / "my.parquet")
    assert skipped_rows(frame)["where"].tolist() == [f"{tmp_path / 'my.parquet'}, row 21"]
    lines = [json.dumps({"text": word, "label": i % 2}) for i, word in enumerate(WORDS)]
    with pytest.warns(UserWarning, match="1 of 21 rows"):
        frame = load_dataset(write("my.jsonl", "\n".join([*lines, '{"text": "x", "label": NaN}'])))
    assert set(frame["label"]) == {"0", "1"}


def test_complete_file_gives_no_warning(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(write("my.csv", reviews()))


def test_clean_row_serves_one_row_at_a_time():
    wanted = {"text": "comment", "label": "stars"}
    assert clean_row({"comment": " a ", "stars": 3.0, "other": 1}, wanted) == ({"text": " a ", "label": "3"}, None)
    clean, problem = clean_row({"comment": "a"}, wanted)
    assert clean == {}
    assert problem["column"] == "stars"


def test_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match=r"'storys' is neither a set nor a file. Bundled: stories.*Public: .*sst2.*\.csv"):
        load_dataset("storys")


def test_column_names_do_not_go_with_a_set():
    with pytest.raises(ValueError, match=r"Column names go with your own file.*'stories'.*Leave out text="):
        load_dataset("stories", text="story")


def test_sets_join_with_a_plus_and_keep_their_splits():
    joined = load_dataset("stories+articles")
    assert len(joined) == len(load_dataset("stories")) + len(load_dataset("articles"))
    assert joined["split"].notna().all()
    assert joined.index.is_unique
    assert set(load_dataset("stories", split="test")["split"]) == {"test"}
    with pytest.raises(ValueError, match="service_replies has no split 'test'"):
        load_dataset("service_replies", split="test")


def test_list_of_sets_names_each_once():
    table = list_datasets()
    assert table["name"].is_unique
    assert set(table["source"]) == {"bundled", "public"}
    assert {"stories", "sst2"} <= set(table["name"])
    assert set(table["task"]) <= set(TASK_COLUMNS)


def test_bundled_file_is_read_only_with_the_recorded_hash(write):
    path = Path(write("a.jsonl", '{"text": "a"}\n'))
    with pytest.raises(ValueError, match=r"a\.jsonl: the file was changed \(SHA-256 .*recorded 000000000000.*Restore it"):
        read_checked(path, "0" * 64)
    with pytest.raises(FileNotFoundError, match=r"b\.jsonl: the bundled file is missing"):
        read_checked(path.with_name("b.jsonl"), "0" * 64)


@pytest.mark.parametrize("num_rows", [10, 37, 100, 1001])
@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.7, 0.3, 0.0)])
def test_shares_are_right_to_the_row(num_rows, shares):
    counts = Counter(make_splits([f"{i}" for i in range(num_rows)], shares=shares))
    for split, share in zip(("train", "valid", "test"), shares, strict=True):
        assert abs(counts[split] - share * num_rows) <= 1


def test_deal_depends_on_the_seed_alone():
    keys = [f"text {word}" for word in WORDS * 5]
    first = make_splits(keys, seed=3)
    np.testing.assert_array_equal(first, make_splits(iter(keys), seed=3))
    assert (first != make_splits(keys, seed=4)).any()


def test_equal_texts_stay_on_one_side():
    keys = [text for word in WORDS for text in (f"{word} is 5 years old.", f"{word.upper()} IS 72 years old!", f"{word}  is years\nold")]
    splits = make_splits(keys).reshape(-1, 3)
    assert (splits == splits[:, :1]).all()
    assert set(splits[:, 0]) == {"train", "valid", "test"}


def test_exact_keys_keep_numbers_apart():
    keys = [f"student-{i}" for i in range(50)]
    assert set(make_splits(keys)) == {"train"}  # one text when digits do not count
    assert Counter(make_splits(keys, exact=True)) == {"train": 40, "valid": 5, "test": 5}


def test_keys_of_digits_and_signs_only_are_compared_as_they_stand():
    assert len(set(make_splits(["1", "2", "3", "?!", "...", "👍", "👎", "7", "8", "9"]))) == 3


def test_every_label_is_dealt_in_its_share():
    labels = ["rare"] * 10 + ["common"] * 90
    table = pd.crosstab(np.array(labels), make_splits([f"t{chr(97 + i % 26)}{'x' * (i // 26)}" for i in range(100)], labels=labels))
    assert table.loc["rare", ["train", "valid", "test"]].tolist() == [8, 1, 1]
    assert table.loc["common", ["train", "valid", "test"]].tolist() == [72, 9, 9]


@pytest.mark.parametrize("seed", range(5))
def test_deal_of_random_sets_is_a_partition(seed):
    rng = np.random.default_rng(seed)
    keys = [f"{WORDS[i]} {WORDS[j]}" for i, j in rng.integers(0, 20, size=(int(rng.integers(1, 300)), 2))]
    labels = rng.choice(["a", "b", "c"], size=len(keys)).tolist()
    splits = make_splits(keys, labels=labels, seed=seed)
    assert len(splits) == len(keys)
    assert set(splits) <= {"train", "valid", "test"}
    assert pd.Series(splits).groupby(pd.Series(keys)).nunique().max() == 1


def test_one_row_and_no_row():
    assert make_splits(["only"]).tolist() == ["train"]
    assert len(make_splits([])) == 0


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.8, 0.1, 0.2), (1.1, -0.1, 0.0), (80, 10, 10)])
def test_shares_must_sum_to_one(shares):
    with pytest.raises(ValueError, match=r"three shares of 0 or more that sum to 1, e.g. \(0.8, 0.1, 0.1\)"):
        make_splits(["a"], shares=shares)


def test_stratified_deal_of_an_own_file_keeps_rare_classes_everywhere(write):
    rows = "".join(f"{a} {b},{'rare' if i % 10 == 0 else 'common'}\n" for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS[:10]))
    frame = load_dataset(write("my.csv", "text,label\n" + rows))
    table = pd.crosstab(frame["label"], frame["split"])
    assert table.loc["rare", ["train", "valid", "test"]].tolist() == [16, 2, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 5 o'clock, HERE!", "its oclock here"),
        ("¿Cómo\n estás?", "cómo estás"),
        ("你好，世界", "你好世界"),
        ("snake_case 12", "snakecase"),
        ("?!", ""),
    ],
)
def test_normalise_text_by_hand(text, expected):
    assert normalise_text(text) == expected


def test_shared_runs_by_hand():
    texts = ["The cat sat on the mat.", "My dog said: the CAT sat, on 3 stones", "the cat sat on a chair", "A cat sat"]
    found = find_shared_runs(texts, ["train", "test", "train", "valid"], num_words=4)
    assert found.to_dict("records") == [{"run": "the cat sat on", "splits": "test+train", "num_rows": 3}]
    found = find_shared_runs(texts, ["train", "test", "train", "valid"], num_words=2).set_index("run")
    assert found.loc["cat sat"].tolist() == ["test+train+valid", 4]
    assert set(found.index) == {"the cat", "cat sat", "sat on"}


def test_runs_within_one_split_and_short_texts_are_no_leak():
    assert find_shared_runs(["a b c d", "a b c d"], ["train", "train"], num_words=2).empty
    assert find_shared_runs(["a b", "a b"], ["train", "test"], num_words=3).empty
    assert list(find_shared_runs([], []).columns) == ["run", "splits", "num_rows"]


def test_shared_runs_want_as_many_splits_as_texts():
    with pytest.raises(ValueError, match="shorter"):
        find_shared_runs(["a", "b"], ["train"])
    with pytest.raises(ValueError, match="num_words is 0"):
        find_shared_runs(["a"], ["train"], num_words=0)


@pytest.mark.parametrize(
    ("num_tokens", "window", "stride"), [(7, 3, None), (100, 7, None), (50, 10, 4), (5, 4, 1), (30, 1, None), (40, 5, 9)]
)
def test_targets_are_inputs_shifted_by_one(num_tokens, window, stride):
    stream = np.random.default_rng(0).integers(0, 50, num_tokens)
    inputs, targets = make_windows(stream, window, stride=stride)
    step = stride or window
    assert inputs.shape == targets.shape == ((num_tokens - window - 1) // step + 1, window)
    assert inputs.dtype == targets.dtype == np.int32
    for i in range(len(inputs)):
        start = i * step
        np.testing.assert_array_equal(inputs[i], stream[start : start + window])
        np.testing.assert_array_equal(targets[i], stream[start + 1 : start + window + 1])


def test_every_token_but_the_first_is_predicted_once():
    inputs, targets = make_windows(np.arange(21), 5)
    assert targets.ravel().tolist() == list(range(1, 21))
    assert inputs.ravel().tolist() == list(range(20))


def test_no_window_crosses_a_split():
    splits = make_splits(WORDS)
    streams = {name: np.flatnonzero(splits == name).repeat(6) for name in ("train", "valid", "test")}  # row number as token id
    for name, stream in streams.items():
        inputs, targets = make_windows(stream, 4)
        assert set(splits[np.concatenate([inputs.ravel(), targets.ravel()])]) == {name}


def test_windows_are_copies():
    stream = np.zeros(10, dtype="int32")
    inputs, _ = make_windows(stream, 3)
    inputs[:] = 9
    assert stream.sum() == 0


@pytest.mark.parametrize("token_ids", [np.arange(5), np.arange(0), np.zeros((3, 9), dtype=int)])
def test_stream_too_short_or_not_flat(token_ids):
    with pytest.raises(ValueError, match=r"a window of 5 needs a flat array of at least 6 tokens.*more text or a smaller window"):
        make_windows(token_ids, 5)


def test_window_and_stride_must_be_positive():
    with pytest.raises(ValueError, match="window is 0"):
        make_windows(np.arange(9), 0)
    with pytest.raises(ValueError, match="stride is 0"):
        make_windows(np.arange(9), 3, stride=0)
