"""Changes of organizations, projects, principals, keys and policies: one transaction, one audit row each."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from django.contrib.auth.models import Permission
from django.db import IntegrityError, transaction
from django.db.models import Count, ProtectedError, Q

from registry_control.audit.models import ActorKind
from registry_control.audit.services import Actor, Target, record
from registry_control.common.changes import EVERYTHING, organization_scope, record_change
from registry_control.common.clock import now
from registry_control.common.errors import AlreadyExists, InUse, InvalidArgument
from registry_control.common.models import Status, Timestamped
from registry_control.identity.credentials import new_access_key, new_secret_key, secret_hmac
from registry_control.identity.models import (
    ApiKey,
    Application,
    Organization,
    Policy,
    PolicyRule,
    Project,
    User,
)
from registry_control.identity.permission_sets import PermissionSet

Holder = User | Application
"""A principal: it holds API keys and receives policies."""

Identity = Organization | Project | User | Application | ApiKey | Policy
"""A row whose columns `update` changes."""

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new API key with its secret, which is not stored and cannot be read again."""

    api_key: ApiKey
    secret: str = field(repr=False)


@transaction.atomic
def create_organization(*, actor: Actor, name: str, operates_installation: bool = False) -> Organization:
    """Create a tenant with its default project, which has the organization's own id.

    One organization operates the installation: the first start creates it.
    """
    organization = Organization.objects.create(name=name, operates_installation=operates_installation)
    Project.objects.create(pk=organization.pk, organization=organization, name=DEFAULT_PROJECT)
    record(
        actor=actor,
        verb="organization.create",
        target=Target("organization", organization.pk, name, organization.pk),
    )
    return organization


def create_project(*, actor: Actor, organization: Organization, name: str, description: str = "") -> Project:
    """Create a project of an organization.

    Raises:
        AlreadyExists: the organization has a project of that name.
    """
    with _unique("project", name, "the organization has a project of that name"):
        project = Project.objects.create(organization=organization, name=name, description=description)
        record(actor=actor, verb="project.create", target=_target_of(project))
    return project


def create_user(
    *,
    actor: Actor,
    username: str,
    organization: Organization | None,
    password: str | None = None,
    is_staff: bool = False,
    is_administrator: bool = False,
) -> User:
    """Create a user. Staff may sign in to the administration; an administrator may do everything there.

    Raises:
        AlreadyExists: the registry has a user of that name.
    """
    with _unique("user", username, "the registry has a user of that name"):
        user = User.objects.create_user(
            username,
            password=password,
            organization=organization,
            is_staff=is_staff or is_administrator,
            is_superuser=is_administrator,
        )
        record(
            actor=actor,
            verb="user.create",
            target=_target_of(user),
            is_staff=user.is_staff,
            is_administrator=is_administrator,
        )
    return user


def create_application(
    *, actor: Actor, organization: Organization, name: str, description: str = ""
) -> Application:
    """Create an application: a principal that signs in with API keys only.

    Raises:
        AlreadyExists: the organization has an application of that name.
    """
    with _unique("application", name, "the organization has an application of that name"):
        application = Application.objects.create(
            organization=organization, name=name, description=description
        )
        record(actor=actor, verb="application.create", target=_target_of(application))
    return application


@transaction.atomic
def create_api_key(
    *,
    actor: Actor,
    holder: Holder,
    default_project: Project | None = None,
    description: str = "",
    expires_at: datetime | None = None,
    secret: str | None = None,
) -> IssuedKey:
    """Issue a key. Its default project is `default_project`, otherwise the organization's default project.

    Its secret is random, unless the caller has one: a UUIDv4 in lower case that no other key has.

    Raises:
        InvalidArgument: the holder belongs to no organization, or the project to another one.
    """
    organization_id = _organization_id(holder)
    project = _project_of(organization_id, default_project)
    secret = secret or new_secret_key()
    api_key = ApiKey.objects.create(
        access_key=new_access_key(),
        secret_hmac=secret_hmac(secret),
        default_project=project,
        description=description,
        expires_at=expires_at,
        **_held_by(holder),
    )
    record(
        actor=actor,
        verb="api_key.create",
        target=Target("apikey", api_key.pk, api_key.access_key, organization_id),
        holder=str(holder),
        expires_at=expires_at.isoformat() if expires_at else None,
    )
    return IssuedKey(api_key, secret)


@transaction.atomic
def delete_api_key(*, actor: Actor, api_key: ApiKey) -> None:
    """Revoke a key with all tokens that were issued for it, refresh tokens included."""
    organization_id = api_key.default_project.organization_id
    target = Target("apikey", api_key.pk, api_key.access_key, organization_id)
    # Pulls depend on the holder's organization, which may have changed since the key was created.
    holder = api_key.user or api_key.application
    organizations = {organization_id, holder.organization_id if holder else None}
    if ApiKey.objects.filter(pk=api_key.pk).delete()[0]:
        record_change(*(organization_scope(found) for found in organizations if found is not None))
        record(actor=actor, verb="api_key.delete", target=target)


def create_policy(*, actor: Actor, holder: Holder, name: str) -> Policy:
    """Create a policy without rules.

    Raises:
        InvalidArgument: the holder belongs to no organization.
        AlreadyExists: the organization has a policy of that name.
    """
    organization_id = _organization_id(holder)
    with _unique("policy", name, "the organization has a policy of that name"):
        policy = Policy.objects.create(organization_id=organization_id, name=name, **_held_by(holder))
        record(actor=actor, verb="policy.create", target=_target_of(policy), holder=str(holder))
    return policy


@transaction.atomic
def add_rule(
    *, actor: Actor, policy: Policy, permission_set: PermissionSet, project: Project | None
) -> PolicyRule:
    """Grant a permission set on a project, or on every project of the policy's organization.

    Raises:
        InvalidArgument: the project belongs to another organization.
    """
    if project is not None:
        _project_of(policy.organization_id, project)
    rule = PolicyRule.objects.create(policy=policy, permission_set=permission_set, project=project)
    _rule_changed(actor, "policy.add_rule", rule)
    return rule


@transaction.atomic
def change_rule(*, actor: Actor, rule: PolicyRule) -> None:
    """Write a rule whose permission set or project was edited.

    Raises:
        InvalidArgument: the project belongs to another organization.
    """
    if rule.project is not None:
        _project_of(rule.policy.organization_id, rule.project)
    if PolicyRule.objects.filter(pk=rule.pk).update(permission_set=rule.permission_set, project=rule.project):
        _rule_changed(actor, "policy.change_rule", rule)


@transaction.atomic
def remove_rule(*, actor: Actor, rule: PolicyRule) -> None:
    """Withdraw a permission set."""
    if PolicyRule.objects.filter(pk=rule.pk).delete()[0]:
        _rule_changed(actor, "policy.remove_rule", rule)


def _rule_changed(actor: Actor, verb: str, rule: PolicyRule) -> None:
    record_change(organization_scope(rule.policy.organization_id))
    record(
        actor=actor,
        verb=verb,
        target=_target_of(rule.policy),
        permission_set=rule.permission_set,
        project=rule.project.name if rule.project else "all projects",
    )


@transaction.atomic
def grant_policy(
    *,
    actor: Actor,
    holder: Holder,
    permission_set: PermissionSet,
    project: Project | None = None,
    name: str = "",
) -> Policy:
    """Grant a principal a permission set on a project, or on every project of its organization.

    Without a `name` the call is idempotent: a policy that grants it already is returned as it is.

    Raises:
        InvalidArgument: the holder belongs to no organization, or the project to another one.
        AlreadyExists: the organization has a policy of that `name`.
    """
    organization_id = _organization_id(holder)
    if project is not None:
        _project_of(organization_id, project)
    held = Policy.objects.filter(organization_id=organization_id, **_held_by(holder))
    if not name and (
        granted := held.filter(rules__permission_set=permission_set, rules__project=project).first()
    ):
        return granted
    scope = project.name if project else "all projects"
    usual_name = f"{permission_set.value} on {scope} for {holder.pk}"
    # A policy of the usual name may have lost its rule in the administration.
    policy = None if name else held.filter(name=usual_name).first()
    policy = policy or create_policy(actor=actor, holder=holder, name=name or usual_name)
    add_rule(actor=actor, policy=policy, permission_set=permission_set, project=project)
    return policy


def update(*, actor: Actor, row: Identity, fields: Collection[str]) -> None:
    """Write the named columns of a locked row. The audit row names them without values: some are secret.

    Raises:
        AlreadyExists: another row has the new name.
    """
    kind = str(row._meta.model_name)
    columns = [field.name for field in row._meta.concrete_fields if field.name in fields]
    if isinstance(row, Timestamped):
        row.updated_at = now()
        columns.append("updated_at")
    with _unique(kind, str(row), "another one has that name"):
        row.save(update_fields=columns)
        # The row may have belonged to another organization before, so no narrower scope is enough.
        record_change(EVERYTHING)
        record(actor=actor, verb=f"{kind}.update", target=_target_of(row), fields=", ".join(sorted(fields)))


@transaction.atomic
def set_permissions(*, actor: Actor, user: User, permissions: Iterable[Permission]) -> None:
    """Replace the permissions that a user has in the administration."""
    user.user_permissions.set(permissions)
    record(actor=actor, verb="user.permissions", target=_target_of(user))


@transaction.atomic
def delete(*, actor: Actor, row: Project | User | Application | Policy) -> None:
    """Delete a row with the keys and policies that depend on it.

    Raises:
        InUse: namespaces belong to the project.
    """
    target = _target_of(row)
    if _delete(row, target):
        record(actor=actor, verb=f"{target.kind}.delete", target=target)


@transaction.atomic
def delete_organization(*, actor: Actor, organization: Organization) -> None:
    """Delete an organization with its projects, users, applications, keys and policies.

    Raises:
        InUse: it has namespaces, or the actor is one of its users.
    """
    # In this order, so that a concurrent deletion of a project waits instead of causing a deadlock.
    Organization.objects.select_for_update().filter(pk=organization.pk).first()
    list(Project.objects.select_for_update().filter(organization=organization).order_by("pk"))
    if blocked := deletion_blocked(actor=actor, organization=organization):
        raise InUse("organization", organization.pk, blocked)
    target, contents = _target_of(organization), contents_of(organization)
    if _delete(organization, target):
        record(actor=actor, verb="organization.delete", target=target, **contents)


def deletion_blocked(*, actor: Actor, organization: Organization) -> str:
    """Why the actor cannot delete the organization; empty if nothing prevents it."""
    if actor.kind is ActorKind.USER and organization.users.filter(pk=actor.id).exists():
        return f"You belong to {organization}: a user outside of it must delete it"
    return namespaces_left(organization)


def contents_of_project(project: Project) -> dict[str, int]:
    """How many rows of each kind a deletion of the project deletes with it."""
    return {
        "api_keys": ApiKey.objects.filter(default_project=project).count(),
        "policy_rules": PolicyRule.objects.filter(project=project).count(),
    }


def contents_of(organization: Organization) -> dict[str, int]:
    """How many rows of each kind a deletion of the organization deletes with it."""
    return {
        "projects": organization.projects.count(),
        "users": organization.users.count(),
        "applications": organization.applications.count(),
        "api_keys": ApiKey.objects.filter(default_project__organization=organization).count(),
        "policies": organization.policies.count(),
        # Of an app above this one; a target with rules belongs to an organization with namespaces.
        "replication_targets": organization.replication_targets.count(),
    }


def _delete(row: Organization | Project | User | Application | Policy, target: Target) -> bool:
    """Delete a row; False if it no longer exists.

    Raises:
        InUse: namespaces protect it, which the error counts.
    """
    try:
        with transaction.atomic():
            deleted, _ = row.delete()
            record_change(EVERYTHING)
    except ProtectedError as error:
        raise InUse(target.kind, target.id, namespaces_left(row) or str(error)) from error
    return bool(deleted)


def namespaces_left(row: Organization | Project | User | Application | Policy) -> str:
    """How many namespaces a project or the projects of an organization have, and how they go; or empty."""
    # `namespaces` belong to an app above this one.
    projects = Project.objects.filter(Q(pk=row.pk) | Q(organization_id=row.pk), namespaces__isnull=False)
    counted = projects.values_list("namespaces__status").annotate(number=Count("namespaces"))
    numbers = dict(counted.order_by())
    recycled, deleting = numbers.pop(Status.RECYCLED, 0), numbers.pop(Status.DELETING, 0)
    clauses = []
    if number := sum(numbers.values()):
        clauses.append(f"{_namespaces(number)}: delete these first, and wait until the worker is done")
    if deleting:
        clauses.append(f"{_namespaces(deleting)} being deleted: wait until the worker has removed these")
    if recycled:
        clauses.append(
            f"{_namespaces(recycled)} in the recycle bin: purge these in the administration or with"
            " DELETE recycle-bin/{id}, or wait until they expire"
        )
    return f"{row} has {'; and '.join(clauses)}" if clauses else ""


def _namespaces(number: int) -> str:
    return f"{number} namespace" if number == 1 else f"{number} namespaces"


@contextmanager
def _unique(resource: str, name: str, refusal: str) -> Iterator[None]:
    """One transaction in which every IntegrityError means that the name is taken."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        raise AlreadyExists(resource, name, refusal) from error


class _HeldBy(TypedDict, total=False):
    user: User
    application: Application


def _held_by(holder: Holder) -> _HeldBy:
    return {"user": holder} if isinstance(holder, User) else {"application": holder}


def _target_of(row: Identity) -> Target:
    organization_id = row.pk if isinstance(row, Organization) else getattr(row, "organization_id", None)
    if isinstance(row, ApiKey):
        organization_id = row.default_project.organization_id
    return Target(str(row._meta.model_name), row.pk, str(row), organization_id)


def _organization_id(holder: Holder) -> UUID:
    if holder.organization_id is None:
        raise InvalidArgument("organization_id", "the user belongs to no organization", reason="required")
    return holder.organization_id


def _project_of(organization_id: UUID, project: Project | None) -> Project:
    found = project or Project.objects.filter(pk=organization_id).first()
    if found is None or found.organization_id != organization_id:
        raise InvalidArgument(
            "project_id", "there is no such project in the holder's organization", reason="unknown"
        )
    return found
