"""Preconditions of a change, decided inside the transaction that makes it."""

from uuid import UUID

from registry_control.catalog.errors import ConditionUnmet
from registry_control.catalog.selectors.content import digest_of
from registry_data.oci.preconditions import Preconditions


def check(image_id: UUID, only_if: Preconditions | None) -> None:
    """Hold a change of an image, whose row the caller has locked, to what its client wants to hold before.

    Every change of a tag takes the image's row first (invariant 11), so what is read here stays true.

    Raises:
        ConditionUnmet: with the reason for the client.
    """
    reason = only_if and only_if.unmet(digest_of(image_id, only_if.reference))
    if reason:
        raise ConditionUnmet(reason)
