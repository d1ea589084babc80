"""For the tests of the pool."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def collections_leave_out_what_exists():
    """Some tests here collect garbage thousands of times, and each collection would walk through what other tests have left."""
    gc.collect()
    gc.freeze()
