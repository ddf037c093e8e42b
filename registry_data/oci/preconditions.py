"""What a client wants to hold of a tag or digest before it is changed (checklist 110).

Compared as RFC 9110, sections 13.1.1 and 13.1.2 say, the entity tag of content being its digest; beyond them,
the quotes may be left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from registry_data.oci.errors import shown

_ANY = "*"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The If-Match and If-None-Match of a request about a reference; None for one that was not sent."""

    reference: str  # a tag or a digest
    if_match: str | None
    if_none_match: str | None

    def unmet(self, present: str | None) -> str | None:
        """Why the request must not go ahead when its reference stands for this digest (None: for nothing).

        Returns None when it may.
        """
        name = f"the {'digest' if ':' in self.reference else 'tag'} {self.reference}"
        if present is None:
            missing = f"If-Match wants {name} to exist, and it does not: nothing was changed"
            return None if self.if_match is None else missing
        stands = f"{name} stands for {present}"
        if self.if_match is not None and not matches(self.if_match, present, weak=False):
            return f"{stands}, not for {shown(self.if_match)} of If-Match: nothing was changed; read it again"
        if self.if_none_match is not None and matches(self.if_none_match, present, weak=True):
            return f"{stands}, which If-None-Match rules out: nothing was changed"
        return None


def parse_preconditions(
    reference: str, if_match: str | None, if_none_match: str | None
) -> Preconditions | None:
    """Read both headers of a request; None when it brought neither.

    An entity tag that could be no digest is merely one that nothing has.
    """
    if if_match is None and if_none_match is None:
        return None
    return Preconditions(reference, if_match, if_none_match)


def matches(header: str, digest: str, *, weak: bool) -> bool:
    """Whether a list of entity tags names a digest; weak ones only count where they may."""
    return any(tag in (digest, _ANY) for tag in _tags(header, weak=weak))


def _tags(header: str, *, weak: bool) -> Iterator[str]:
    for part in header.split(","):
        tag = part.strip()
        if weak or not tag.startswith("W/"):
            yield tag.removeprefix("W/").strip('"')
