"""Conditional requests; the entity tag of content is its digest (checklist 36, 46)."""

from registry_data.http.wire import Request
from registry_data.oci.preconditions import Preconditions, parse_preconditions


def not_modified(request: Request, digest: str) -> bool:
    """Whether the client says that it has this content already.

    Weak, unquoted and `*` are all accepted: content under one digest is one content.
    """
    header = _whole(request, "if-none-match")
    return header is not None and matches(header, digest)


def matches(header: str, digest: str) -> bool:
    """Whether a list of entity tags names the digest."""
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in header.split(","))
    return any(tag in (digest, "*") for tag in tags)


def preconditions(request: Request, reference: str) -> Preconditions | None:
    """What the client wants to hold before it changes what a tag or digest stands for (checklist 110)."""
    return parse_preconditions(reference, _whole(request, "if-match"), _whole(request, "if-none-match"))


def _whole(request: Request, name: str) -> str | None:
    """A header that may come in several lines."""
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None


def range_applies(request: Request, digest: str) -> bool:
    """Whether a Range is meant for this content (If-Range, RFC 9110 section 13.1.5)."""
    header = request.headers.get("if-range")
    return header is None or matches(header, digest)
