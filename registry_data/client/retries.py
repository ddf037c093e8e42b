"""Repeats within one transfer. What fails after them is left to the caller, who may repeat much later."""

from time import sleep
from typing import Final

from registry_data.client.errors import RemoteUnavailable

_ATTEMPTS: Final = 4  # in a row without progress
_FIRST_PAUSE: Final = 0.5  # seconds before the second attempt; doubled for each further one
_LONGEST_PAUSE: Final = 5.0  # seconds


class Retries:
    """Counts the failures of one transfer; progress starts the count again."""

    def __init__(self) -> None:
        self._failures = 0
        self._furthest = 0

    def pause(self, error: RemoteUnavailable, *, at: int) -> None:
        """Sleep before another attempt to continue after `at` bytes.

        Raises:
            RemoteUnavailable: `error`, after several attempts without progress, or if the registry asked for
                a longer pause than a transfer may take.
        """
        asked = error.retry_after or 0.0
        if at > self._furthest:
            self._failures, self._furthest = 0, at
        self._failures += 1
        if self._failures == _ATTEMPTS or asked > _LONGEST_PAUSE:
            raise error
        own: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._failures - 1))
        sleep(max(asked, own))
