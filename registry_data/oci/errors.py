"""The errors of the data plane, with the codes of the OCI distribution specification.

ErrorCode contains the codes of the specification and a few others that clients know (OCI 142).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from http import HTTPStatus
from typing import Final, Self, TypeAlias

DetailValue: TypeAlias = str | int | Sequence[str]

_SHOWN_LENGTH: Final = 80


@unique  # without it, two codes with equal values would be one member
class ErrorCode(Enum):
    """An error code with its default HTTP status and message."""

    BLOB_UNKNOWN = HTTPStatus.NOT_FOUND, "this repository has no such blob"
    BLOB_UPLOAD_INVALID = HTTPStatus.BAD_REQUEST, "the upload cannot be continued like this; start a new one"
    BLOB_UPLOAD_UNKNOWN = HTTPStatus.NOT_FOUND, "no such upload here, or it has expired; start a new one"
    DENIED = HTTPStatus.FORBIDDEN, "requested access to the resource is denied"
    DIGEST_INVALID = HTTPStatus.BAD_REQUEST, "the digest is malformed, or does not match the content"
    MANIFEST_BLOB_UNKNOWN = (
        HTTPStatus.BAD_REQUEST,
        "the manifest refers to content that this repository does not have; push that first",
    )
    MANIFEST_INVALID = HTTPStatus.BAD_REQUEST, "the manifest is invalid"
    MANIFEST_UNKNOWN = HTTPStatus.NOT_FOUND, "this repository has no such manifest or tag"
    NAME_INVALID = HTTPStatus.BAD_REQUEST, "the name of the repository is malformed"
    NAME_UNKNOWN = HTTPStatus.NOT_FOUND, "this registry has no such repository"
    PAGINATION_NUMBER_INVALID = HTTPStatus.BAD_REQUEST, "n must be an integer, 0 or more"
    RANGE_INVALID = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "the range is not part of the content"
    SIZE_INVALID = HTTPStatus.BAD_REQUEST, "the length of the body does not match the announced length"
    TAG_INVALID = HTTPStatus.BAD_REQUEST, "the tag is malformed"
    TOOMANYREQUESTS = HTTPStatus.TOO_MANY_REQUESTS, "too many requests; try again later"
    UNAUTHORIZED = HTTPStatus.UNAUTHORIZED, "authentication required; log in to this registry first"
    UNAVAILABLE = (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the registry is temporarily unable to do this; try again later",
    )
    UNKNOWN = HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the log of the registry has details"
    UNSUPPORTED = HTTPStatus.METHOD_NOT_ALLOWED, "this registry does not support the operation here"

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class ErrorItem:
    """One entry of the `errors` list in an error response (OCI 141)."""

    code: ErrorCode
    message: str
    detail: Mapping[str, DetailValue] = field(default_factory=dict)


class ProtocolError(Exception):
    """A request that cannot be fulfilled; the HTTP layer converts it to an error response.

    raise ProtocolError(ErrorCode.DIGEST_INVALID, expected=claimed, got=computed)
    raise ProtocolError(ErrorCode.MANIFEST_INVALID, "too large", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    `errors` has at least one entry; `code`, `message` and `detail` are those of the first. `status` defaults
    to the status of the code; `headers` are sent with the response.
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
            raise ValueError("an error response needs at least one error")
        error = cls(items[0].code, items[0].message)
        error.errors = items
        return error

    @property
    def code(self) -> ErrorCode:
        """The code of the first error."""
        return self.errors[0].code

    @property
    def message(self) -> str:
        """The message of the first error, for people."""
        return self.errors[0].message

    @property
    def detail(self) -> Mapping[str, DetailValue]:
        """The details of the first error, for programs."""
        return self.errors[0].detail

    def __str__(self) -> str:
        return "; ".join(f"{item.code.name}: {item.message}" for item in self.errors)


def shown(text: str) -> str:
    """Quote text of a client for an error message: escaped, and truncated when long."""
    return repr(text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}...")
