import json

from slm_helpers.data.files import read_rows
from slm_helpers.data.json_rows import parse_json
from slm_helpers.data.loading import load_dataset

import pandas as pd
import pytest

ROWS = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
TABLE = pd.DataFrame(ROWS)


def read(path):
    return [dict(row) for row in read_rows(path)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1),
        json.dumps({"version": "1", "data": ROWS}),
        TABLE.to_json(),
        TABLE.to_json(orient="split"),
        TABLE.to_json(orient="records", lines=True),
        json.dumps(TABLE.to_dict("list")),
        TABLE.to_json(orient="index"),
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
    ],
    ids=["list", "indented", "under a key", "pandas", "pandas split", "lines", "columns", "pandas index", "objects over lines"],
)
def test_usual_forms_of_json_give_the_same_rows(write, content):
    assert read(write("my.json", content)) == ROWS
    assert read_rows(write("my.json", content)).__next__().where.endswith("1")


@pytest.mark.parametrize("content", [json.dumps(ROWS), json.dumps(ROWS, indent=1)])
def test_list_under_the_name_of_json_lines(write, content):
    assert read(write("my.jsonl", content)) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "my\\.json: not JSON"),
        ('{"a": ' * 100_000, "my\\.json: not JSON"),
        ('{"text": "a"', "my\\.json: not JSON"),
        ('"text"', "a JSON str without one list of rows"),
        ('{"a": 1}', "a JSON dict without one list of rows"),
        ("[1, 2]", "row 1: a JSON int, but each row must be an object"),
    ],
)
def test_json_without_rows_is_told(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write("my.json", content))


def test_deep_lines_are_told(write):
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(ValueError, match=r"line 1: not a JSON object \(it is nested too deep\)"):
        read(write("my.jsonl", f'{{"text": {deep}}}\n'))
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(deep)
    with pytest.raises(ValueError, match=r"turns must be a JSON list"):
        load_dataset(write("d.tsv", f"turns\n{deep}\n"), split="train")


def test_nested_keys_are_named_by_their_path(write):
    lines = [json.dumps({"meta": {"id": i}, "data": {"text": f"t{i}"}, "note": {"label": "ab"[i % 2]}}) for i in range(3)]
    path = write("my.jsonl", "\n".join(lines))
    frame = load_dataset(path, split="train", text="data.text", label="note.label")
    assert frame[["text", "label"]].to_numpy().tolist() == [["t0", "a"], ["t1", "b"], ["t2", "a"]]
    with pytest.raises(ValueError, match=r"It has: meta\.id, data\.text, note\.label"):
        load_dataset(path, task="classify")
    row = next(read_rows(path))
    assert "data.text" in row and "data.id" not in row and row.get("data.id", 7) == 7
    with pytest.raises(KeyError):
        row["data.id"]


CONTEXT = "The mill was built in 1284 by Ada."
SQUAD = [
    {"context": CONTEXT, "question": "When?", "answers": {"text": ["1284", "in 1284"], "answer_start": [22, 19]}},
    {"context": CONTEXT, "question": "Who burnt it?", "answers": {"text": [], "answer_start": []}},
]
EXPECTED = [[CONTEXT, "When?", "1284", 22], [CONTEXT, "Who burnt it?", "", -1]]
COLUMNS = ["context", "question", "answer", "answer_start"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "numpy csv"])
def test_questions_with_several_answers_keep_the_first(tmp_path, form):
    path = tmp_path / f"my.{form.split()[-1]}"
    table = pd.DataFrame(SQUAD)
    if form == "jsonl":
        path.write_text("\n".join(map(json.dumps, SQUAD)))
    elif form == "parquet":
        table.to_parquet(path)
    elif form == "csv":
        table.to_csv(path, index=False)
    else:
        lists = (row["answers"] for row in SQUAD)
        table["answers"] = [f"{{'text': array({x['text']}, dtype=object), 'answer_start': array({x['answer_start']})}}" for x in lists]
        table.to_csv(path, index=False)
    with pytest.warns(UserWarning, match="read answer from 'answers', answer_start from 'answers'"):
        frame = load_dataset(path, split="train", task="answer")
    assert frame[COLUMNS].to_numpy().tolist() == EXPECTED


def test_squad_file_gives_one_row_a_question(write):
    questions = [
        {"id": "1", "question": "When?", "answers": [{"text": "1284", "answer_start": 22}], "is_impossible": False},
        {"id": "2", "question": "Who burnt it?", "answers": [], "is_impossible": True},
    ]
    content = {"version": "v2.0", "data": [{"title": "Mill", "paragraphs": [{"context": CONTEXT, "qas": questions}]}]}
    with pytest.warns(UserWarning, match="from 'answers'"):
        frame = load_dataset(write("my.json", json.dumps(content)), split="train", task="answer")
    assert frame[COLUMNS].to_numpy().tolist() == EXPECTED


def test_objects_over_several_lines_under_the_name_of_json_lines(write):
    assert read(write("my.jsonl", "\n".join(json.dumps(row, indent=1) for row in ROWS))) == ROWS
    with pytest.raises(ValueError, match=r"my\.jsonl: not JSON"):
        read(write("my.jsonl", '{\n"text": 1,\n}\n'))
