"""A model behind a small web server on this machine alone: an example for programs in other languages, by the standard library.

    POST /predict   {"rows": ["a text", ...]} or {"rows": [{"source": ...}, ...]}   -> {"predictions": [{"prediction": ...}, ...]}
    POST /generate  {"prompt": "...", "max_tokens": 40, "seed": 1, ...}              -> {"samples": [...]}, of a language model
    GET  /health    -> {"model": ..., "task": ...}

It knows no users and no encryption, and answers no web page of another server: before others may reach it, put one that does in front.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from slm_helpers.generation.generator import TextGenerator
from slm_helpers.generation.opening import open_model
from slm_helpers.models.folders import model_folder, read_config
from slm_helpers.tasks import load

MAX_BYTES = 1_000_000  # of a request
MAX_ROWS = 1000
_SETTINGS = ("max_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "no_repeat_ngram", "seed", "num_samples", "stop")


class ModelServer(ThreadingHTTPServer):
    """Answers requests to one model, several at a time; `serve_forever` and `shutdown` are those of the standard library.

    Args:
        folder: A model folder, or the name of a pretrained model.
        port: Of the loopback address; 0 takes a free one, which `server_port` then tells.
    """

    daemon_threads = True

    def __init__(self, folder: str | Path, *, port: int = 8000):
        folder = model_folder(folder)
        self.about = {"model": folder.name, "task": read_config(folder)["task"]}
        if self.about["task"] == "lm":
            saved = open_model(folder)
            self.generator, self.estimator = TextGenerator(saved.model, saved.tokenizer), None
        else:
            self.generator, self.estimator = None, load(folder, engine="onnx")
        super().__init__(("127.0.0.1", port), _Handler)

    def answer(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return what is sent back; raises LookupError for an address that it has not, ValueError or TypeError for a bad request."""
        if path == "/predict" and self.estimator is not None:
            return {"predictions": self.predict(request.get("rows"))}
        if path == "/generate" and self.generator is not None:
            unknown = set(request) - {"prompt", *_SETTINGS}
            if unknown:
                raise ValueError(f"{sorted(unknown)[0]!r} is no setting; there are prompt, {', '.join(_SETTINGS)}.")
            return {"samples": self.generator.generate(**request).samples}
        raise LookupError(f"{path} is no address of a model for the task {self.about['task']!r}.")

    def predict(self, rows: Any) -> list[dict[str, Any]]:
        """Return prediction and confidence for texts, or for rows with the columns that the task reads."""
        if not isinstance(rows, list) or len(rows) > MAX_ROWS:
            raise ValueError(f'"rows" must be a list of at most {MAX_ROWS} texts or objects.')
        columns, optional = self.estimator.predict_columns, self.estimator.predict_optional
        rows = [{columns[0]: row} if isinstance(row, str) else row for row in rows]
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict) or any(not isinstance(row.get(name, optional.get(name)), str) for name in columns):
                raise ValueError(f"Row {number} needs text for {', '.join(name for name in columns if name not in optional)}.")
        return self.estimator.predict_rows([optional | row for row in rows]) if rows else []


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, self.server.about)
        else:
            self._send(404, {"error": f"{self.path} is no address; there are /health, /predict and /generate."})

    def do_POST(self) -> None:
        if self.headers.get("Origin"):  # a browser sends it along for the page that asks
            self._send(403, {"error": "Pages of other servers may not ask."})
            return
        try:
            size = int(self.headers.get("Content-Length") or -1)
            if not 0 <= size <= MAX_BYTES:
                self._send(413, {"error": f"A request has a Content-Length of at most {MAX_BYTES:,} bytes."})
                return
            request = json.loads(self.rfile.read(size))
            if not isinstance(request, dict):
                raise ValueError("A request is one JSON object.")
            self._send(200, self.server.answer(self.path, request))
        except LookupError as error:
            self._send(404, {"error": str(error)})
        except (ValueError, TypeError) as error:
            self._send(400, {"error": str(error)})

    def log_message(self, *arguments: Any) -> None:
        """Write nothing: a text may be private."""

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
