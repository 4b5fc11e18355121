"""One line that says how far a long computation is: on a terminal or in a notebook, gone when the work is done."""

import os
import sys
import time


class ProgressLine:
    """Show a line from the fifth second on, renewed once a second; nothing stays in a log or a saved notebook.

    Set SLM_PROGRESS=off to silence it. tqdm would leave something: its bar for notebooks is a widget that stays in the saved file, and
    without ipywidgets it writes to the error stream, which the file keeps too.
    """

    def __init__(self, *, after_seconds: float = 5.0):
        self._start = self._last = time.monotonic()
        self._after = after_seconds
        self._handle = None
        self._on_terminal = sys.stderr.isatty()
        self._shown = False
        self._off = os.environ.get("SLM_PROGRESS", "").lower() in ("off", "0", "no")

    def update(self, text: str) -> None:
        """Show `text` in place of the line before."""
        now = time.monotonic()
        if self._off or now - self._start < self._after or now - self._last < 1.0:
            return
        self._last = now
        if self._on_terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif _in_notebook():
            from IPython.display import display

            if self._handle is None:
                self._handle = display({"text/plain": text}, raw=True, display_id=True)
            else:
                self._handle.update({"text/plain": text}, raw=True)
        self._shown = True

    def close(self) -> None:
        """Take the line away."""
        if self._shown and self._on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _in_notebook() -> bool:
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return hasattr(get_ipython(), "kernel")
