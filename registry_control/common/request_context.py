"""The request that the present code works for: its id, and its principal once that is known.

A server starts a context for each request; use cases, audit rows and log lines read it. Threads and greenlets
that work for the request see the same object.
"""

import logging
import random
import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_ACCEPTED: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NO_REQUEST: Final = "-"


@dataclass(slots=True)
class RequestContext:
    """One request of either plane."""

    request_id: str
    principal: str = ""  # kind and id, such as `user:7d44...`; empty while unknown and for anonymous callers


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def new(incoming_id: str | None) -> RequestContext:
    """Make the context of a new request; its client or a proxy may have sent an id.

    An id of other than 1 to 128 characters of A-Z, a-z, 0-9, dot, underscore and hyphen is replaced.
    """
    accepted = incoming_id and _ACCEPTED.fullmatch(incoming_id)
    return RequestContext(incoming_id if accepted and incoming_id else _new_id())


def use(context: RequestContext) -> None:
    """Let the code that runs from now on in this task or thread see the context."""
    _current.set(context)


def start(incoming_id: str | None) -> RequestContext:
    """Make the context of a new request and use it."""
    context = new(incoming_id)
    use(context)
    return context


def _new_id() -> str:
    """128 random bits. They need not be hard to predict: an id is no secret, and a client may choose its own.

    A system call for each id would cost several times as much. The module gives forked processes other seeds.
    """
    return random.randbytes(16).hex()  # noqa: S311


def end() -> None:
    """End the context of the request, in a thread that will process another one."""
    _current.set(None)


def current() -> RequestContext | None:
    """The present request; None in the worker, in commands and while a server starts."""
    return _current.get()


def request_id() -> str | None:
    """The present request's id, if there is a request."""
    context = _current.get()
    return None if context is None else context.request_id


def identified(principal: str) -> None:
    """Note who makes the present request."""
    context = _current.get()
    if context is not None:
        context.principal = principal


class RequestIdFilter(logging.Filter):
    """Adds `request_id` to every log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        record.request_id = request_id() or _NO_REQUEST
        return True
