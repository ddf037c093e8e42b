"""Rules about namespaces that need no database."""

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
    """Accept what every client and the OCI grammar accept; refuse, never normalise.

    Raises:
        InvalidArgument: with the rule in its help.
    """
    if len(name) not in NAME_LENGTH:
        raise InvalidArgument("name", NAME_RULE, reason="constraint")
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name", NAME_RULE, reason="format")


def check_writable(resource: str, resource_id: object, status: str) -> None:
    """Refuse changes of what is being deleted or locked.

    Raises:
        TransientState, Locked: it is.
    """
    if status == "deleting":
        raise TransientState(resource, resource_id, status)
    check_deletable(resource, resource_id, status)


def check_deletable(resource: str, resource_id: object, status: str) -> None:
    """Refuse the deletion of what is locked; deleting again is no harm.

    Raises:
        Locked: it is.
    """
    if status == "locked":
        raise Locked(resource, resource_id)
