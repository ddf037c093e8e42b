"""Pages of a list: the `n` and `last` of a request, the Link of its answer (checklist 118-120)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urlencode

from registry_data.oci.errors import ErrorCode, ProtocolError, shown

_DIGITS: Final = 18  # more of them are over any maximum, and int() refuses thousands
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Page:
    """A page of at most `n` entries, those strictly after `last`; from the beginning when None."""

    n: int
    last: str | None


def parse_page(n: str | None, last: str | None, *, maximum: int) -> Page:
    """Read a request's query values, None for those not sent; no page is longer than `maximum`.

    `last` need not be there any more, nor be a name at all. Raises PAGINATION_NUMBER_INVALID for an `n` that
    is not written in the digits 0 to 9.
    """
    # No name holds a NUL, so what follows one decides nothing; and PostgreSQL takes none.
    after = last.partition("\0")[0] if last else None
    return Page(maximum if n is None else min(_number(n), maximum), after or None)


def next_link(path: str, n: int, last: str, extra: Mapping[str, str] = _NOTHING) -> str:
    """Write the Link header that leads to the page after `last`.

    `path` is the list's, not percent-encoded; `extra` are further query values to keep, such as a filter.
    """
    query = urlencode({"n": str(n), "last": last, **extra}, quote_via=quote, safe="")
    return f'<{quote(path, safe="/:")}?{query}>; rel="next"'


def _number(n: str) -> int:
    if not (n.isascii() and n.isdigit()):
        raise ProtocolError(
            ErrorCode.PAGINATION_NUMBER_INVALID, f"n must be a whole number, 0 or more, not {shown(n)}"
        )
    return int(n.lstrip("0")[:_DIGITS] or "0")
