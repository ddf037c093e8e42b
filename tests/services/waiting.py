"""Waits for conditions of a running product."""

import time
from collections.abc import Callable

import httpx


def wait_until(condition: Callable[[], bool], *, timeout: float = 30) -> None:
    """Evaluate a condition repeatedly until it is true. A failed HTTP request counts as false.

    Raises:
        AssertionError: it did not become true within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not _holds(condition):
        assert time.monotonic() < deadline, f"not true within {timeout:g} s"
        time.sleep(0.05)  # Many conditions open a connection.


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except httpx.HTTPError:
        return False
