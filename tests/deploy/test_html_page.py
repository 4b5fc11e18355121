"""A model as a page computes in JavaScript what it computes here; the page works in a browser, if there is one on this machine."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

from slm_helpers import TextClassifier
from slm_helpers._paths import PRETRAINED_DIR
from slm_helpers.cli import main
from slm_helpers.deploy import html_page
from slm_helpers.deploy.html_page import export_html, page_weights
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.generation.runtime import Runtime
from slm_helpers.models.folders import read_config
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import load_model, save_model
from slm_helpers.models.stored import read_weights
from slm_helpers.text.hashing import hash_ngrams
from slm_helpers.text.tokenizers import Tokenizer, train_bpe_tokenizer, train_char_tokenizer

import numpy as np
import pytest

NODE, BROWSER = shutil.which("node"), shutil.which("chromium") or shutil.which("google-chrome")
SCRIPT = Path(html_page.__file__).with_name("page") / "network.js"
TEXTS = [
    "The boy ran to the river, and found\n\n  a little boat!",
    "I'll say they've 25 cafés – naïve, isn't it? a an I",
    "日本語のテキスト 🙂👍🏽 Straße ЁЛКА",
    "  two  spaces\tand a tab ",
    "x",
]
needs_node = pytest.mark.skipif(NODE is None, reason="no node on this machine")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


def run_node(code: str, **values):
    """Return what a piece of JavaScript, which knows `slm` and the values, gives."""
    program = (
        f"const slm = require({json.dumps(str(SCRIPT))});\nconst {{{', '.join(values)}}} = JSON.parse(require('fs').readFileSync(0));\n"
    )
    program += f"console.log(JSON.stringify((() => {{ {code} }})()));"
    process = subprocess.run([NODE, "-e", program], input=json.dumps(values), capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def model_of(page: Path) -> dict:
    return json.loads(re.search(r'id="model">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1])


def random_model(folder: Path, tokenizer=None, **sizes) -> Path:
    tokenizer = tokenizer or train_bpe_tokenizer(TEXTS, vocab_size=300)
    model = build_language_model(tokenizer.vocab_size, **{"embedding_dim": 10, "units": 14} | sizes)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return save_model(folder, model, tokenizer=tokenizer)


@needs_node
@pytest.mark.parametrize("folder", [PRETRAINED_DIR / "slm-base-en", None])
def test_tokens_are_the_same(folder, tmp_path):
    tokenizer = Tokenizer.load(folder / "tokenizer.json") if folder else train_char_tokenizer(TEXTS)
    tokenizer.save(tmp_path / "t.json")
    code = "const t = new slm.Tokenizer(file); return texts.map((x) => [t.encode(x), t.decode(t.encode(x))]);"
    found = run_node(code, file=json.loads((tmp_path / "t.json").read_text(encoding="utf-8")), texts=TEXTS)
    assert found == [[tokenizer.encode(text).tolist(), text] for text in TEXTS]


@needs_node
def test_hashed_ngrams_are_the_same():
    texts = [*TEXTS, " ".join(f"word{i} {i * i}" for i in range(2000))]
    found = run_node("return texts.map((x) => slm.hashNgrams(x, 4096 * 16));", texts=texts)
    for ours, theirs in zip(found, hash_ngrams(texts, num_buckets=4096 * 16), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@needs_node
@pytest.mark.parametrize("sizes", [{}, {"cell": "lstm", "num_layers": 2}, {"cell": "rnn", "tie_embeddings": False}, {"units": 10}])
def test_a_language_model_scores_as_with_its_rounded_weights(tmp_path, sizes):
    folder = random_model(tmp_path / "model", **sizes)
    (page,) = export_html(folder, tmp_path / "m.html")
    ids = load_model(folder).tokenizer.encode("The boy ran").tolist()
    code = """const m = new slm.LanguageModel(file); let s = m.start();
    return ids.map((id) => { s = m.read(id, s); return Array.from(m.logits(s)); });"""
    config = read_config(folder)
    runtime = Runtime(config["arguments"], page_weights(read_weights(folder, config)))
    features, _ = runtime.read(np.array([ids]), runtime.zero_states(1))
    np.testing.assert_allclose(run_node(code, file=model_of(page), ids=ids), runtime.logits(features[0]), atol=1e-3)


@needs_node
def test_tokens_are_drawn_by_temperature_and_top_p():
    logits = np.log([0.05, 0.05, 0.4, 0.3, 0.15, 0.05]).tolist()
    code = "return settings.map((s) => Array.from(slm.nextProbabilities(logits, s)));"
    settings = [
        {"temperature": 1, "topP": 1},
        {"temperature": 0, "topP": 1},
        {"temperature": 1, "topP": 0.7},
        {"temperature": 0.5, "topP": 1},
    ]
    plain, greedy, nucleus, cold = np.array(run_node(code, logits=logits, settings=settings))
    np.testing.assert_allclose(plain, np.array([0, 0, 0.4, 0.3, 0.15, 0.05]) / 0.9, atol=1e-6)
    assert greedy.tolist() == [0, 0, 1, 0, 0, 0]
    np.testing.assert_allclose(nucleus, np.array([0, 0, 4, 3, 0, 0]) / 7, atol=1e-6)
    np.testing.assert_allclose(cold, np.array([0, 0, 16, 9, 2.25, 0.25]) / 27.5, atol=1e-6)
    code = "const r = slm.randomNumbers(3); return Array.from({ length: 4000 }, () => slm.draw(shares, r()));"
    drawn = np.bincount(run_node(code, shares=plain.tolist()), minlength=6) / 4000
    np.testing.assert_allclose(drawn, plain, atol=0.03)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    texts = [f"{word} {text}" for word in ("good", "fine", "bad", "poor") for text in TEXTS]
    model = TextClassifier(base=None, epochs=2).fit(texts, ["+"] * 10 + ["-"] * 10)
    model.saved_.settings["temperature"] = 1.5
    return model, model.save(tmp_path_factory.mktemp("models") / "classifier")


@needs_node
def test_a_classifier_gives_the_same_probabilities(classifier, tmp_path):
    model, folder = classifier
    (page,) = export_html(folder, tmp_path / "m.html")
    code = "const m = new slm.TextClassifier(file); return texts.map((x) => Array.from(m.probabilities(x)));"
    texts = [*TEXTS, "good " * 400, "bad"]
    np.testing.assert_allclose(run_node(code, file=model_of(page), texts=texts), model.predict_proba(texts), atol=0.02)


def in_browser(page: Path, fragment: str) -> str:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    for _ in range(3):  # on a busy machine a browser may end before it has shown anything
        dom = subprocess.run([*command, f"{page.as_uri()}#{fragment}"], capture_output=True, text=True, timeout=300).stdout
        if "<textarea" in dom:
            break
    return dom


@needs_browser
def test_the_page_writes_what_greedy_choice_writes_here(tmp_path):
    folder = random_model(tmp_path / "model")
    assert main(["export", "--model", str(folder), "--to", "html", "--out", str(tmp_path / "m.html")]) == 0
    config, tokenizer = read_config(folder), load_model(folder).tokenizer
    generator = TextGenerator(Runtime(config["arguments"], page_weights(read_weights(folder, config))), tokenizer)
    expected = generator.generate("The boy", max_tokens=20, temperature=0)
    dom = in_browser(tmp_path / "m.html", "text=The%20boy&temperature=0&length=20&go")
    written = html.unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", dom, re.DOTALL)[1])
    assert written == f"The boy{expected.samples[0]}"
    assert f"{expected.num_tokens} tokens in" in dom and 'class="drawing"' in dom


@needs_browser
def test_the_page_of_a_classifier_shows_classes_and_words(classifier, tmp_path):
    model, folder = classifier
    export_html(folder, tmp_path / "m.html")
    dom = in_browser(tmp_path / "m.html", "text=a%20good%20little%20boat")
    shown = re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td>", dom)
    assert {name for name, _ in shown} == {"+", "-", "a", "good", "little", "boat"}
    best = model.predict_proba(["a good little boat"])[0].max()
    assert float(shown[0][1].removesuffix(" %")) == pytest.approx(100 * best, abs=2)


def test_what_has_no_page_is_one_line_and_leaves_nothing(tmp_path, capsys):
    folder = random_model(tmp_path / "model")
    bare = save_model(tmp_path / "bare", load_model(folder).model)
    for name, out, message in (
        ("slm-en-es", "m.html", "there is no page for models of build_encoder_decoder"),
        (folder, "m.onnx", "a file with the ending .html"),
        (bare, "m.html", "has no tokenizer.json"),
    ):
        assert main(["export", "--model", str(name), "--to", "html", "--out", str(tmp_path / out)]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert not list(tmp_path.glob("m.*"))


def test_nothing_in_a_model_can_leave_its_place_in_the_page(tmp_path):
    tokenizer = train_char_tokenizer(["</script><script>alert(1)</script>"])
    folder = random_model(tmp_path / "<b>model", tokenizer)
    (page,) = export_html(folder, tmp_path / "m.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 2 and "<b>" not in text and "default-src 'none'" in text
    assert len(model_of(page)["tokenizer"]["model"]["vocab"]) == tokenizer.vocab_size
