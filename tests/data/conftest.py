import pytest


@pytest.fixture
def write(tmp_path):
    """Return a function that writes text or bytes to a file in tmp_path and returns its path."""

    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write_file
