import json
import warnings

from slm_helpers import cli
from slm_helpers.data import schema
from slm_helpers.deploy.engine import open_saved
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import load_model, save_model
from slm_helpers.reports.machine import Check
from slm_helpers.tasks import TASKS, task_class
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import numpy as np
import pytest


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    tokenizer = train_bpe_tokenizer(["once upon a time there was a cat"], vocab_size=270)
    model = build_language_model(tokenizer.vocab_size, embedding_dim=8, units=8)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return save_model(tmp_path_factory.mktemp("models") / "tiny", model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def generator(model_folder):
    saved = open_saved(model_folder)
    return TextGenerator(saved.model, saved.tokenizer)


@pytest.fixture(scope="module")
def exact_generator(model_folder):
    saved = load_model(model_folder)
    return TextGenerator(saved.model, saved.tokenizer)


def run(capsys, *arguments):
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_generate_json_is_one_object_with_the_promised_keys(capsys, model_folder):
    arguments = ("generate", "--prompt", "Once upon a time", "--model", model_folder, "--max-tokens", 12, "--num-samples", 2, "--json")
    code, out, err = run(capsys, *arguments)
    value = json.loads(out)
    assert code == 0 and err == "" and out.count("\n") == 1
    keys = "samples prompt model seed num_tokens tokens_per_second first_token_seconds load_seconds"
    assert set(value) == set(keys.split())
    assert len(value["samples"]) == 2 and value["prompt"] == "Once upon a time" and value["num_tokens"] <= 24
    assert json.loads(run(capsys, *arguments)[1])["samples"] == value["samples"]  # same seed, same text
    assert json.loads(run(capsys, *arguments, "--seed", 7)[1])["samples"] != value["samples"]


def test_generate_streams_prompt_and_text_to_the_screen(capsys, model_folder):
    plain = run(capsys, "generate", "--prompt", "a cat", "--model", model_folder, "--max-tokens", 20)[1]
    value = json.loads(run(capsys, "generate", "--prompt", "a cat", "--model", model_folder, "--max-tokens", 20, "--json")[1])
    assert plain == "a cat" + value["samples"][0] + "\n"


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ((), {}),
        (
            ("--temperature", "1.5", "--top-p", "0.9", "--top-k", "40", "--seed", "3"),
            {"temperature": 1.5, "top_p": 0.9, "top_k": 40, "seed": 3},
        ),
        (("--temperature", "0", "--repetition-penalty", "1.5"), {"temperature": 0, "repetition_penalty": 1.5}),
        (("--temperature", "0", "--no-repeat-ngram", "1"), {"temperature": 0, "no_repeat_ngram": 1}),
        (("--stop", "e", "--stop", "a"), {"stop": ["e", "a"]}),
    ],
)
def test_generate_passes_its_options_on(capsys, model_folder, generator, options, settings):
    arguments = ("generate", "--prompt", "a cat", "--model", model_folder, "--max-tokens", 40, "--json", *options)
    expected = generator.generate("a cat", max_tokens=40, **settings).samples
    assert json.loads(run(capsys, *arguments)[1])["samples"] == expected
    if settings:
        assert expected != generator.generate("a cat", max_tokens=40, temperature=settings.get("temperature", 0.8)).samples


def test_streaming_shows_nothing_of_a_stop_string_and_always_the_prompt(capsys, model_folder, generator):
    arguments = ("generate", "--prompt", "a cat", "--model", model_folder, "--max-tokens", 40)
    text = generator.generate("a cat", max_tokens=40).samples[0]
    for place in (16, 20, 0):  # within the text, and at its very beginning: nothing is written then
        stop = text[place : place + 6]
        shown = "a cat" + text[: text.index(stop)] + "\n"
        assert run(capsys, *arguments, "--stop", stop) == (0, shown, "")
    assert shown == "a cat\n"


def test_several_samples_are_numbered(capsys, model_folder, generator):
    first, second = generator.generate("a cat", max_tokens=9, num_samples=2).samples
    found = run(capsys, "generate", "--prompt", "a cat", "--model", model_folder, "--max-tokens", 9, "--num-samples", 2)
    assert found == (0, f"--- 1\na cat{first}\n--- 2\na cat{second}\n", "")


@pytest.mark.parametrize("engine", ["numpy", "keras"])
def test_the_other_engines_write_and_score_with_the_exact_weights(capsys, model_folder, exact_generator, tmp_path, engine):
    arguments = ("--model", model_folder, "--engine", engine)
    found = run(capsys, "generate", "--prompt", "a cat", "--max-tokens", 20, *arguments)
    assert found == (0, f"a cat{exact_generator.generate('a cat', max_tokens=20).samples[0]}\n", "")
    (tmp_path / "t.txt").write_text("once upon a time")
    value = json.loads(run(capsys, "score", "--text", tmp_path / "t.txt", "--json", *arguments)[1])
    assert value["bits_per_byte"] == pytest.approx(exact_generator.score("once upon a time")["bits_per_byte"], rel=1e-5)


def test_beam_search_gives_the_best_text_and_with_json_the_beam(capsys, model_folder, exact_generator):
    arguments = ("generate", "--prompt", "a cat", "--model", model_folder, "--max-tokens", 8, "--beam-size", 3, "--engine", "numpy")
    expected = exact_generator.beam("a cat", max_tokens=8, beam_size=3)
    assert run(capsys, *arguments) == (0, f"a cat{expected.samples[0]}\n", "")
    value = json.loads(run(capsys, *arguments, "--json")[1])
    assert value["samples"] == expected.samples and len(value["samples"]) == 3
    assert value["scores"] == pytest.approx(expected.scores, abs=1e-5)
    rounded = json.loads(run(capsys, *arguments[:-2], "--json")[1])  # 8-bit weights
    assert rounded["scores"] == pytest.approx(expected.scores, abs=0.2) and len(rounded["samples"]) == 3


@pytest.mark.parametrize(
    "option", ["--temperature 0", "--top-p 1", "--top-k 0", "--repetition-penalty 1", "--no-repeat-ngram 0", "--num-samples 1", "--stop x"]
)
def test_beam_search_refuses_options_of_drawing(capsys, model_folder, option):
    code, out, err = run(capsys, "generate", "--prompt", "x", "--model", model_folder, "--beam-size", 2, *option.split())
    assert (code, out) == (2, "")
    assert err == f"slm: --beam-size searches for the likeliest text and draws nothing. Leave out {option.split()[0]}, or --beam-size.\n"


def test_score_json_has_the_promised_keys_and_right_sizes(capsys, model_folder, tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("Ünder a tree 🙂", encoding="utf-8")
    code, out, err = run(capsys, "score", "--text", file, "--model", model_folder, "--json")
    value = json.loads(out)
    assert code == 0 and err == ""
    assert set(value) == {"bits_per_byte", "bits_per_char", "perplexity", "num_tokens", "num_bytes", "seconds"}
    assert value["num_bytes"] == len(file.read_bytes())
    assert value["bits_per_char"] * len("Ünder a tree 🙂") == pytest.approx(value["bits_per_byte"] * value["num_bytes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frobnicate",), "invalid choice"),
        (("generate",), "--prompt"),
        (("generate", "--prompt", "x", "--model", "no/such"), "neither a model folder nor a pretrained model"),
        (("generate", "--prompt", "x", "--model", "MODEL", "--temperature", "-1"), "temperature is -1.0, but must be 0 or more"),
        (("generate", "--prompt", "x", "--model", "MODEL", "--max-tokens", "0"), "max_tokens is 0"),
        (("generate", "--prompt", "x", "--model", "MODEL", "--top-p", "0"), "top_p is 0.0"),
        (("generate", "--prompt", "x", "--model", "MODEL", "--repetition-penalty", "0.5"), "repetition_penalty is 0.5"),
        (("generate", "--prompt", "x", "--model", "MODEL", "--no-repeat-ngram", "-2"), "no_repeat_ngram is -2"),
        (("generate", "--prompt", "x", "--model", "MODEL", "--stop", ""), "A stop string is empty"),
        (("generate", "--prompt", "x", "--model", "MODEL", "--beam-size", "0"), "beam_size is 0"),
        (("generate", "--prompt", "x\udcff", "--model", "MODEL"), "half a character (U+DCFF) at position 1"),
        (("score", "--text", "no_such.txt", "--model", "MODEL"), "no_such.txt: there is no such file"),
        (("score", "--text", "EMPTY", "--model", "MODEL"), "the file is empty"),
        (("score", "--text", "LATIN", "--model", "MODEL"), "line 2: the bytes are not utf-8 text"),
        (("run", "77"), "no notebook 77"),
        (("download", "no_such_set"), "'no_such_set' is no public set"),
    ],
)
def test_errors_are_one_line_on_stderr_with_exit_code_2(capsys, model_folder, tmp_path, arguments, message):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes(b"a\ncaf\xe9\n")
    named = {"MODEL": model_folder, "EMPTY": tmp_path / "empty.txt", "LATIN": tmp_path / "latin.txt"}
    code, out, err = run(capsys, *(named.get(a, a) for a in arguments))
    assert code == 2 and out == ""
    assert err.startswith("slm: ") and err.count("\n") == 1 and message in err


def test_a_warning_is_one_line_on_stderr_that_shows_no_code(capsys, monkeypatch):
    usual = warnings.formatwarning
    shown = []
    monkeypatch.setattr(
        cli, "_check", lambda options: shown.append(warnings.formatwarning("3 rows\nleft out", UserWarning, "x.py", 1)) or 0
    )
    assert run(capsys, "check")[0] == 0
    assert shown == ["slm: 3 rows left out\n"] and warnings.formatwarning is usual


def test_without_any_model_the_way_to_one_is_told(capsys, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.setattr("slm_helpers._paths.PRETRAINED_DIR", tmp_path / "a")
    monkeypatch.setattr("slm_helpers._paths.RUNS_DIR", tmp_path / "b")
    code, _, err = run(capsys, "generate", "--prompt", "x")
    assert code == 2 and "slm run 03" in err


def test_check_says_what_to_do_and_exits_1_if_something_is_wrong(capsys, monkeypatch):
    from slm_helpers.reports import machine

    rows = [Check("cores", True, "2"), Check("disk", False, "0.1 GB free", "Free 1 GB.")]
    monkeypatch.setattr(machine, "check_machine", lambda: rows)
    code, out, _ = run(capsys, "check")
    assert code == 1 and "FIX   disk" in out and "-> Free 1 GB." in out
    code, out, _ = run(capsys, "check", "--json")
    assert json.loads(out)["ready"] is False and len(json.loads(out)["checks"]) == 2


def test_run_exits_1_and_names_the_failed_notebook(capsys, monkeypatch, tmp_path):
    from slm_helpers.reports import run_notebooks as reports
    from slm_helpers.reports.index import NotebookResult

    failed = NotebookResult("03_x", "t", "s", "failed", 1.0, 1.0, error="cell 4: ValueError: no")
    monkeypatch.setattr(reports, "find_notebooks", lambda numbers: [tmp_path / "03_x.ipynb"])
    monkeypatch.setattr(reports, "run_notebooks", lambda *a, **k: [failed])
    code, _, err = run(capsys, "run", "03", "--out", tmp_path)
    assert code == 1 and "03_x failed in cell 4: ValueError: no" in err


@pytest.mark.parametrize("option", ["--num-samples 1000000000", "--beam-size 1000000", "--beam-size 10000000", "--max-tokens 100000000000"])
def test_sizes_that_no_machine_has_room_for_are_refused(capsys, model_folder, option):
    code, _, err = run(capsys, "generate", "--prompt", "x", "--model", model_folder, *option.split())
    assert code == 2 and f"slm: {option.split()[0]} is " in err and "at most" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("tokens"), "slm: KeyError: 'tokens'. A file or model may be damaged"),
        (AttributeError("no shape"), "slm: AttributeError: no shape."),
        (RuntimeError("no HOME"), "slm: RuntimeError: no HOME."),
        (StopIteration(), "slm: StopIteration: ."),
        (MemoryError("8 GB"), "slm: There is not enough memory (8 GB)."),
        (RecursionError("deep"), "slm: Something is nested too deeply"),
        (OSError(28, "No space left on device"), "slm: [Errno 28] No space left on device"),
        (FloatingPointError("The loss is nan"), "slm: The loss is nan"),
        (ValueError("line\x1b[31m one\nand\x9b two"), r"slm: line\x1b[31m one and\x9b two"),
    ],
)
def test_whatever_goes_wrong_is_one_line(capsys, monkeypatch, error, message):
    def fail(options):
        raise error

    monkeypatch.delenv("SLM_DEBUG", raising=False)
    monkeypatch.setattr(cli, "_check", fail)
    code, out, err = run(capsys, "check")
    assert (code, out) == (2, "") and err.startswith(message) and err.count("\n") == 1


def test_json_has_no_nan_and_no_raw_control_characters(capsys):
    cli._print_json({"value": float("nan"), "rows": [{"label": "a\x9b31m\x7f\x1b"}], "text": "é🙂"})
    line = capsys.readouterr().out
    assert line == '{"value": null, "rows": [{"label": "a\\u009b31m\\u007f\\u001b"}], "text": "é🙂"}\n'
    assert json.loads(line)["rows"][0]["label"] == "a\x9b31m\x7f\x1b"


def test_a_terminal_is_shown_control_characters_escaped(capsys, monkeypatch):
    cli._show("a\x1b[31m b")
    assert capsys.readouterr().out == "a\x1b[31m b\n"  # a file gets what was written
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    cli._show("a\x1b[31m b")
    assert capsys.readouterr().out == "a\\x1b[31m b\n"


def test_a_bad_option_shows_no_control_characters(capsys):
    assert "\\x1b[31m" in run(capsys, "\x1b[31m")[2]


def test_empty_lines_of_standard_input_stay_empty_lines(capsys, monkeypatch):
    import io

    from slm_helpers.tasks.translation import Translator

    asked = []

    def translate(self, texts, to, beam_size=None):
        asked.extend(texts)
        return [{"prediction": text.upper(), "confidence": 1.0} for text in texts]

    monkeypatch.setattr(Translator, "translate", translate)
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n"))
    code, out, _ = run(capsys, "translate")
    assert code == 0 and out == "ONE\n\nTWO\n" and asked == ["one", "two"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    assert "nothing to translate" in run(capsys, "translate")[2]


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    def stop(options):
        raise KeyboardInterrupt("Training stopped after step 3 of 9.")

    monkeypatch.setattr(cli, "_finetune", stop)
    code, _, err = run(capsys, "finetune", "lm", "--train", "x.txt", "--out", "m")
    assert code == 130 and "after step 3 of 9" in err and "--resume" in err
    monkeypatch.setattr(cli, "_check", lambda options: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert run(capsys, "check")[::2] == (130, "slm: interrupted\n")


def test_every_column_of_a_task_has_an_option():
    for word in TASKS:
        kind = task_class(word)
        assert set(kind.columns) <= set(cli.ALL_COLUMNS) <= set(schema.ALL_COLUMNS), word
