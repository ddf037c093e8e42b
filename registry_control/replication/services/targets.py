"""Creating, changing, checking and deleting targets: one transaction and one audit row each.

The functions take an actor that has been authorized; `for_principal` authorizes. No audit row, log line or
response contains a password.
"""

from collections.abc import Mapping
from typing import TypedDict
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import ProtectedError

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor, record
from registry_control.audit.services import Target as AuditTarget
from registry_control.common.clock import database_now
from registry_control.common.errors import InUse, InvalidArgument, PermissionsDenied
from registry_control.common.models import Status
from registry_control.replication import credentials, remote, selectors
from registry_control.replication.models import Rule, Target
from registry_control.replication.policy import check_url


class TargetChanges(TypedDict, total=False):
    """The fields of a target that can change; a password is stored encrypted."""

    name: str
    url: str
    username: str
    password: str
    insecure: bool


def create(
    *,
    principal: Principal,
    name: str,
    url: str,
    username: str,
    password: str,
    insecure: bool,
    organization_id: UUID | None = None,
) -> Target:
    """Create a target in the principal's organization.

    Raises:
        PermissionsDenied: the principal has not full access to its organization.
        InvalidArgument: the URL is malformed, the organization is not the principal's, or the address must
            not be connected to (`ForbiddenAddress`).
    """
    if organization_id not in (None, principal.organization_id):
        raise InvalidArgument("organization_id", "it is not your organization", reason="unknown")
    if not selectors.administers_organization(principal) or principal.organization_id is None:
        raise PermissionsDenied("create", "replication_target")
    return create_in_organization(
        actor=actor_of(principal),
        organization_id=principal.organization_id,
        name=name,
        url=url,
        username=username,
        password=password,
        insecure=insecure,
    )


def create_in_organization(
    *, actor: Actor, organization_id: UUID, name: str, url: str, username: str, password: str, insecure: bool
) -> Target:
    """Create a target for an actor whose right to do so has been checked.

    Raises:
        InvalidArgument: the URL is malformed, or its address must not be connected to.
    """
    url = _checked_url(url)
    target_id = uuid4()
    with transaction.atomic():
        target = Target.objects.create(
            pk=target_id,
            organization_id=organization_id,
            name=name,
            url=url,
            username=username,
            sealed_password=credentials.seal(password, target_id=target_id),
            insecure=insecure,
        )
        record(actor=actor, verb="target.create", target=audit_target(target), url=url, insecure=insecure)
    return target


def update(*, principal: Principal, target_id: UUID, changes: TargetChanges) -> Target:
    """Change the given fields.

    Raises:
        NotFound: there is no such target, or the principal may not know of it.
        InvalidArgument: the new URL is malformed, or its address must not be connected to.
    """
    if "url" in changes:
        changes = {**changes, "url": _checked_url(changes["url"])}
    with transaction.atomic():
        target = selectors.get_target(principal, target_id, lock=True)
        change(target, actor=actor_of(principal), changes=changes)
    return target


def change(target: Target, *, actor: Actor, changes: TargetChanges) -> None:
    """Write fields of a target whose row is locked. The audit row names them, without the password.

    A new address without a new password deletes the old password: otherwise who may change a target could
    have the password of one registry sent to another.
    """
    changed: dict[str, str | bool] = {
        name: value
        for name, value in changes.items()
        if name != "password" and isinstance(value, str | bool) and value != getattr(target, name)
    }
    fields = [*changed]
    for name, value in changed.items():
        setattr(target, name, value)
    if "password" in changes or "url" in changed:
        target.sealed_password = credentials.seal(changes.get("password", ""), target_id=target.pk)
        fields.append("sealed_password")
    if not fields:
        return
    target.updated_at = database_now()
    target.save(update_fields=[*fields, "updated_at"])
    named = ", ".join(sorted("password" if name == "sealed_password" else name for name in fields))
    record(actor=actor, verb="target.update", target=audit_target(target), fields=named, **_recorded(changed))


def _recorded(changed: Mapping[str, str | bool]) -> dict[str, str | bool]:
    return {name: value for name, value in changed.items() if name in ("url", "insecure")}


@transaction.atomic
def delete(*, principal: Principal, target_id: UUID) -> Target:
    """Delete a target.

    Raises:
        NotFound: there is no such target, or the principal may not know of it.
        InUse: rules use it.
    """
    target = selectors.get_target(principal, target_id, lock=True)
    remove(target, actor=actor_of(principal))
    return target


def remove(target: Target, *, actor: Actor) -> None:
    """Delete a target whose row is locked; the object keeps its id.

    Raises:
        InUse: rules use it.
    """
    pk, shown = target.pk, audit_target(target)
    if used := _rules_left(pk):
        raise InUse("target", pk, used)
    try:
        with transaction.atomic():
            target.delete()
    except ProtectedError as error:  # a rule was created since
        raise InUse("target", pk, "a rule uses this target: delete it first") from error
    target.pk = pk
    record(actor=actor, verb="target.delete", target=shown)


def _rules_left(target_id: UUID) -> str:
    """How many rules use a target, and how they go; empty if none does."""
    rules = Rule.objects.filter(target=target_id)
    clauses = []
    if number := rules.filter(selectors.LIVE_RULE).count():
        clauses.append(f"{_rules(number)} this target: delete these first")
    if number := rules.filter(deleted_at__isnull=True, namespace__status=Status.RECYCLED).count():
        clauses.append(
            f"{_rules(number)} this target whose namespaces are in the recycle bin: purge these, or restore"
            " them and delete the rules"
        )
    if not clauses and (number := rules.count()):
        clauses.append(f"{_rules(number)} this target and are being deleted: wait until the worker is done")
    return "; and ".join(clauses)


def _rules(number: int) -> str:
    return f"{number} rule uses" if number == 1 else f"{number} rules use"


def check(*, principal: Principal, target_id: UUID) -> remote.Checked:
    """Connect to a target and sign in, without changing anything there.

    Raises:
        NotFound: there is no such target, or the principal may not know of it.
    """
    target = selectors.get_target(principal, target_id)
    return check_target(target, actor=actor_of(principal))


def check_target(target: Target, *, actor: Actor) -> remote.Checked:
    """Connect to a target for an actor whose right to do so has been checked; outside of a transaction."""
    checked = remote.check(target)
    with transaction.atomic():
        record(actor=actor, verb="target.check", target=audit_target(target), ok=checked.ok)
    return checked


def _checked_url(url: str) -> str:
    check_url(url)
    remote.check_address(url)
    return url.rstrip("/")


def audit_target(target: Target) -> AuditTarget:
    """The target as the object of an audit row."""
    return AuditTarget("target", target.pk, target.name, target.organization_id)
