"""`slm explore`: what was planted is found, files agree and repeat, hostile texts stay text, whatever is no collection is one line."""

import json
import re

from slm_helpers.analysis.explore import explore_texts
from slm_helpers.cli import main
from slm_helpers.data.collection import load_collection

import numpy as np
import pandas as pd
import pytest

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(1)> [x](javascript:alert(1)) \x1b[31m ann@example.org"
FOREIGN = "No hemos estado allí desde el verano, pero a ellos les gustaría volver con nosotros."
BROKEN = "The cafÃ© on the corner has the best soup, and it is open until late in the evening."


def planted(num=240):
    """Return a table whose rows 1 to 5 are: hostile, Spanish, broken, a copy of row 10, a wrong label."""
    rng = np.random.default_rng(7)
    words = {
        "food": ["soup", "bread", "oven", "spoon", "plate", "butter", "salt"],
        "sea": ["boat", "anchor", "sail", "wave", "captain", "tide", "net"],
    }
    rows = []
    for i in range(num):
        kind = ("food", "sea")[i % 2]
        picked = rng.choice(words[kind], 5)
        rows.append((f"We saw the {picked[0]} and {picked[1]} with {picked[2]} near a {picked[3]} and the {picked[4]} on day {i}.", kind))
    frame = pd.DataFrame(rows, columns=["comment", "kind"])
    frame.loc[0, "comment"], frame.loc[1, "comment"], frame.loc[2, "comment"] = HOSTILE, FOREIGN, BROKEN
    frame.loc[3, "comment"] = frame.loc[9, "comment"]
    frame.loc[4, "kind"] = "sea"
    frame["day"] = [f"2024-0{1 + i // 60}-10" for i in range(num)]
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    planted().to_csv(folder / "mine.csv", index=False)
    later = planted(100)
    later["comment"] = [text.replace("We saw", "They lost") for text in later["comment"]]
    later.to_csv(folder / "later.csv", index=False)
    return folder


def explored(folder, name, *options):
    data = ["--data", str(folder / "mine.csv"), "--text", "comment", "--label", "kind", "--time", "day", "--base", "none"]
    assert main(["explore", *data, "--out", str(folder / name), *options]) == 0
    return json.loads((folder / name / "explore.json").read_text(encoding="utf-8"))


def test_what_was_planted_is_found_and_the_same_run_gives_the_same_file(folder, capsys):
    options = ("--against", str(folder / "later.csv"), "--json")
    found = explored(folder, "a", *options)
    assert json.loads(capsys.readouterr().out) == found
    again = explored(folder, "b", *options)
    assert {**found, "seconds": 0} == {**again, "seconds": 0}
    assert found["texts"] == 240 and found["data"]["columns"] == {"text": "comment", "label": "kind", "time": "day"}
    assert found["copies"]["same_text"] == 1 and found["languages"]["main"] == "en" and found["languages"]["other_texts"] == 1
    assert found["personal_data"] == {"e-mail address": {"found": 1, "texts": 1}}
    assert found["damage"]["kinds"].keys() == {"wrong encoding (mojibake)", "HTML tags"}
    assert found["time"]["periods"] == ["2024-01-10", "2024-02-10", "2024-03-10", "2024-04-10"]
    assert found["labels"]["agreement"] > 0.9 and found["drift"]["auc"]["ci_low"] > 0.9
    tables = {name: pd.read_csv(folder / "a" / f"{name}.csv") for name in ("copies", "odd_rows", "personal_data", "labels")}
    assert set(tables["copies"]["row"]) >= {4, 10} and tables["personal_data"]["found"].tolist() == ["ann@example.org"]
    reasons = tables["odd_rows"].set_index("row")["reasons"]
    assert "Spanish" in reasons[2] and "mojibake" in reasons[3] and 5 in set(tables["labels"]["row"])
    assert {row["ngram"] for row in found["drift"]["moved"]} >= {"they lost", "we saw"}
    assert set(found["files"]) == {path.name for path in (folder / "a").iterdir()}


def test_hostile_texts_stay_text_and_stand_on_the_page_only_if_asked_for(folder):
    for name, options in (("hidden", ()), ("shown", ("--show-rows",))):
        explored(folder, name, *options)
    pages = [(folder / name / "explore.html").read_text(encoding="utf-8") for name in ("hidden", "shown")]
    for page in pages:
        assert "<script" not in page and "<img" not in page and "onerror=alert(1)>" not in page and "\x1b" not in page
        assert "Content-Security-Policy" in page and len(page) < 5_000_000
        assert not re.findall(r'(?:href|src)="(?!#|explore\.json"|[a-z_]+\.csv")([^"]*)', page)
        assert page.count("<figure") == page.count("</figure>") >= 5 and page.count('role="img" aria-label="') == page.count("<svg")
    shown = "No hemos estado"
    assert shown not in pages[0] and shown in pages[1] and "&lt;script&gt;" in pages[1] and "ann@example.org" not in pages[0]
    for text in planted()["comment"]:
        assert text not in pages[0]


def test_points_and_lines_of_the_table_lead_to_each_other(folder):
    explored(folder, "links")
    page = (folder / "links" / "explore.html").read_text(encoding="utf-8")
    targets = set(re.findall(r'id="([^"]+)"', page))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert (
        links <= targets
        and len([each for each in links if each[0] == "p"]) >= 5
        and len([e for e in links if re.fullmatch(r"r\d+", e)]) >= 5
    )


def test_formulas_are_no_formulas_in_the_files(tmp_path):
    rows = ["=HYPERLINK(1) a@b.org", "+1 555-010-9999 call me", "plain text about soup"] * 4
    pd.DataFrame({"text": rows}).to_csv(tmp_path / "a.csv", index=False)
    assert main(["explore", "--data", str(tmp_path / "a.csv"), "--out", str(tmp_path / "o"), "--base", "none"]) == 0
    cells = pd.read_csv(tmp_path / "o" / "copies.csv")["text"]
    assert set(cells.str[0]) == {"'", "p"} and not (tmp_path / "o" / "labels.csv").exists()


def test_files_of_an_earlier_run_do_not_stay(folder, tmp_path):
    explored(folder, "old")
    pd.DataFrame({"text": ["one text about soup", "quite another"]}).to_csv(tmp_path / "b.csv", index=False)
    (folder / "old" / "mine.txt").write_text("kept")
    assert main(["explore", "--data", str(tmp_path / "b.csv"), "--out", str(folder / "old"), "--base", "none"]) == 0
    assert {path.name for path in (folder / "old").iterdir()} == {"explore.html", "explore.json", "mine.txt"}


@pytest.mark.parametrize(
    "texts",
    [["one"], ["", "x"], ["!!!", "???"], ["a"] * 30, ["今天天气很好", "火车几点开"] * 10, ["\u202eabc", "🙂🙂"], ["soup " * 30_000, "b"]],
)
def test_the_smallest_and_strangest_collections_have_a_page(tmp_path, texts):
    pd.DataFrame({"text": texts, "label": ["x", "y"] * (len(texts) // 2) + ["x"] * (len(texts) % 2)}).to_csv(
        tmp_path / "a.csv", index=False
    )
    assert main(["explore", "--data", str(tmp_path / "a.csv"), "--against", str(tmp_path / "a.csv"), "--out", str(tmp_path / "o")]) == 0
    json.loads((tmp_path / "o" / "explore.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "no/such.csv"], "no such file"),
        (["--data", "FILE", "--time", "when"], "no column 'when'"),
        (["--data", "FILE", "--topics", "1"], "--topics is 1"),
        (["--data", "FILE", "--base", "no_such_model"], "neither a model folder nor"),
    ],
)
def test_what_cannot_be_explored_is_one_line(tmp_path, capsys, options, message):
    pd.DataFrame({"text": [f"some words and number {i}" for i in range(40)]}).to_csv(tmp_path / "a.csv", index=False)
    options = [str(tmp_path / "a.csv") if each == "FILE" else each for each in options]
    assert main(["explore", *options, "--out", str(tmp_path / "o")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if message in line]
    assert len(lines) == 1


def test_split_leaks_and_labels_of_copies_are_counted(tmp_path):
    texts = [f"the {a} is next to the {b} in this picture" for a in ("cat", "dog", "cow", "hen") for b in ("tree", "wall", "door")]
    frame = pd.DataFrame({"text": texts, "label": ["x", "y"] * 6, "split": ["train"] * 8 + ["valid"] * 2 + ["test"] * 2})
    frame.loc[10, "text"], frame.loc[10, "label"] = frame.loc[0, "text"], "y"
    frame.to_csv(tmp_path / "a.csv", index=False)
    found = explore_texts(load_collection(tmp_path / "a.csv"), base=None)
    assert found.facts["copies"]["test_in_train"] >= 1 and found.facts["copies"]["groups_with_several_labels"] >= 1
    assert any("of test stand in train too" in sentence for _, sentence in found.headlines)
