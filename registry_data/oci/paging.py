"""Pagination of lists: the parameters `n` and `last`, and the Link header (OCI 118-120)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urlencode

from registry_data.oci.errors import ErrorCode, ProtocolError, shown

_DIGITS: Final = 18  # a longer number is above any maximum, and int() raises for thousands of digits
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Page:
    """A page of at most `n` entries that follow `last`; from the beginning when None."""

    n: int
    last: str | None


def parse_page(n: str | None, last: str | None, *, maximum: int) -> Page:
    """Parse the query parameters of a request, None if missing; no page is longer than `maximum`.

    `last` need not exist, and need not be a valid name. Raises PAGINATION_NUMBER_INVALID if `n` contains
    anything but the digits 0 to 9.
    """
    # PostgreSQL accepts no NUL. No name contains one, so the rest does not change the order.
    after = last.partition("\0")[0] if last else None
    return Page(maximum if n is None else min(_number(n), maximum), after or None)


def next_link(path: str, n: int, last: str, extra: Mapping[str, str] = _NOTHING) -> str:
    """Return the Link header for the page after `last`.

    `path` is the path of the list, not percent-encoded; `extra` are other query parameters, such as a filter.
    """
    query = urlencode({"n": str(n), "last": last, **extra}, quote_via=quote, safe="")
    return f'<{quote(path, safe="/:")}?{query}>; rel="next"'


def _number(n: str) -> int:
    if not (n.isascii() and n.isdigit()):
        raise ProtocolError(
            ErrorCode.PAGINATION_NUMBER_INVALID, f"n must be an integer, 0 or more, not {shown(n)}"
        )
    return int(n.lstrip("0")[:_DIGITS] or "0")
