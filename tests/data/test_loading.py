import gzip
import json
import re
import warnings
from collections import Counter

from slm_helpers.data.loading import list_datasets, load_dataset, repaired_rows, skipped_rows
from slm_helpers.data.schema import TASK_COLUMNS

import numpy as np
import pandas as pd
import pytest

WORDS = [
    "amber", "birch", "cloud", "delta", "ember", "frost", "grove", "hazel", "inlet", "jetty",
    "knoll", "lemon", "maple", "night", "ocean", "pearl", "quill", "river", "stone", "tulip",
]  # fmt: skip


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


def test_stratified_deal_of_an_own_file_keeps_rare_classes_everywhere(write):
    rows = "".join(f"{a} {b},{'rare' if i % 10 == 0 else 'common'}\n" for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS[:10]))
    frame = load_dataset(write("my.csv", "text,label\n" + rows))
    table = pd.crosstab(frame["label"], frame["split"])
    assert table.loc["rare", ["train", "valid", "test"]].tolist() == [16, 2, 2]


TABLE = [(f"{word} is {'fine' if i % 2 else 'poor'}", "good" if i % 2 else "bad") for i, word in enumerate(WORDS)]


@pytest.mark.parametrize("column", ["tags", "source", "step,correct", "turns"])
def test_task_reads_its_own_columns_only(write, column):
    filled, empty = (",".join(cell for _ in column.split(",")) for cell in ("x", ""))
    rows = "".join(f"{text},{label},{filled if i % 3 else empty}\n" for i, (text, label) in enumerate(TABLE))
    frame = load_dataset(write("my.csv", f"text,label,{column}\n{rows}"), task="classify")
    assert list(frame.columns) == ["text", "label", "split"] and len(frame) == 20


def test_columns_of_tasks_that_are_not_complete_do_not_matter_without_a_task_either(write):
    rows = "".join(f"{text},{label},maybe,x|y\n" for text, label in TABLE)
    assert list(load_dataset(write("my.csv", f"text,label,step,tags\n{rows}")).columns) == ["text", "label", "split"]


def test_misspelt_options_fail(write):
    with pytest.raises(TypeError, match=r"load_dataset has no option and knows no column 'txt'. Columns are text, label"):
        load_dataset(write("my.csv", reviews()), txt="comment")
    with pytest.raises(ValueError, match="task is 'classyfy'"):
        load_dataset(write("my.csv", reviews()), task="classyfy")


@pytest.mark.parametrize(("name", "separator"), [("my.csv", ","), ("my.tsv", "\t"), ("my.txt", "\t")])
def test_file_without_a_header(write, name, separator):
    rows = "".join(separator.join([str(i % 2), f"u{i}", f"{word} was here."]) + "\n" for i, word in enumerate(WORDS))
    path = write(name, rows)
    frame = load_dataset(path, text="3", label="1", header=False, task="classify")
    assert len(frame) == 20 and frame["text"].iloc[0] == "amber was here." and set(frame["label"]) == {"0", "1"}
    for columns in ({}, {"text": "3", "label": "1"}):
        with pytest.raises(ValueError, match=r"header=False and number the columns from 1.*--no-header --text 1"):
            load_dataset(path, task="classify", **columns)


def test_numbers_name_columns_of_a_file_with_a_header(write):
    assert load(write("my.csv", reviews()), text="1", label="2")["text"].iloc[0] == "amber is poor"


def test_few_broken_rows_are_left_out_and_listed_or_refused(write):
    rows = "".join(f"{word} {other},{i % 2}\n" for i, (word, other) in enumerate((w, o) for w in WORDS for o in WORDS[:5]))
    path = write("my.csv", f'text,label\n{rows}one, two,1\nshort\n"so" good,2\n')
    with pytest.warns(UserWarning) as caught:
        frame = load_dataset(path)
    assert re.search(r"2 of 103 rows were left out \(1: 3 cells.*first: .*my\.csv, line 102\)", str(caught[0].message))
    assert re.search(r"1 cells were repaired \(first: .*line 104, column 'text': a stray quote", str(caught[1].message))
    table = skipped_rows(frame)
    assert table["where"].str.extract(r"line (\d+)")[0].tolist() == ["102", "103"]
    assert [reason.split(",")[0] for reason in table["reason"]] == ["3 cells", "1 cells"]
    assert frame["text"].iloc[-1] == "so good"
    with pytest.raises(ValueError, match=r"my\.csv, line 102: 3 cells"):
        load_dataset(path, strict=True)


def test_control_characters_are_removed_and_listed_or_refused(write):
    path = write("my.csv", reviews("page\x0cbreak,1", "bell\x07,5"))
    with pytest.warns(UserWarning, match=r"2 cells were repaired \(first: .*line 22, column 'comment': 1 control character"):
        frame = load(path)
    assert frame["text"].tolist()[-2:] == ["pagebreak", "bell"]
    assert repaired_rows(frame)["where"].str.endswith(("line 22", "line 23")).tolist() == [True, True]
    assert repaired_rows(load(write("good.csv", reviews()))).empty
    with pytest.raises(ValueError, match=r"line 22, column 'comment': control character '\\x0c' at place 5"):
        load(path, strict=True)


def test_header_that_stands_twice_is_no_row(write):
    with pytest.warns(UserWarning, match="1 of 21 rows were left out.*header stands here again"):
        assert len(load(write("my.csv", reviews("comment,stars")))) == 20


LONG = [("1", "Ada", "B-PER"), ("1", "saw", "O"), ("1", "Bergen", "B-LOC"), ("2", "It", "O"), ("2", "rains", "O")]
SENTENCES = [["Ada saw Bergen", "B-PER O B-LOC"], ["It rains", "O O"]]


@pytest.mark.parametrize(
    ("header", "first_only", "columns"),
    [
        ("sentence_id,words,labels", False, {}),
        ("Sentence #,Word,Tag", True, {}),
        ("nr,w,t", False, {"sentence": "nr", "tokens": "w", "tags": "t"}),
    ],
)
def test_one_token_a_row_is_joined_by_the_sentence(write, header, first_only, columns):
    cells = [("" if first_only and i not in (0, 3) else number, word, tag) for i, (number, word, tag) in enumerate(LONG)]
    path = write("my.csv", "\n".join([header, *map(",".join, cells)]) + "\n")
    with pytest.warns(UserWarning, match="each row is a token; those with the same '.*' were joined to 2 sentences"):
        frame = load_dataset(path, task="tag", split="train", **columns)
    assert frame[["tokens", "tags"]].to_numpy().tolist() == SENTENCES and "sentence" not in frame


def test_one_token_a_row_without_a_sentence_is_asked_for(write):
    path = write("my.csv", "tokens,tags\n" + "Ada,B-PER\nsaw,O\nBergen,B-LOC\n" * 8)
    with pytest.raises(ValueError, match=r"nothing says where a sentence ends.*--sentence sentence_id.*empty line between sentences"):
        load_dataset(path, task="tag", split="train")


def test_lists_and_spans_become_tokens_and_tags(write):
    lists = [json.dumps({"tokens": tokens.split(), "ner_tags": tags.split()}) for tokens, tags in SENTENCES]
    spans = [{"text": "Ada saw Bergen", "label": [[0, 3, "PER"], [8, 14, "LOC"]]}, {"text": "It rains", "label": []}]
    for content, found in ((lists, "tags from 'ner_tags'"), (map(json.dumps, spans), "tokens from 'text', tags from 'label'")):
        with pytest.warns(UserWarning, match=f"read {found}"):
            frame = load_dataset(write("my.jsonl", "\n".join(content)), task="tag", split="train")
        assert frame[["tokens", "tags"]].to_numpy().tolist() == SENTENCES


def test_parquet_keeps_truth_values_lists_and_names_of_classes(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": WORDS, "label": [i % 2 == 0 for i in range(20)]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert load_dataset(tmp_path / "a.parquet")["label"].tolist()[:2] == ["true", "false"]
    names = {"info": {"features": {"tags": {"feature": {"names": ["O", "B-PER", "B-LOC"], "_type": "ClassLabel"}, "_type": "Sequence"}}}}
    table = pa.table({"tokens": [s.split() for s, _ in SENTENCES], "tags": [[1, 0, 2], [0, 0]]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), tmp_path / "b.parquet")
    assert load_dataset(tmp_path / "b.parquet", split="train")[["tokens", "tags"]].to_numpy().tolist() == SENTENCES


def test_labels_are_spelled_alike_in_every_format(write):
    bools = "\n".join(json.dumps({"text": word, "label": i % 2 == 0}) for i, word in enumerate(WORDS))
    words = "text,label\n" + "".join(f"{word},{['TRUE', 'False'][i % 2]}\n" for i, word in enumerate(WORDS))
    decimals = "text,label\n" + "".join(f"{word},{i % 2}.0\n" for i, word in enumerate(WORDS))
    commas = "text;label\n" + "".join(f"{word};{['1,0', '2,5'][i % 2]}\n" for i, word in enumerate(WORDS))
    assert set(load_dataset(write("a.jsonl", bools))["label"]) == set(load_dataset(write("b.csv", words))["label"]) == {"true", "false"}
    assert set(load_dataset(write("c.csv", decimals))["label"]) == {"0", "1"}
    assert set(load_dataset(write("d.csv", commas))["label"]) == {"1", "2.5"}


def test_classes_of_one_row_each_are_no_labels(write):
    rows = "".join(f"{word},{word}\n" for word in WORDS)
    with pytest.raises(ValueError, match=r"20 rows have 20 different labels, none of them on five texts.*Is it the column of the labels"):
        load_dataset(write("my.csv", "text,label\n" + rows))


def test_attempts_are_read_as_what_they_are(write):
    rows = "".join(
        f"{7000 + i // 8}{'.0' if i % 2 else ''},{i % 3}{'.0' if i % 5 else ''},{['TRUE', 'FALSE'][i % 2]},{10**18 + i}\n"
        for i in range(96)
    )
    frame = load_dataset(write("my.csv", "who,skill,correct,step\n" + rows), task="trace", student="who")
    assert frame["student"].nunique() == 12 and set(frame["skill"]) == {"0", "1", "2"}
    assert frame["step"].tolist() == [10**18 + i for i in range(96)], "steps went through a float"
    path = write("part.csv", "student,skill,correct\n" + "".join(f"s{i // 8},a,{'0.5' if i == 9 else i % 2}\n" for i in range(96)))
    with pytest.warns(UserWarning, match=r"1 of 96 rows were left out \(1: column 'correct': '0\.5' is not a whole number"):
        assert len(load_dataset(path, task="trace")) == 95


def test_fasttext_lines_have_labels(write):
    path = write("my.txt", "".join(f"__label__{label} {text}\n" for text, label in TABLE))
    with pytest.warns(UserWarning, match="words that begin with __label__ were read as labels"):
        frame = load_dataset(path, task="classify")
    assert list(zip(frame["text"], frame["label"], strict=True)) == TABLE
    path = write("many.txt", "".join(f"__label__{label} __label__x {text}\n" for text, label in TABLE))
    with pytest.raises(ValueError, match=r"line 1, column 'label': 2 labels \(bad, x\)"):
        load_dataset(path, task="classify")


def test_one_long_text_is_cut_at_sentences_so_that_parts_can_be_held_out(write):
    text = " ".join(f"The {a} stood by the {b}." for a in WORDS for b in WORDS[:10])
    with pytest.warns(UserWarning, match=r"1 long text\(s\) were cut at sentence ends into \d+ pieces"):
        frame = load_dataset(write("book.txt", text), task="lm")
    assert " ".join(frame["text"]) == text and set(frame["split"]) == {"train", "valid", "test"}
    assert frame["text"].str.endswith(".").all()


def test_how_a_text_was_cut_is_said(write):
    path = write("my.txt", "\n".join([*WORDS[:10], "", *WORDS[10:]]))
    with pytest.warns(UserWarning, match=r"my\.txt: the text was cut at its empty lines, into 2 texts"):
        assert len(load_dataset(path, split="train")) == 2


@pytest.mark.parametrize(
    ("english", "spanish"),
    [
        ("one\ntwo\rmore\nthree\n", "uno\ndos\ntres\n"),
        ("one\ntwo\u2028more\nthree", "uno\r\ndos\r\ntres\r\n"),
        ("one\ntwo\nthree\n\n", "uno\ndos\ntres\n"),
    ],
    ids=["carriage return", "line separator", "empty line at the end"],
)
def test_lines_of_parallel_files_are_counted_at_line_feeds(write, english, spanish):
    frame = load_dataset(f"{write('a.en', english)}::{write('a.es', spanish)}", split="train")
    assert frame["target"].tolist() == ["uno", "dos", "tres"] and frame["source"].iloc[2] == "three"


def test_column_split_with_other_things_is_not_used(write):
    rows = "".join(f"{text},{label},{'xy'[i % 2]}\n" for i, (text, label) in enumerate(TABLE))
    with pytest.warns(UserWarning, match="the column 'split' holds other things .'x'. and was not used"):
        frame = load_dataset(write("my.csv", f"text,label,split\n{rows}"))
    assert set(frame["split"]) == {"train", "valid", "test"}
