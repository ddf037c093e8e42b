from collections.abc import Callable
from typing import ParamSpec, TypeVar

from registry_data.oci.errors import ProtocolError

P = ParamSpec("P")
T = TypeVar("T")


def outcome(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | ProtocolError:
    """The result of the call, or the one kind of error that it may raise; any other error fails the test."""
    try:
        return call(*args, **kwargs)
    except ProtocolError as refused:
        return refused
