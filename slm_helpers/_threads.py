"""How many threads matrix products run in."""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_users = 0
_limit: Any = None


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Run NumPy's matrix products in one thread within the block; blocks may overlap, in one thread or in several.

    Decoding is a chain of small products. Two threads of the matrix library wait for each other by spinning, so one other busy process
    makes such products 5 to 20 times slower; one thread has nobody to wait for.
    """
    global _users, _limit
    with _lock:
        _users += 1
        if _users == 1:
            _limit = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _limit.restore_original_limits()


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # looks through all loaded libraries, once

    return ThreadpoolController()
