"""Start processes that work together on this machine, hear their reports, and end all of them whatever happens.

A worker is a command that reads one JSON line from its standard input and writes JSON lines, its reports, to its standard output. Its
input stays open while its launcher lives: a worker that reads the end of it is alone, and ends too, also after `kill -9` of the launcher.
"""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

LOOPBACK = "127.0.0.1"  # the only address that workers of one machine use
_LAUNCHED = "SLM_LAUNCHED"  # set for a worker whose input stays open while its launcher lives
_GRACE = 5.0  # seconds from SIGTERM to SIGKILL
# A process that holds a network with the loopback device alone, until its input ends. 0x8914: SIOCSIFFLAGS; 0x49: up, loopback, running.
_HOLD_NETWORK = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x49))
print("up", flush=True)
sys.stdin.read()
"""


class WorkersFailed(RuntimeError):
    """A worker died, failed or hung; all others were ended. `rank` says which one (None if none has reported for too long)."""

    def __init__(self, message: str, rank: int | None = None):
        super().__init__(message)
        self.rank = rank


def run_workers(
    commands: Sequence[Sequence[str]],
    inputs: Sequence[Any],
    *,
    environments: Sequence[dict[str, str]] | None = None,
    prefix: Sequence[str] = (),
    start_timeout: float = 180.0,
    step_timeout: float = 60.0,
    may_fail: int = 0,
    on_report: Callable[[dict[str, Any]], None] = lambda report: None,
) -> None:
    """Run workers side by side until all have ended; at the end, also of an error, none is left.

    Args:
        commands: One a worker; its place is the worker's rank.
        inputs: What each worker gets as its one line of JSON.
        environments: Variables of each worker beside those of this process.
        prefix: Put before each command, e.g. from `private_loopback`.
        start_timeout: Seconds until the first report at the latest.
        step_timeout: Seconds from one report of any worker to the next at the latest.
        may_fail: Workers that may end with an exit code other than 0 while the others go on, for work that needs no company.
        on_report: Told every report, with `rank` and `pid` of its worker added; and {"failed": how} of a worker that may fail.

    Raises:
        WorkersFailed: If one worker more ends with an exit code other than 0, or none reports in time.
    """
    environments = environments or [{} for _ in commands]
    reports: queue.SimpleQueue = queue.SimpleQueue()
    workers: list[_Worker] = []
    try:
        for rank, (command, value, more) in enumerate(zip(commands, inputs, environments, strict=True)):
            workers.append(_Worker(rank, [*prefix, *command], value, os.environ | more | {_LAUNCHED: "1"}, reports))
        _follow(workers, reports, start_timeout, step_timeout, may_fail, on_report)
    finally:
        _end(workers)


def _follow(
    workers: list["_Worker"],
    reports: queue.SimpleQueue,
    start_timeout: float,
    step_timeout: float,
    may_fail: int,
    on_report: Callable[[dict[str, Any]], None],
) -> None:
    left, timeout = {worker.rank for worker in workers}, start_timeout
    heard = time.monotonic()
    while left:
        try:
            rank, report = reports.get(timeout=max(0.01, timeout - (time.monotonic() - heard)))
        except queue.Empty:
            raise WorkersFailed(f"No worker has reported for {timeout:g} s, and {len(left)} of {len(workers)} are not done.") from None
        if report is not None:
            heard, timeout = time.monotonic(), step_timeout
            on_report(report | {"rank": rank, "pid": workers[rank].process.pid})
            continue
        left.discard(rank)
        if how := workers[rank].failure():
            may_fail -= 1
            if may_fail < 0:
                raise WorkersFailed(f"Worker {rank} of {len(workers)} {how}", rank)
            on_report({"failed": how, "rank": rank, "pid": workers[rank].process.pid})


class _Worker:
    """A process, a thread that reads its reports, and a file for its error stream."""

    def __init__(self, rank: int, command: list[str], value: Any, environment: dict[str, str], reports: queue.SimpleQueue):
        self.rank = rank
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed with the worker
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, env=environment, text=True, encoding="utf-8", errors="replace", **pipes)
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout, reports), daemon=True)
        self.reader.start()
        with suppress(BrokenPipeError):  # it has ended already; its exit code says how
            self.process.stdin.write(json.dumps(value) + "\n")
            self.process.stdin.flush()

    def _read(self, lines: IO[str], reports: queue.SimpleQueue) -> None:
        for line in lines:
            try:
                reports.put((self.rank, dict(json.loads(line))))
            except (ValueError, TypeError):
                print(line, end="", file=self.errors)  # a library that writes to standard output
        reports.put((self.rank, None))

    def failure(self) -> str:
        """Return how the process ended, with the last line of its error stream; "" if it ended well."""
        code = self.process.wait()
        self.errors.seek(0)
        last = next((line.strip() for line in reversed(self.errors.read().splitlines()) if line.strip()), "")[:500]
        how = f"was ended by {signal.Signals(-code).name}." if code < 0 else f"ended with exit code {code}."
        return f"{how} {last}".strip() if code else ""


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.terminate()
            if hasattr(signal, "SIGCONT"):
                worker.process.send_signal(signal.SIGCONT)  # a stopped process hears SIGTERM when it goes on
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()  # it does not hear SIGTERM, or does not obey
            worker.process.wait()
        worker.reader.join()
        for stream in (worker.process.stdin, worker.process.stdout, worker.errors):
            with suppress(BrokenPipeError):
                stream.close()


def connect_to_launcher() -> tuple[Any, Callable[[dict[str, Any]], None]]:
    """In a worker: return its input and the function that reports; from now on the process ends when its launcher does, if it has one.

    Whatever else is printed goes to the error stream. A worker without a launcher gets its input from a file: `worker < input.json`.
    """
    value = json.loads(sys.stdin.readline())
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def end_with_launcher() -> None:
        sys.stdin.read()
        os._exit(1)

    def report(values: dict[str, Any]) -> None:
        stream.write(json.dumps(values) + "\n")
        stream.flush()

    if _LAUNCHED in os.environ:
        threading.Thread(target=end_with_launcher, daemon=True).start()
    return value, report


@contextmanager
def private_loopback() -> Iterator[list[str]]:
    """Yield what to put before a command so that it runs in a network of its own, which consists of 127.0.0.1: nobody else reaches it.

    Workers started with one prefix share that network. It takes Linux with user namespaces; elsewhere the prefix is empty, and the
    workers use the loopback address of the machine.
    """
    holder = None
    if sys.platform == "linux" and shutil.which("unshare") and shutil.which("nsenter"):
        command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", _HOLD_NETWORK]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if holder is None or holder.stdout.readline() != "up\n":
            yield []
        else:
            yield ["nsenter", "--preserve-credentials", "--user", "--net", "--target", str(holder.pid)]
    finally:
        if holder is not None:
            holder.kill()
            holder.communicate()


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that are free now, chosen by the system."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
