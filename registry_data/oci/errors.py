"""What can go wrong for a client of the data plane, in the distribution spec's words.

The codes are those of checklist 142: the spec's own list, and the few outside it that clients know.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from http import HTTPStatus
from typing import Final, Self, TypeAlias

DetailValue: TypeAlias = str | int | Sequence[str]

_SHOWN_LENGTH: Final = 80


@unique  # two codes with equal values would silently become one member
class ErrorCode(Enum):
    """The spec's codes, each with the status and the text that this registry sends unless told otherwise."""

    BLOB_UNKNOWN = HTTPStatus.NOT_FOUND, "this repository has no such blob"
    BLOB_UPLOAD_INVALID = HTTPStatus.BAD_REQUEST, "the upload cannot go on like this; start a new one"
    BLOB_UPLOAD_UNKNOWN = HTTPStatus.NOT_FOUND, "no such upload here, or it has expired; start a new one"
    DENIED = HTTPStatus.FORBIDDEN, "requested access to the resource is denied"
    DIGEST_INVALID = HTTPStatus.BAD_REQUEST, "the digest is malformed, or is not that of the content sent"
    MANIFEST_BLOB_UNKNOWN = (
        HTTPStatus.BAD_REQUEST,
        "the manifest names content that this repository lacks; push that first",
    )
    MANIFEST_INVALID = HTTPStatus.BAD_REQUEST, "the manifest is not one that this registry can store"
    MANIFEST_UNKNOWN = HTTPStatus.NOT_FOUND, "this repository has no such manifest or tag"
    NAME_INVALID = HTTPStatus.BAD_REQUEST, "the repository's name is malformed"
    NAME_UNKNOWN = HTTPStatus.NOT_FOUND, "this registry has no such repository"
    PAGINATION_NUMBER_INVALID = HTTPStatus.BAD_REQUEST, "n must be a whole number, 0 or more"
    RANGE_INVALID = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "the range does not fit the content"
    SIZE_INVALID = HTTPStatus.BAD_REQUEST, "the length announced is not the length sent"
    TAG_INVALID = HTTPStatus.BAD_REQUEST, "the tag is malformed"
    TOOMANYREQUESTS = HTTPStatus.TOO_MANY_REQUESTS, "too many requests; try again later"
    UNAUTHORIZED = HTTPStatus.UNAUTHORIZED, "authentication required; log in to this registry first"
    UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE, "the registry cannot do this just now; try again later"
    UNKNOWN = HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the registry's log says more"
    UNSUPPORTED = HTTPStatus.METHOD_NOT_ALLOWED, "this registry does not support the operation here"

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class ErrorItem:
    """One entry of the answer's `errors` list (checklist 141)."""

    code: ErrorCode
    message: str
    detail: Mapping[str, DetailValue] = field(default_factory=dict)


class ProtocolError(Exception):
    """What a client did wrong, or could not have; the HTTP layer turns it into the answer.

    raise ProtocolError(ErrorCode.DIGEST_INVALID, expected=claimed, got=computed)
    raise ProtocolError(ErrorCode.MANIFEST_INVALID, "too large", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    `errors` always holds at least one entry; `code`, `message` and `detail` are those of the first. `status`
    is the code's own unless given, `headers` go out with the answer.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str | None = None,
        *,
        status: HTTPStatus | None = None,
        headers: Mapping[str, str] | None = None,
        **detail: DetailValue,
    ) -> None:
        super().__init__(code, message)
        self.errors: tuple[ErrorItem, ...] = (ErrorItem(code, message or code.message, detail),)
        self.status = status or code.status
        self.headers = dict(headers or {})

    @classmethod
    def several(cls, errors: Iterable[ErrorItem]) -> Self:
        """Make one answer of several errors; the first decides its status.

        Raises ValueError without any.
        """
        items = tuple(errors)
        if not items:
            raise ValueError("an error answer needs at least one error")
        error = cls(items[0].code, items[0].message)
        error.errors = items
        return error

    @property
    def code(self) -> ErrorCode:
        """The first error's code."""
        return self.errors[0].code

    @property
    def message(self) -> str:
        """The first error's text, for people to read."""
        return self.errors[0].message

    @property
    def detail(self) -> Mapping[str, DetailValue]:
        """The first error's facts, for programs to read."""
        return self.errors[0].detail

    def __str__(self) -> str:
        return "; ".join(f"{item.code.name}: {item.message}" for item in self.errors)


def shown(text: str) -> str:
    """Quote what a client sent so that a message can repeat it: escaped, and cut when long."""
    return repr(text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}...")
