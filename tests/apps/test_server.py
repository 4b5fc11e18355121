"""A model answers over HTTP on the loopback address, several requests at a time, and refuses bad ones in one line."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

from slm_helpers import Translator
from slm_helpers.apps.server import MAX_BYTES, ModelServer
from slm_helpers.deploy.engine import open_saved
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import save_model
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import pytest


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    tokenizer = train_bpe_tokenizer(["once upon a time there was a cat"], vocab_size=280)
    model = build_language_model(tokenizer.vocab_size, embedding_dim=8, units=8)
    return save_model(tmp_path_factory.mktemp("models") / "writer", model, tokenizer=tokenizer)


@pytest.fixture
def serve():
    """Return a function that starts a server and gives one to ask it by; all are stopped in the end."""
    servers = []

    def start(folder):
        servers.append(ModelServer(folder, port=0))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()

        def ask(method, path, value=None, headers=None):
            connection = HTTPConnection("127.0.0.1", servers[-1].server_port, timeout=60)
            connection.request(method, path, value if isinstance(value, str) else json.dumps(value), headers or {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        return ask

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_translator_answers_many_at_once(serve):
    ask = serve("slm-en-es")
    assert ask("GET", "/health") == (200, {"model": "slm-en-es", "task": "translate"})
    texts = ["Good morning.", "Where is the station?", "My brother has a new car."] * 4
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda text: ask("POST", "/predict", {"rows": [text]}), texts))
    expected = Translator.load("slm-en-es", engine="onnx").translate(texts)
    assert [(status, value["predictions"][0]) for status, value in found] == [(200, row) for row in expected]
    assert ask("POST", "/predict", {"rows": [{"source": "Good morning.", "target_language": "es"}]})[1]["predictions"] == expected[:1]
    assert ask("POST", "/predict", {"rows": []}) == (200, {"predictions": []})


def test_a_language_model_writes(serve, writer):
    ask, saved = serve(writer), open_saved(writer)
    expected = TextGenerator(saved.model, saved.tokenizer).generate("a cat", max_tokens=8, seed=3, num_samples=2).samples
    assert ask("POST", "/generate", {"prompt": "a cat", "max_tokens": 8, "seed": 3, "num_samples": 2}) == (200, {"samples": expected})


@pytest.mark.parametrize(
    ("path", "value", "status", "message"),
    [
        ("/generate", {"prompt": 3}, 400, "must be a string"),
        ("/generate", {"prompt": "a", "warmth": 1}, 400, "'warmth' is no setting"),
        ("/generate", {"prompt": "a", "temperature": -1}, 400, "temperature is -1"),
        ("/generate", [1], 400, "one JSON object"),
        ("/generate", "{", 400, "Expecting"),
        ("/predict", {"rows": ["a"]}, 404, "no address of a model for the task 'lm'"),
        ("/generate", "x" * (MAX_BYTES + 1), 413, "at most 1,000,000 bytes"),
    ],
)
def test_bad_requests_are_told(serve, writer, path, value, status, message):
    found, answer = serve(writer)("POST", path, value)
    assert found == status and message in answer["error"]


def test_pages_of_other_servers_are_refused(serve, writer):
    assert serve(writer)("POST", "/generate", {"prompt": "a"}, {"Origin": "http://example.org"})[0] == 403


@pytest.mark.parametrize(("rows", "message"), [("text", "must be a list"), ([3], "Row 1 needs text for source"), ([{}], "Row 1 needs")])
def test_bad_rows_are_told(serve, rows, message):
    status, answer = serve("slm-en-es")("POST", "/predict", {"rows": rows})
    assert status == 400 and message in answer["error"]
