"""What may happen to who there is: one verb, one transaction, one audit row."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from django.db import IntegrityError, transaction

from registry_control.audit.services import Actor, Target, record
from registry_control.common.changes import organization_scope, record_change
from registry_control.common.errors import AlreadyExists, InvalidArgument
from registry_control.identity.credentials import new_access_key, new_secret_key, secret_hmac
from registry_control.identity.models import (
    ApiKey,
    Application,
    Organization,
    PermissionSet,
    Policy,
    PolicyRule,
    Project,
    User,
)

Holder = User | Application
"""Who can hold API keys and be given policies."""

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new API key with its secret, which nobody can read again."""

    api_key: ApiKey
    secret: str = field(repr=False)


@transaction.atomic
def create_organization(*, actor: Actor, name: str) -> Organization:
    """Create a tenant with its default project, which has the organization's own id."""
    organization = Organization.objects.create(name=name)
    Project.objects.create(pk=organization.pk, organization=organization, name=DEFAULT_PROJECT)
    record(
        actor=actor,
        verb="organization.create",
        target=Target("organization", organization.pk, name, organization.pk),
    )
    return organization


def create_project(*, actor: Actor, organization: Organization, name: str, description: str = "") -> Project:
    """Create a further part of an organization.

    Raises:
        AlreadyExists: the organization has a project of that name.
    """
    with _unique("project", name, "the organization has a project of that name"):
        project = Project.objects.create(organization=organization, name=name, description=description)
        target = Target("project", project.pk, str(project), organization.pk)
        record(actor=actor, verb="project.create", target=target)
    return project


def create_user(
    *,
    actor: Actor,
    username: str,
    organization: Organization | None,
    password: str | None = None,
    is_administrator: bool = False,
) -> User:
    """Create a person. An administrator may do everything in the admin, given a password to log in with.

    Raises:
        AlreadyExists: the registry has a user of that name.
    """
    with _unique("user", username, "the registry has a user of that name"):
        user = User.objects.create_user(
            username,
            password=password,
            organization=organization,
            is_staff=is_administrator,
            is_superuser=is_administrator,
        )
        target = Target("user", user.pk, username, organization.pk if organization else None)
        record(actor=actor, verb="user.create", target=target, is_administrator=is_administrator)
    return user


def create_application(
    *, actor: Actor, organization: Organization, name: str, description: str = ""
) -> Application:
    """Create a robot.

    Raises:
        AlreadyExists: the organization has an application of that name.
    """
    with _unique("application", name, "the organization has an application of that name"):
        application = Application.objects.create(
            organization=organization, name=name, description=description
        )
        target = Target("application", application.pk, str(application), organization.pk)
        record(actor=actor, verb="application.create", target=target)
    return application


@transaction.atomic
def create_api_key(
    *,
    actor: Actor,
    holder: Holder,
    default_project: Project | None = None,
    description: str = "",
    expires_at: datetime | None = None,
) -> IssuedKey:
    """Issue a key. Without a project given, its default one is the organization's.

    Raises:
        InvalidArgument: the holder belongs to no organization, or the project to another one.
    """
    organization_id = _organization_id(holder)
    project = _project_of(organization_id, default_project)
    secret = new_secret_key()
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
    """Revoke a key: from now on its secret is good for nothing, nor is any token, refresh tokens included."""
    organization_id = api_key.default_project.organization_id
    target = Target("apikey", api_key.pk, api_key.access_key, organization_id)
    if ApiKey.objects.filter(pk=api_key.pk).delete()[0]:
        record_change(organization_scope(organization_id))
        record(actor=actor, verb="api_key.delete", target=target)


def grant_policy(
    *,
    actor: Actor,
    holder: Holder,
    permission_set: PermissionSet,
    project: Project | None = None,
    name: str = "",
) -> Policy:
    """Give a principal a permission set on a project, or on every project of its organization.

    Raises:
        InvalidArgument: the holder belongs to no organization, or the project to another one.
        AlreadyExists: the organization has a policy of that name.
    """
    organization_id = _organization_id(holder)
    if project is not None:
        _project_of(organization_id, project)
    scope = project.name if project else "all projects"
    name = name or f"{permission_set.value} on {scope} for {holder.pk}"
    with _unique("policy", name, "the organization has a policy of that name"):
        policy = Policy.objects.create(organization_id=organization_id, name=name, **_held_by(holder))
        PolicyRule.objects.create(policy=policy, permission_set=permission_set, project=project)
        record_change(organization_scope(organization_id))
        record(
            actor=actor,
            verb="policy.create",
            target=Target("policy", policy.pk, name, organization_id),
            holder=str(holder),
            permission_set=permission_set.value,
            project=scope,
        )
    return policy


@contextmanager
def _unique(resource: str, name: str, refusal: str) -> Iterator[None]:
    """One transaction in which a name that is taken is the only thing that can go wrong."""
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
