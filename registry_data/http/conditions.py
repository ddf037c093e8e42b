"""Conditional requests; the entity tag of content is its digest (OCI 36, 46)."""

from http import HTTPStatus

from registry_data.http.messages import Request
from registry_data.oci.errors import ErrorCode, ProtocolError, shown
from registry_data.oci.preconditions import Preconditions, matches, parse_preconditions


def check_match(request: Request, digest: str) -> None:
    """Check the If-Match header of a GET or HEAD (RFC 9110, section 13.1.1).

    Raises:
        ProtocolError: 412 if the header does not contain the digest.
    """
    header = _whole(request, "if-match")
    if header is not None and not matches(header, digest, weak=False):
        message = f"the content is {digest}, not {shown(header)} of If-Match"
        raise ProtocolError(ErrorCode.DENIED, message, status=HTTPStatus.PRECONDITION_FAILED)


def not_modified(request: Request, digest: str) -> bool:
    """Whether If-None-Match shows that the client already has this content.

    Weak and unquoted entity tags and `*` are accepted, because equal digests mean equal content.
    """
    header = _whole(request, "if-none-match")
    return header is not None and matches(header, digest, weak=True)


def preconditions(request: Request, reference: str) -> Preconditions | None:
    """The conditions of a request that changes a tag or manifest (OCI 110)."""
    return parse_preconditions(reference, _whole(request, "if-match"), _whole(request, "if-none-match"))


def _whole(request: Request, name: str) -> str | None:
    """The value of a header that may be sent in several lines."""
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None


def range_applies(request: Request, digest: str) -> bool:
    """Whether the Range header applies to this content (If-Range, RFC 9110 section 13.1.5).

    It does only if If-Range is the strong entity tag of the content; otherwise the whole content is sent.
    """
    header = request.headers.get("if-range")
    return header is None or header.strip().strip('"') == digest
