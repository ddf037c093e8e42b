"""Conditional requests; the entity tag of content is its digest (checklist 36, 46)."""

from http import HTTPStatus

from registry_data.http.messages import Request
from registry_data.oci.errors import ErrorCode, ProtocolError, shown
from registry_data.oci.preconditions import Preconditions, matches, parse_preconditions


def check_match(request: Request, digest: str) -> None:
    """Hold a read of this content to its If-Match (RFC 9110, section 13.1.1).

    Raises:
        ProtocolError: 412; it names other content only.
    """
    header = _whole(request, "if-match")
    if header is not None and not matches(header, digest, weak=False):
        message = f"what is here is {digest}, not {shown(header)} of If-Match"
        raise ProtocolError(ErrorCode.DENIED, message, status=HTTPStatus.PRECONDITION_FAILED)


def not_modified(request: Request, digest: str) -> bool:
    """Whether the client says that it has this content already.

    Weak, unquoted and `*` are all accepted: content under one digest is one content.
    """
    header = _whole(request, "if-none-match")
    return header is not None and matches(header, digest, weak=True)


def preconditions(request: Request, reference: str) -> Preconditions | None:
    """What the client wants to hold before it changes what a tag or digest stands for (checklist 110)."""
    return parse_preconditions(reference, _whole(request, "if-match"), _whole(request, "if-none-match"))


def _whole(request: Request, name: str) -> str | None:
    """A header that may come in several lines."""
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None


def range_applies(request: Request, digest: str) -> bool:
    """Whether a Range is meant for this content (If-Range, RFC 9110 section 13.1.5).

    Only one strong entity tag says so; to any other value the answer is the whole.
    """
    header = request.headers.get("if-range")
    return header is None or header.strip().strip('"') == digest
