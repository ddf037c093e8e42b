"""Requests that the HTTP server rejects, which the plane answers in its own error format."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.types import Scope

_EXTENSION: Final = "stowage.rejection"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a request is rejected: a status 4xx or 5xx, and a message for the client."""

    status: HTTPStatus
    message: str


def mark_rejected(scope: Scope, rejection: Rejection) -> None:
    """Have the application answer with an error, whatever else the scope says."""
    scope["extensions"] = {_EXTENSION: rejection}


def rejection_of(scope: Scope) -> Rejection | None:
    """The reason for which the server has rejected this request; None if it has not."""
    extensions = scope.get("extensions")
    return extensions.get(_EXTENSION) if extensions else None
