"""Ending in good order when asked to: what a command has begun is taken back, also on SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143) inside the block, so that `finally` clauses end children and remove parts of files.

    Without it a process that is sent SIGTERM (by `kill`, a scheduler or a shutdown) is gone at once and leaves both behind. Signals
    reach the main thread only; elsewhere the block runs as it would without.
    """

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
