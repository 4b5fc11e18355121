"""Settings of all tests."""


def pytest_collection_modifyitems(items):
    """Begin with the slow tests, so that none of them is still at work when all others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
