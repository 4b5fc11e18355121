"""Files of a model folder: what may be replaced, what may be read, and what is left when something breaks."""

import json
import os

from slm_helpers.models.folders import (
    FILES,
    atomic_folder,
    check_regular,
    check_replaceable,
    model_folder,
    read_config,
    read_json,
    read_licence,
    write_json,
)

import pytest

CONFIG = {"format_version": 1, "task": "lm", "builder": "b", "arguments": {}, "labels": [], "settings": {}, "sha256": {}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    for name in FILES:
        (tmp_path / "model" / name).write_text(json.dumps(CONFIG))
    return tmp_path / "model"


def test_a_folder_appears_whole_or_not_at_all(folder):
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as new:
        (new / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert {path.name for path in folder.iterdir()} == set(FILES)
    with atomic_folder(folder) as new:
        (new / "config.json").write_text("{}")
        assert {path.name for path in folder.iterdir()} == set(FILES)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_model_folder_and_nothing_else_is_replaceable(folder, tmp_path):
    check_replaceable(folder)
    check_replaceable(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis\.txt beside a model, which would be lost"):
        check_replaceable(folder)


def test_a_subfolder_beside_a_model_is_not_lost(folder):
    (folder / "card.md").unlink()
    (folder / "card.md").mkdir()
    with pytest.raises(ValueError, match=r"holds card\.md beside a model"):
        check_replaceable(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format_version": "one"}', '{"version": 1}'])
def test_a_config_of_something_else_makes_no_model_folder(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="is no model folder"):
        check_replaceable(folder)


def test_a_link_is_never_replaced(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for name in ("link", "broken"):
        with pytest.raises(ValueError, match=f"{name} is a link"):
            check_replaceable(tmp_path / name)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("task", 3),
        ("builder", ["build"]),
        ("arguments", []),
        ("labels", "good"),
        ("labels", [1, 2]),
        ("settings", None),
        ("sha256", {"../../secret": "ab"}),
        ("sha256", {"card.md": 7}),
        ("settings", {"temperature": 0}),
    ],
)
def test_an_entry_of_another_type_is_named(folder, entry, value):
    assert read_config(folder) == CONFIG
    (folder / "config.json").write_text(json.dumps(CONFIG | {entry: value}))
    with pytest.raises(ValueError, match=next(iter(value)) if entry == "settings" and value else entry.rstrip("s")):
        read_config(folder)


def test_deep_and_endless_files_are_refused(tmp_path):
    (tmp_path / "deep").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="deep cannot be read"):
        read_json(tmp_path / "deep")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device", "."):
        with pytest.raises(ValueError, match="is no regular file"):
            check_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nothing is missing"):
        check_regular(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["[NaN]", "[Infinity]", "[-1e400]"])
def test_numbers_that_are_not_finite_are_refused_or_become_none(tmp_path, text):
    (tmp_path / "n.json").write_text(text)
    with pytest.raises(ValueError, match="it holds"):
        read_json(tmp_path / "n.json")
    if "e" not in text:
        assert read_json(tmp_path / "n.json", strict=False) == [None]


def test_undefined_numbers_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="NaN or infinite"):
        write_json(tmp_path / "n.json", {"a": [float("nan")]})
    write_json(tmp_path / "n.json", {"a": [float("nan"), 1.5]}, strict=False)
    assert read_json(tmp_path / "n.json") == {"a": [None, 1.5]}


def test_a_name_is_a_pretrained_model_or_a_path(folder):
    assert model_folder("slm-base-en").name == "slm-base-en" and model_folder(folder) == folder
    with pytest.raises(FileNotFoundError, match=r"neither a model folder nor a pretrained model .*slm-base-en"):
        model_folder("slm-bose-en")


def test_the_licence_stands_in_the_card(folder):
    (folder / "card.md").write_text("# model\n")
    assert read_licence(folder) == "" == read_licence(None)
    (folder / "card.md").write_text("# m\n\n- **Data.** Old books,\n  public domain.\n- **Cost.** 3 s\n")
    assert read_licence(folder) == "model: Old books, public domain."
    (folder / "card.md").write_text("# m\n\n- **Data.** Books.\n- **Licence.** CC BY 4.0.\n")
    assert read_licence(folder) == "model: CC BY 4.0."
