"""The `slm` command. Errors go to stderr in one line with exit code 2; `--json` prints one JSON object on stdout and nothing else.

Control characters from files, names and models are printed escaped, so that a terminal obeys none of them.
"""

import argparse
import json
import math
import os
import re
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from slm_helpers._checks import printable
from slm_helpers._signals import exit_on_sigterm
from slm_helpers.tasks import TASKS

# Options that name a file's columns: those of the tasks, written out since `data.schema` would load pandas for `slm --help`.
ALL_COLUMNS = (
    *("text", "label", "labels", "tokens", "tags", "sentence", "intent", "sound", "context", "question", "answer", "answer_start"),
    *("source", "target", "target_language", "tone", "student", "step", "skill", "correct"),
)
# Options of `slm generate` that say how to draw.
_DRAWING = ("temperature", "top_p", "top_k", "repetition_penalty", "no_repeat_ngram", "stop", "num_samples")
# More than these would not fit into memory, or never end.
_MOST = {"max_tokens": 1_000_000, "num_samples": 1000, "beam_size": 1000, "epochs": 100_000, "batch_size": 100_000, "jobs": 1000}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 1 if a notebook or a check failed, 2 if it could not be done as asked."""
    started = time.perf_counter()
    options = _build_parser().parse_args(arguments)
    options.started = started
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *about, **more: f"slm: {_line(message)}\n"
    try:
        _check_limits(options)
        with exit_on_sigterm():
            return options.run(options)
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        if getattr(options, "resume", None) is not None:
            _say("The same command with --resume goes on where it stopped.")
        return 130
    except Exception as error:  # whatever a bad file or setting can cause is one line
        if os.environ.get("SLM_DEBUG"):
            raise
        _say(_explain(error))
        return 2
    finally:
        warnings.formatwarning = usual


def _explain(error: Exception) -> str:
    """Return an error in words: a MemoryError has none, and a KeyError's are no sentence."""
    if isinstance(error, MemoryError):
        return f"There is not enough memory ({error or 'no size is known'}). Use smaller batches, fewer samples or shorter texts."
    if isinstance(error, RecursionError):
        return "Something is nested too deeply, such as lists within lists of a JSON file. Make it flatter."
    if isinstance(error, ValueError | TypeError | OSError | ArithmeticError):
        return str(error)
    return f"{type(error).__name__}: {error}. A file or model may be damaged; with SLM_DEBUG=1 it is shown where this happened."


def _check_limits(options: argparse.Namespace) -> None:
    for name, most in _MOST.items():
        if (getattr(options, name, None) or 0) > most:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name):,}, but can be {most:,} at most.")


def _line(text: object) -> str:
    return printable(" ".join(str(text).split()))


def _say(text: object) -> None:
    """Print one line on stderr."""
    print(f"slm: {_line(text)}", file=sys.stderr, flush=True)


def _show(text: str, *, end: str = "\n") -> None:
    """Print a text on stdout, for a terminal with its control characters escaped."""
    print(printable(text) if sys.stdout.isatty() else text, end=end, flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _say(f"{message} ({self.prog} --help lists the options)")
        raise SystemExit(2)


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="slm", description="Small language models: run notebooks, generate, score.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="execute notebooks into reports/ (HTML and an index); SLM_QUICK=1: in their quick sizes")
    run.add_argument("notebooks", nargs="*", metavar="NN", help="two-digit numbers of notebooks; all of them if none is given")
    run.add_argument("--jobs", type=int, default=1, help="notebooks run side by side (default 1)")
    run.add_argument(
        "--data", choices=("bundled", "public"), default="bundled", help="bundled texts, or each notebook's public set from SLM_DATA_DIR"
    )
    run.add_argument("--out", type=Path, default=None, help="folder for the reports (default: reports/)")
    run.add_argument(
        "--update-readme",
        action="store_true",
        help="write the README's table of notebooks and their budgets from the results",
    )
    run.set_defaults(run=_run)

    check = commands.add_parser("check", help="is this machine ready?")
    check.add_argument("--json", action="store_true", help="one JSON object on stdout")
    check.set_defaults(run=_check)

    generate = commands.add_parser("generate", help="continue a text")
    generate.add_argument("--prompt", required=True, help="may be empty")
    generate.add_argument("--model", help="a model folder or the name of a pretrained model")
    generate.add_argument("--max-tokens", type=int, default=100)
    # Without defaults here: `TextGenerator.generate` has them, and beam search must know what was asked for.
    generate.add_argument("--temperature", type=float, help="0 takes the most likely token each time (default 0.8)")
    generate.add_argument("--top-p", type=float, help="draw among the fewest tokens that hold this share of the probability (default 1)")
    generate.add_argument("--top-k", type=int, help="draw among this many most likely tokens (default 0: all)")
    generate.add_argument("--repetition-penalty", type=float, help="more than 1 makes tokens just written less likely (default 1)")
    generate.add_argument("--no-repeat-ngram", type=int, metavar="N", help="write no run of N tokens twice (default 0: off)")
    generate.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be given several times")
    generate.add_argument("--num-samples", type=int, help="texts drawn side by side (default 1)")
    generate.add_argument("--seed", type=int, default=42)
    generate.add_argument(
        "--beam-size", type=int, metavar="N", help="search for the likeliest text instead of drawing; --json gives the N best"
    )
    _add_engine(generate)
    generate.add_argument("--json", action="store_true", help="one JSON object on stdout")
    generate.set_defaults(run=_generate)

    score = commands.add_parser("score", help="how well does a model predict a text?")
    score.add_argument("--text", required=True, metavar="FILE", help="a text file; - reads standard input")
    score.add_argument("--encoding", default="utf-8")
    score.add_argument("--model", help="a model folder or the name of a pretrained model")
    _add_engine(score)
    score.add_argument("--json", action="store_true", help="one JSON object on stdout")
    score.set_defaults(run=_score)

    finetune = commands.add_parser("finetune", help="train a model for a task on your own table or a named set")
    finetune.add_argument("task", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    finetune.add_argument("--train", required=True, nargs="+", metavar="FILE", help="files, or names of sets; dealt 80/10/10 if alone")
    finetune.add_argument("--valid", metavar="FILE", help="rows that choose the epoch (default: a tenth of train)")
    finetune.add_argument("--test", metavar="FILE", help="rows that are scored at the end")
    finetune.add_argument("--out", required=True, type=Path, metavar="DIR", help="the model folder; an older one there is replaced")
    finetune.add_argument(
        "--base", metavar="M", help="model to start from, or none (default slm-base-en; for translate, trace, listen none)"
    )
    finetune.add_argument("--seed", type=int, default=42)
    finetune.add_argument("--epochs", type=int, help="passes over train at most (default: the task's own)")
    finetune.add_argument("--batch-size", type=int, help="rows in an update (default: the task's own)")
    finetune.add_argument("--learning-rate", type=float, help="the highest, of the head (default: the task's own)")
    finetune.add_argument("--max-seconds", type=float, help="time for reading, training and scoring together (default: no limit)")
    finetune.add_argument(
        "--balanced", dest="class_weight", action="store_const", const="balanced", help="give every class the same weight in training"
    )
    finetune.add_argument("--no-ngrams", action="store_true", help="the network alone, without a linear model on n-grams beside it")
    finetune.add_argument("--resume", action="store_true", help="go on with a run that was cut off; call it as before")
    _add_file_options(finetune)
    finetune.set_defaults(run=_finetune)

    evaluate = commands.add_parser("evaluate", help="score a fine-tuned model on labelled rows")
    evaluate.add_argument("--model", required=True, metavar="DIR", help="a model folder or the name of a pretrained model")
    evaluate.add_argument("--test", required=True, metavar="FILE", help="a file, or the name of a set")
    _add_row_engine(evaluate)
    _add_file_options(evaluate)
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser("predict", help="add prediction and confidence to each row of a file")
    predict.add_argument("--model", required=True, metavar="DIR", help="a model folder or the name of a pretrained model")
    predict.add_argument("--input", required=True, metavar="FILE")
    predict.add_argument("--output", required=True, metavar="FILE", help=".csv, .tsv or .jsonl")
    _add_row_engine(predict)
    predict.add_argument("--keep-bad", action="store_true", help="leave the prediction of a row without a value empty, instead of stopping")
    predict.add_argument("--safe-csv", action="store_true", help="put ' before cells that a spreadsheet would run as a formula")
    predict.add_argument(
        "--explain", action="store_true", help="add a column with the words that counted, as word:+0.310 (.jsonl: a list); classifiers only"
    )
    _add_file_options(predict)
    predict.set_defaults(run=_predict)

    report = commands.add_parser("report", help="from a file of your own to a trained model and a report on it")
    report.add_argument("--data", required=True, metavar="FILE", help="a file of rows, or the name of a set")
    report.add_argument("--test", metavar="FILE", help="rows to score at the end (default: a tenth of the rows)")
    report.add_argument(
        "--task", choices=("classify", "multilabel", "tag", "command", "answer", "translate", "write"), help="guessed unless given"
    )
    report.add_argument("--out", required=True, type=Path, metavar="DIR")
    report.add_argument("--base", default="slm-base-en", metavar="M", help="model the network starts from, or none")
    report.add_argument("--max-minutes", type=float, default=10.0, help="for everything (default 10)")
    report.add_argument("--seed", type=int, default=42)
    report.add_argument("--show-rows", action="store_true", help="show texts of the data on the page")
    _add_file_options(report)
    report.set_defaults(run=_report)

    explore = commands.add_parser("explore", help="what is in a file of texts: a page, and rows to look at as CSV")
    explore.add_argument("--data", required=True, metavar="FILE", help="a file with texts, or the name of a set")
    explore.add_argument("--against", metavar="FILE", help="a second file: has it drifted from the first?")
    explore.add_argument("--out", required=True, type=Path, metavar="DIR")
    explore.add_argument("--group", metavar="COLUMN", help="compare the texts of its values (default: the label, else the split)")
    explore.add_argument("--time", metavar="COLUMN", help="dates, years or numbers: what is typical of each period")
    explore.add_argument("--topics", type=int, metavar="N", help="number of topics (default: 2 to 12 by the number of texts)")
    explore.add_argument("--base", default="slm-base-en", metavar="M", help="language model that marks odd texts, or none")
    explore.add_argument("--seed", type=int, default=42)
    explore.add_argument("--show-rows", action="store_true", help="show texts of the data on the page")
    _add_file_options(explore, ("text", "label"))
    explore.set_defaults(run=_explore)

    translate = commands.add_parser("translate", help="translate a sentence, or lines from standard input")
    translate.add_argument("text", nargs="?", metavar="TEXT", help="lines of standard input unless given")
    translate.add_argument("--to", default="", metavar="LANGUAGE", help="e.g. es; may be left out if the model knows only one")
    translate.add_argument("--model", metavar="M", help="a model folder or the name of a pretrained model (default slm-en-es)")
    translate.add_argument("--beam-size", type=int, metavar="N", help="1 takes the likeliest word each time (default: the model's own)")
    _add_row_engine(translate)
    translate.add_argument("--json", action="store_true", help="one JSON object on stdout")
    translate.set_defaults(run=_translate)

    export = commands.add_parser("export", help="write a model as a file that runs without this package")
    export.add_argument("--model", required=True, metavar="DIR", help="a model folder or the name of a pretrained model")
    export.add_argument(
        "--to",
        choices=("onnx", "html"),
        default="onnx",
        help="onnx: its graph in float32 (default); html: a page that runs a language model or a classifier without a network",
    )
    export.add_argument("--out", required=True, metavar="FILE", help="with the ending .onnx or .html")
    export.set_defaults(run=_export)

    scrub = commands.add_parser("scrub", help="replace names, numbers and addresses in a file by placeholders")
    scrub.add_argument("--data", required=True, metavar="FILE", help="a file with texts")
    scrub.add_argument("--text", metavar="COLUMN", help="column of the texts, or its number; other columns are copied as they are")
    scrub.add_argument("--out", required=True, metavar="FILE", help=".csv, .tsv or .jsonl; what was replaced is listed beside it")
    scrub.add_argument("--model", metavar="DIR", help="a tagger that finds names (default: a linear one, of the bundled entities)")
    scrub.add_argument("--no-names", action="store_true", help="patterns alone")
    scrub.add_argument("--show-originals", action="store_true", help="list what was replaced in clear; the list is then personal, too")
    scrub.add_argument("--encoding", default="utf-8")
    scrub.add_argument("--json", action="store_true", help="one JSON object on stdout")
    scrub.set_defaults(run=_scrub)

    serve = commands.add_parser("serve", help="answer requests to a model over HTTP, on this machine alone")
    serve.add_argument("--model", required=True, metavar="DIR", help="a model folder or the name of a pretrained model")
    serve.add_argument("--port", type=int, default=8000, help="of the loopback address (default 8000; 0: a free one)")
    serve.set_defaults(run=_serve)

    workshop = commands.add_parser("workshop", help="agenda, copies to fill, scores and an offline bundle for a room")
    parts = workshop.add_subparsers(dest="part", required=True, metavar="PART")
    plan = parts.add_parser("plan", help="an agenda from measured minutes")
    plan.add_argument("--hours", type=float, required=True)
    plan.add_argument("--for", dest="audience", choices=("beginners", "practitioners"), default="beginners")
    plan.add_argument("--speed", type=float, default=1.0, help="how many times as long as stated the room's machines take (default 1)")
    plan.add_argument("notebooks", nargs="*", metavar="NN", help="these instead of the audience's")
    students = parts.add_parser("students", help="copies without outputs, with cells to fill and checks")
    students.add_argument("notebooks", nargs="+", metavar="NN")
    students.add_argument("--out", type=Path, required=True, metavar="DIR")
    students.add_argument("--names", default="", help="a folder for each of these, separated by commas")
    board = parts.add_parser("board", help="the room's score files as one picture and a table")
    board.add_argument("--scores", type=Path, required=True, metavar="DIR", help="with a folder for each person")
    board.add_argument("--out", type=Path, required=True, metavar="FILE", help="with the ending .png or .svg")
    bundle = parts.add_parser("bundle", help="one folder for a room without a network")
    bundle.add_argument("--out", type=Path, required=True, metavar="DIR")
    bundle.add_argument("--wheels", type=Path, metavar="DIR", help="wheels for requirements.lock (default: pip downloads them)")
    bundle.add_argument("--zip", action="store_true", help="pack it as DIR.zip")
    quiz = parts.add_parser("quiz", help="ten questions on a notebook as a page; answers unfold")
    quiz.add_argument("notebook", metavar="NN")
    quiz.add_argument("--out", type=Path, required=True, metavar="FILE", help="with the ending .html")
    parts.add_parser("door", help="is this machine ready for the workshop: one line")
    workshop.set_defaults(run=_workshop)

    download = commands.add_parser("download", help="fetch a public data set into the cache")
    download.add_argument("name", metavar="NAME")
    download.set_defaults(run=_download)
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("onnx", "numpy", "keras"),
        help="what computes: onnx with 8-bit weights, without loading Keras (default, but for models that it cannot run); numpy or keras "
        "with the exact weights",
    )


def _add_row_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("onnx", "keras"),
        default="onnx",
        help="what computes: onnx, without loading Keras where it can run the model (default), or keras, to check it by",
    )


def _add_file_options(parser: argparse.ArgumentParser, columns: tuple[str, ...] = ALL_COLUMNS) -> None:
    for name in columns:
        about = name.replace("_", " ")
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="COLUMN",
            help=f"column of the file that holds the {about}, or its number",
        )
    parser.add_argument("--encoding", default="utf-8")
    parser.add_argument("--no-header", action="store_true", help="the first line is a row: columns are numbered from 1")
    parser.add_argument("--strict", action="store_true", help="refuse files that need a repair")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _run(options: argparse.Namespace) -> int:
    from slm_helpers._paths import REPORTS_DIR
    from slm_helpers.reports.index import update_readme
    from slm_helpers.reports.run_notebooks import find_notebooks, run_notebooks

    out_dir = options.out or REPORTS_DIR
    notebooks = find_notebooks(options.notebooks)
    if options.data == "public" and not os.environ.get("SLM_DATA_DIR"):
        _say("SLM_DATA_DIR is not set; sets that are not cached will be downloaded")
    print(f"Running {len(notebooks)} notebook(s) on {options.data} data into {out_dir}", flush=True)
    on_line = partial(print, flush=True)
    results = run_notebooks(notebooks, data=options.data, jobs=options.jobs, out_dir=out_dir, on_line=on_line)
    failed = [result for result in results if result.status != "ok"]
    for result in failed:
        _say(f"{result.name} failed in {result.error}")
    if options.update_readme:
        update_readme(out_dir)
    print(f"Open {out_dir / 'index.html'}")
    return 1 if failed else 0


def _check(options: argparse.Namespace) -> int:
    from slm_helpers.reports.machine import check_machine

    rows = check_machine()
    if options.json:
        print(json.dumps({"ready": all(row.ok for row in rows), "checks": [vars(row) for row in rows]}, ensure_ascii=False))
    else:
        for row in rows:
            print(f"{'ok  ' if row.ok else 'FIX '}  {row.name:<16} {row.found}")
            if not row.ok:
                print(f"      -> {row.advice}")
    return 0 if all(row.ok for row in rows) else 1


def _generate(options: argparse.Namespace) -> int:
    rules = {name: value for name in _DRAWING if (value := getattr(options, name)) is not None}
    if options.beam_size is not None and rules:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in rules)
        raise ValueError(f"--beam-size searches for the likeliest text and draws nothing. Leave out {named}, or --beam-size.")
    started = time.perf_counter()
    saved = _open_model(options.model, engine=options.engine or "onnx")
    from slm_helpers.generation.generator import TextGenerator

    generator = TextGenerator(saved.model, saved.tokenizer, compiled=options.engine == "keras")
    load_seconds = time.perf_counter() - started
    streaming = not options.json and options.num_samples in (None, 1)
    # The prompt is shown with the first piece: a bad setting is refused before anything is printed.
    waiting = [options.prompt]

    def show(piece: str) -> None:
        _show("".join(waiting) + piece, end="")
        waiting.clear()

    if options.beam_size is None:
        on_text = show if streaming else None
        result = generator.generate(options.prompt, max_tokens=options.max_tokens, seed=options.seed, on_text=on_text, **rules)
    else:
        result = generator.beam(options.prompt, max_tokens=options.max_tokens, beam_size=options.beam_size)
        if streaming:
            show(result.samples[0])
    if options.json:
        _print_json(
            {
                "samples": result.samples,
                "prompt": options.prompt,
                "model": saved.folder.name,
                "seed": options.seed,
                "num_tokens": result.num_tokens,
                "tokens_per_second": result.tokens_per_second,
                "first_token_seconds": result.first_token_seconds,
                "load_seconds": load_seconds,
            }
            | ({"scores": result.scores} if result.scores else {})
        )
    elif streaming:
        _show("".join(waiting))  # nothing was written if the prompt still waits
    else:
        for number, sample in enumerate(result.samples, 1):
            _show(f"--- {number}\n{options.prompt}{sample}")
    return 0


def _score(options: argparse.Namespace) -> int:
    from slm_helpers.data.decoding import read_text

    text = sys.stdin.read() if options.text == "-" else read_text(options.text, encoding=options.encoding)
    if not text:
        raise ValueError(f"{options.text}: the file is empty, so there is nothing to score.")
    saved = _open_model(options.model, engine=options.engine or "onnx")
    from slm_helpers.generation.generator import TextGenerator

    started = time.perf_counter()
    scores = TextGenerator(saved.model, saved.tokenizer, compiled=options.engine == "keras").score(text)
    scores["seconds"] = time.perf_counter() - started
    if options.json:
        _print_json(scores)
    else:
        print("{bits_per_byte:.3f} bits per byte, {bits_per_char:.3f} per character, perplexity {perplexity:.1f}".format(**scores))
        print("{num_tokens:,} tokens, {num_bytes:,} bytes, {seconds:.1f} s, model {model}".format(**scores, model=saved.folder.name))
    return 0


def _finetune(options: argparse.Namespace) -> int:
    from slm_helpers.tasks.io import finetune, new_estimator

    estimator = new_estimator(
        options.task,
        seed=options.seed,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        max_seconds=options.max_seconds,
        class_weight=options.class_weight,
        ngrams=False if options.no_ngrams else None,
        **({} if options.base is None else {"base": None if options.base == "none" else options.base}),
    )
    result = finetune(
        estimator,
        train=options.train,
        valid=options.valid,
        test=options.test,
        out=options.out,
        files=_file_options(options),
        resume=options.resume,
        say=_say,
        started=options.started,
    )
    _print_result(result, options)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from slm_helpers.tasks.io import evaluate

    _print_result(evaluate(options.model, options.test, files=_file_options(options), say=_say, engine=options.engine), options)
    return 0


def _predict(options: argparse.Namespace) -> int:
    from slm_helpers.tasks.io import predict

    if options.explain:
        from slm_helpers.analysis.explain import check_classifier, explain_rows

        check_classifier(options.model)
    result = predict(
        options.model,
        options.input,
        options.output,
        files=_file_options(options),
        keep_bad=options.keep_bad,
        safe_csv=options.safe_csv,
        engine=options.engine,
        explain=explain_rows if options.explain else None,
    )
    if options.json:
        _print_json(result)
    else:
        _show("{rows:,} rows in {seconds} s ({rows_per_second:,.0f} a second) written to {output}".format(**result, output=options.output))
    if result["left_empty"]:
        _say(f"{result['left_empty']:,} rows without a value have no prediction")
    return 0


def _file_options(options: argparse.Namespace):
    from slm_helpers.tasks.io import FileOptions

    columns = {name: value for name in ALL_COLUMNS if (value := getattr(options, name)) is not None}
    return FileOptions(columns=columns, encoding=options.encoding, header=not options.no_header, strict=options.strict)


def _print_result(result: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        _print_json(result)
        return
    _show("{task}, {rows:,} rows, {seconds} s, model {model}".format(**result))
    for name, values in result["metrics"].items():
        interval = f"  [{values['ci_low']:.4f}, {values['ci_high']:.4f}]" if "ci_low" in values else ""
        print(f"  {name:<18} {values['value']:.4f}{interval}")


def _report(options: argparse.Namespace) -> int:
    from slm_helpers.data.files import check_writable
    from slm_helpers.models.folders import check_replaceable
    from slm_helpers.tasks.io import load_parts, with_valid

    if options.max_minutes < 0.5:
        raise ValueError(f"max_minutes is {options.max_minutes:g}, but half a minute is the least that training and scoring take.")
    check_writable(options.out)
    check_replaceable(options.out / "model")
    files = _file_options(options)
    task, files = _guessed(options, files)
    frame = load_parts(task, train=[options.data], test=options.test, files=files, seed=options.seed)
    frame = with_valid(frame, seed=options.seed)
    about = {
        "base": None if options.base == "none" else options.base,
        "max_minutes": options.max_minutes,
        "seed": options.seed,
        "say": _say,
    }
    if task == "classify":
        from slm_helpers.apps.text_report import report_on_texts
        from slm_helpers.reports.text_report_page import write_report

        report = report_on_texts(frame, **about)
    else:
        from slm_helpers.apps.task_report import report_on_task
        from slm_helpers.reports.task_report_page import write_task_report as write_report

        report = report_on_task(task, frame, **about)
    found = write_report(report, options.out, file=Path(options.data).name, show_rows=options.show_rows)
    if options.json:
        _print_json(found)
    else:
        _show(f"{found['verdict']}\nThe report: {options.out / 'report.html'}; the model: {options.out / 'model'}")
    return 0


def _guessed(options: argparse.Namespace, files: Any) -> tuple[str, Any]:
    """Return the task and how the file is read: as the user said, the rest guessed from the file and told."""
    from dataclasses import replace

    if not Path(options.data).is_file():
        from slm_helpers.data.loading import list_datasets

        sets = list_datasets().set_index("name")["task"]
        return options.task or ("translate" if "::" in options.data else sets.get(options.data, "classify")), files
    from slm_helpers.data.guess import guess_columns

    guess = guess_columns(options.data, files.columns, task=options.task, header=files.header, encoding=files.encoding)
    if guess.why:
        _say(guess.why)
    return guess.task, replace(files, columns=guess.columns, header=guess.header)


def _explore(options: argparse.Namespace) -> int:
    from slm_helpers.data.collection import load_collection
    from slm_helpers.data.files import check_writable

    if options.topics is not None and not 2 <= options.topics <= 100:
        raise ValueError(f"--topics is {options.topics}, but must lie between 2 and 100.")
    check_writable(options.out)
    columns = {name: getattr(options, name) for name in ("text", "label", "group", "time")}
    reading = {"encoding": options.encoding, "header": not options.no_header, "strict": options.strict, "seed": options.seed}
    collection = load_collection(options.data, columns=columns, **reading)
    against = load_collection(options.against, columns=columns, **reading) if options.against else None
    from slm_helpers.analysis.explore import explore_texts
    from slm_helpers.reports.explore_page import write_exploration

    base = None if options.base == "none" else options.base
    found = explore_texts(collection, against, base=base, num_topics=options.topics, seed=options.seed, say=_say)
    value = write_exploration(found, options.out, show_rows=options.show_rows)
    if options.json:
        _print_json(value)
    else:
        lines = [
            f"{value['texts']:,} texts, {value['words']['total']:,} words",
            *value["headlines"],
            f"The page: {options.out / 'explore.html'}",
        ]
        _show("\n".join(_line(line) for line in lines))
    return 0


def _translate(options: argparse.Namespace) -> int:
    lines = [options.text] if options.text is not None else [line.strip() for line in sys.stdin]
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise ValueError("There is nothing to translate: the text is empty.")
    saved = _open_model(options.model, task="translate", default=("slm-en-es", "11_machine_translation"), engine=options.engine)
    from slm_helpers.tasks.translation import Translator

    translator = Translator.from_saved(saved)
    started = time.perf_counter()
    found = iter(translator.translate(texts, options.to, beam_size=options.beam_size))
    # An empty line stays an empty line, so that line n of the output belongs to line n of the input.
    rows = [next(found) if line.strip() else {"prediction": ""} for line in lines]
    seconds = time.perf_counter() - started
    if options.json:
        translations = [{"source": line, "translation": row.pop("prediction")} | row for line, row in zip(lines, rows, strict=True)]
        _print_json({"translations": translations, "to": options.to, "model": saved.folder.name, "seconds": seconds})
    else:
        for row in rows:
            _show(row["prediction"])
    return 0


def _export(options: argparse.Namespace) -> int:
    from slm_helpers.models.folders import model_folder

    if options.to == "html":
        from slm_helpers.deploy.html_page import export_html as export
    else:
        from slm_helpers.deploy.export import export_onnx as export
    for path in export(model_folder(options.model), options.out):
        _show(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _scrub(options: argparse.Namespace) -> int:
    from slm_helpers.analysis.scrubbing import scrub_file

    tagger = None
    if options.model is not None:
        if options.no_names:
            raise ValueError("--no-names looks for no names and needs no tagger. Leave out --model, or --no-names.")
        from slm_helpers.tasks.io import open_estimator

        tagger = open_estimator(options.model)
        if tagger.task != "tag":
            raise ValueError(f"{options.model} holds a model for the task {tagger.task}, but names are found by one for the task tag.")
    found = scrub_file(
        options.data,
        options.out,
        column=options.text,
        tagger=tagger,
        names=not options.no_names,
        show_originals=options.show_originals,
        reading={"encoding": options.encoding},
    )
    if options.json:
        _print_json(found)
        return 0
    counts = [f"{count:,} {kind}" for kind, count in found["replaced"].items() if count]
    _show(f"{found['texts_changed']:,} of {found['rows']:,} texts changed: {', '.join(counts) or 'nothing found'}")
    _show(f"{options.out}; what was replaced: {found['list']}")
    if found["without_text"]:
        _say(f"{found['without_text']:,} rows have no text; they are kept as they are")
    _say("A pattern or tagger misses some: read a sample before you share the file. Other columns were not looked at.")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from slm_helpers.apps.server import ModelServer

    with ModelServer(options.model, port=options.port) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        _say("{task} with {model} at ".format(**server.about) + f"{address}/{'predict' if server.generator is None else 'generate'}")
        server.serve_forever()
    return 0


def _workshop(options: argparse.Namespace) -> int:
    if options.part == "plan":
        from slm_helpers.apps.workshop_plan import plan_workshop

        print(plan_workshop(options.hours, audience=options.audience, numbers=options.notebooks, speed=options.speed), end="")
    elif options.part == "students":
        from slm_helpers.apps.workshop_students import write_student_copies

        people = [name.strip() for name in options.names.split(",") if name.strip()]
        written = write_student_copies(options.out, options.notebooks, people=people)
        _show(f"{len(written)} notebooks in {options.out}; their check cells write scores/ beside them.")
    elif options.part == "board":
        from slm_helpers.apps.workshop_board import write_board

        for row in write_board(options.scores, options.out).itertuples():
            _show(f"{row.who}: {row.passed} of {row.total}")
    elif options.part == "bundle":
        from slm_helpers.apps.workshop_bundle import write_bundle

        _show(f"{write_bundle(options.out, wheels=options.wheels, archive=options.zip, say=_say)} is ready; start.sh or start.bat begins.")
    elif options.part == "quiz":
        from slm_helpers.reports.quiz_page import write_quiz

        _show(f"{write_quiz(options.notebook, options.out)} questions in {options.out}.")
    else:
        return _door()
    return 0


def _door() -> int:
    """Say in one line whether this machine is ready: files as they were packed, and a training step that learns."""
    from slm_helpers._paths import REPO_DIR
    from slm_helpers.apps.workshop_bundle import check_bundle
    from slm_helpers.reports.machine import check_machine

    wrong = check_bundle(REPO_DIR) or [f"{row.name}: {row.found}. {row.advice}" for row in check_machine() if not row.ok]
    green, red, plain = ("\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
    print(f"{red}NOT READY{plain}: {_line('; '.join(wrong[:3]))}" if wrong else f"{green}READY{plain}: this machine runs the workshop.")
    return 1 if wrong else 0


def _download(options: argparse.Namespace) -> int:
    from slm_helpers.data.public import download

    print(download(options.name))
    return 0


def _open_model(
    name: str | None,
    *,
    task: str | None = "lm",
    default: tuple[str, str] = ("slm-base-en", "03_pretraining"),
    engine: str,
):
    """Load a model of a task (None: of any) by folder or pretrained name; without a name, the first of `default`, a pretrained model,
    else what the notebook of the second has left.
    """
    from slm_helpers._paths import PRETRAINED_DIR, RUNS_DIR, check_checkout
    from slm_helpers.generation.opening import open_model
    from slm_helpers.models.folders import model_folder

    candidates = [model_folder(name)] if name else [PRETRAINED_DIR / default[0], RUNS_DIR / default[1]]
    folder = next((folder for folder in candidates if name or (folder / "config.json").exists()), None)
    if folder is None:
        check_checkout(PRETRAINED_DIR)
        raise FileNotFoundError(
            f"There is no model yet. Run `slm run {default[1][:2]}`, which trains one, or name a model folder with --model."
        )
    return open_model(folder, task=task, engine=engine)


def _print_json(value: dict[str, Any]) -> None:
    """Print JSON in one line, without NaN, which JSON has not, and with control characters escaped."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    print(re.sub(r"[\x7f-\x9f\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
