"""Rules for names and for read-only rows, without database access."""

import re
from typing import Final

from registry_control.common.errors import InvalidArgument, Locked, TransientState

# Also a valid first component of an OCI repository name.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
NAME_LENGTH: Final = range(3, 64)
NAME_RULE: Final = (
    "3 to 63 characters: lower-case letters, digits and dashes, beginning and ending with a letter or a digit"
)


def check_name(name: str) -> None:
    """Accept names that all clients and the OCI grammar accept; names are never normalized.

    Raises:
        InvalidArgument: the length or a character is not allowed; its help message contains the rule.
    """
    if len(name) not in NAME_LENGTH:
        raise InvalidArgument("name", NAME_RULE, reason="constraint")
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name", NAME_RULE, reason="format")


def check_writable(resource: str, resource_id: object, status: str) -> None:
    """Refuse changes of a resource in this status.

    Raises:
        TransientState: the resource is being deleted.
        Locked: the resource is locked by an administrator.
    """
    if status in ("deleting", "recycled"):
        raise TransientState(resource, resource_id, "deleting")
    check_deletable(resource, resource_id, status)


def check_deletable(resource: str, resource_id: object, status: str) -> None:
    """Refuse to delete a resource in this status; one that is being deleted may be deleted again.

    Raises:
        Locked: the resource is locked by an administrator.
    """
    if status == "locked":
        raise Locked(resource, resource_id)
