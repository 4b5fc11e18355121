"""The example in the docstring of every estimator runs, on tiny data, and gives what it says."""

import doctest
import importlib

from slm_helpers.tasks import TASKS

import pytest


@pytest.mark.parametrize("task", TASKS)
def test_the_example_of_the_docstring_holds(task):
    module, name = TASKS[task]
    module = importlib.import_module(f"slm_helpers.tasks.{module}")
    if not hasattr(module, name):
        pytest.skip(f"{name} is not written yet")
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(module, name), name, module)
    assert example.examples, f"{name} has no example"
    result = doctest.DocTestRunner().run(example)
    assert result.failed == 0
