"""Feast is imported once, the quick way, before anything imports it the slow way."""

import pytest

from tasks.features.light import import_feast


@pytest.fixture(scope="session", autouse=True)
def feast():
    return import_feast()
