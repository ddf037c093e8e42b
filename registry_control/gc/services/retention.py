"""Storing the retention of a namespace."""

import json
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor, record
from registry_control.common.clock import database_now
from registry_control.gc.models import RetentionRun
from registry_control.gc.retention import Policy, parse
from registry_control.gc.selectors import retention as selectors
from registry_control.namespaces.models import Namespace, Retention
from registry_control.namespaces.policy import check_writable
from registry_control.namespaces.services import target_of

INTERVAL: Final = timedelta(hours=1)
"""From the beginning of one pass over a namespace to the next."""


@transaction.atomic
def put(*, principal: Principal, namespace_id: UUID, document: object) -> Policy:
    """Replace the retention of a namespace; the worker enforces it within a minute.

    Raises:
        NotFound: there is no such namespace, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not administer it.
        InvalidArgument: the document is not a retention.
        TransientState: the namespace is being deleted.
        Locked: the namespace is locked by an administrator.
    """
    namespace = selectors.administered(principal, namespace_id, action="write", lock=True)
    check_writable("namespace", namespace.pk, namespace.status)
    policy = parse(document)
    store(namespace, policy, actor=actor_of(principal))
    return policy


def store(namespace: Namespace, policy: Policy, *, actor: Actor) -> Retention:
    """Store the retention of a namespace whose row is locked, for an actor who may do that."""
    moment = database_now()
    fields = policy.as_json()
    row, _ = Retention.objects.update_or_create(
        namespace=namespace, defaults={**fields, "updated_at": moment}
    )
    _plan(namespace, policy, moment)
    record(
        actor=actor,
        verb="namespace.retention",
        target=target_of(namespace),
        enabled=policy.enabled,
        rules=json.dumps(fields["rules"]),
        untagged_days=policy.untagged_days,
        protected_tags=" ".join(policy.protected_tags),
        protected_except=" ".join(policy.protected_except),
    )
    return row


def _plan(namespace: Namespace, policy: Policy, moment: datetime) -> None:
    """Let a new pass begin at once; a worker in the middle of one loses its claim."""
    if not policy.removes:
        RetentionRun.objects.filter(namespace=namespace).delete()
        return
    RetentionRun.objects.update_or_create(
        namespace=namespace,
        defaults={"due_at": moment, "claim": None, "claimed_until": None, "started_at": None, "cursor": {}},
    )
