"""Settings of all tests."""

import os
import signal

import pytest


def pytest_configure():
    """Hear Ctrl-C where the shell that started the tests told them not to, as it does in the background: some tests press it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Keep what is made anew for each model out of the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        if "SLM_CACHE_DIR" not in os.environ:
            patch.setenv("SLM_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_collection_modifyitems(items):
    """Begin with the slow tests, so that none of them is still at work when all others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
