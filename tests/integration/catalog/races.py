"""Two real database connections at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection, transaction

# SQLite has one writer at a time and cannot show these races.
needs_postgresql = pytest.mark.only_on("postgresql")


@dataclass
class Other:
    """A call in a thread with its own database connection, and its outcome."""

    call: Callable[[], Any]
    result: Any = None
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error
        finally:
            connection.close()

    @property
    def waits(self) -> bool:
        """Whether the call is still blocked after the time that it needs without a lock."""
        self.thread.join(0.5)
        return self.thread.is_alive()

    def end(self) -> Any:
        self.thread.join(20)
        assert not self.thread.is_alive(), "it never ended"
        if self.error is not None:
            raise self.error
        return self.result


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls concurrently; return what each returned or raised."""
    barrier = threading.Barrier(len(calls))

    def started(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            barrier.wait()
            return call()

        return run

    others = [Other(started(call)) for call in calls]
    for other in others:
        other.thread.join(30)
    return [other.error or other.result for other in others]


@contextmanager
def open_transaction() -> Iterator[None]:
    """A transaction that is committed at the end of the `with` block."""
    with transaction.atomic():
        yield
