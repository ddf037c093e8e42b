"""Waiting for what a running product is about to do."""

import time
from collections.abc import Callable

import httpx


def wait_until(condition: Callable[[], bool], *, timeout: float = 30) -> None:
    """Ask again and again, for `timeout` seconds; a request that fails counts as not yet.

    Raises:
        AssertionError: it did not become true.
    """
    deadline = time.monotonic() + timeout
    while not _holds(condition):
        assert time.monotonic() < deadline, f"not true within {timeout:g} s"
        time.sleep(0.02)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except httpx.HTTPError:
        return False
