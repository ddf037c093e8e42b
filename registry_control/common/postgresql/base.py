"""Django's PostgreSQL backend: whether a kept connection still stands is seen, not asked."""

from select import POLLIN, poll

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection."""

    def is_usable(self) -> bool:
        """Whether the connection still stands.

        A server that ends one says so on it, or its kernel does, and says nothing else while it rests. So
        only where something has come must it be asked, which took every use case a turn to it and back.
        """
        here = self.connection
        if here is not None and not here.closed and not _has_come(here.fileno()):
            return True
        return super().is_usable()


def _has_come(descriptor: int) -> bool:
    """Whether there is something to read, the end included."""
    waiting = poll()
    waiting.register(descriptor, POLLIN)
    return bool(waiting.poll(0))
