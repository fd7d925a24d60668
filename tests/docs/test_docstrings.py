"""The examples in the docstrings. Those of PyKEEN, R and process groups need what this test does without."""

import doctest
import importlib

import pytest


# Catches: an example that raises, warns or prints something else, and a module whose examples are gone.
@pytest.mark.parametrize("module", ["core", "composer", "lucid", "torch.functional", "torch.modules"])
def test_examples_print_what_they_show(module):
    found = doctest.testmod(importlib.import_module(f"bce_bridge.{module}"))
    assert found.attempted and not found.failed
