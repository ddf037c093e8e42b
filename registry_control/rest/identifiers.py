"""Ids and regions in paths and arguments."""

import re
from typing import Final
from uuid import UUID

from django.conf import settings
from django.urls.converters import StringConverter

from registry_control.common.errors import NotFound

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def parse_id(text: str) -> UUID | None:
    """Parse a UUID with hyphens, in upper or lower case; None for any other form."""
    return UUID(text) if _UUID.fullmatch(text) else None


def id_of(resource: str, text: str) -> UUID:
    """Parse an id in a path.

    Raises:
        NotFound: the id is malformed, so no resource has it.
    """
    found = parse_id(text)
    if found is None:
        raise NotFound(resource, text)
    return found


# The regions of Scaleway: clients that list all regions query each of them.
SCALEWAY_REGIONS: Final = frozenset({"fr-par", "nl-ams", "pl-waw"})


class OwnRegion(StringConverter):
    """Matches the region that this installation serves."""

    def to_python(self, value: str) -> str:
        """Reject every other region."""
        if value != settings.REGION:
            raise ValueError
        return value


class OtherRegion(StringConverter):
    """Matches every other region."""

    def to_python(self, value: str) -> str:
        """Reject the region that this installation serves."""
        if value == settings.REGION:
            raise ValueError
        return value


class OtherScalewayRegion(OtherRegion):
    """Matches the other regions that Scaleway has."""

    def to_python(self, value: str) -> str:
        """Reject the region that this installation serves, and names that Scaleway does not use."""
        if value not in SCALEWAY_REGIONS:
            raise ValueError
        return super().to_python(value)
