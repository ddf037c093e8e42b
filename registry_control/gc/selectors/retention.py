"""The retention of a namespace, and what its rules decide (ADR 62)."""

from typing import Final
from uuid import UUID

from registry_control.access.policy import Action, Principal
from registry_control.common.errors import PermissionsDenied
from registry_control.gc.retention import NOTHING, Policy, parse
from registry_control.namespaces import selectors as namespaces
from registry_control.namespaces.models import Namespace, Retention

_RESOURCE: Final = "registry_retention"


def administered(principal: Principal, namespace_id: UUID, *, action: str, lock: bool = False) -> Namespace:
    """A namespace that the principal administers; `lock` locks its row.

    Raises:
        NotFound: there is no such namespace, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not administer it.
    """
    namespace = namespaces.get_visible(principal, namespace_id, lock=lock)
    if not namespaces.may(principal, Action.ADMINISTER, namespace):
        raise PermissionsDenied(action, _RESOURCE)
    return namespace


def policy_of(namespace_id: UUID) -> Policy:
    """The retention of a namespace; one without effect if none was set."""
    row = Retention.objects.filter(pk=namespace_id).first()
    return NOTHING if row is None else policy_in(row)


def policy_in(row: Retention) -> Policy:
    """The retention in a row, which was validated when it was stored."""
    return parse(
        {
            "enabled": row.enabled,
            "rules": row.rules,
            "untagged_days": row.untagged_days,
            "protected_tags": row.protected_tags,
            "protected_except": row.protected_except,
        }
    )
