"""Settings of all tests."""

import signal


def pytest_configure():
    """Hear Ctrl-C where the shell that started the tests told them not to, as it does in the background: some tests press it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Begin with the slow tests, so that none of them is still at work when all others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
