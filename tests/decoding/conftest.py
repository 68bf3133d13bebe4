"""Readers of decord end with the tests that opened them."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_readers_of_other_modules() -> Iterator[None]:
    """Free the readers that tracebacks of earlier tests hold.

    Their threads would report problems of damaged files while a test opens another file, which is then left to PyAV.
    """
    gc.collect()
    yield
    gc.collect()
