"""If-Match and If-None-Match for changes of a tag or digest: an optimistic lock (OCI 110).

The comparison follows RFC 9110, sections 13.1.1 and 13.1.2; the entity tag of content is its digest. Unlike
in the RFC, the quotes are optional.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from registry_data.oci.errors import shown

_ANY = "*"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """If-Match and If-None-Match of a request for a reference; None if not sent."""

    reference: str  # a tag or a digest
    if_match: str | None
    if_none_match: str | None

    def unmet(self, present: str | None) -> str | None:
        """Return why the request must fail, or None if its conditions are met.

        `present` is the digest to which the reference points now, None if it does not exist.
        """
        name = f"the {'digest' if ':' in self.reference else 'tag'} {self.reference}"
        if present is None:
            missing = f"If-Match requires {name} to exist, and it does not: nothing was changed"
            return None if self.if_match is None else missing
        stands = f"{name} points to {present}"
        if self.if_match is not None and not matches(self.if_match, present, weak=False):
            return f"{stands}, not to {shown(self.if_match)} of If-Match: nothing was changed; read it again"
        if self.if_none_match is not None and matches(self.if_none_match, present, weak=True):
            return f"{stands}, which If-None-Match excludes: nothing was changed"
        return None


def parse_preconditions(
    reference: str, if_match: str | None, if_none_match: str | None
) -> Preconditions | None:
    """Parse both headers of a request; None if neither was sent.

    An entity tag that is not a digest is valid, but matches nothing.
    """
    if if_match is None and if_none_match is None:
        return None
    return Preconditions(reference, if_match, if_none_match)


def matches(header: str, digest: str, *, weak: bool) -> bool:
    """Whether a list of entity tags contains a digest; weak entity tags match only with `weak`."""
    return any(tag in (digest, _ANY) for tag in _tags(header, weak=weak))


def _tags(header: str, *, weak: bool) -> Iterator[str]:
    for part in header.split(","):
        tag = part.strip()
        if weak or not tag.startswith("W/"):
            yield tag.removeprefix("W/").strip('"')
