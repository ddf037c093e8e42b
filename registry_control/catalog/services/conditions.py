"""Preconditions of a request, checked in the transaction that makes its change."""

from uuid import UUID

from registry_control.catalog.errors import ConditionUnmet
from registry_control.catalog.selectors.content import digest_of
from registry_data.oci.preconditions import Preconditions


def check(image_id: UUID, only_if: Preconditions | None) -> None:
    """Check the preconditions of a change of an image, whose row the caller has locked.

    Every change of a tag locks the image's row first (invariant 11), so the result holds until the commit.

    Raises:
        ConditionUnmet: a precondition does not hold; the error contains the reason for the client.
    """
    reason = only_if and only_if.unmet(digest_of(image_id, only_if.reference))
    if reason:
        raise ConditionUnmet(reason)
