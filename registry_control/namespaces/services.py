"""Creating, changing, locking and deleting namespaces: one transaction and one audit row each.

`create`, `update` and `delete` authorize a principal; the other functions take an actor that has been
authorized.
"""

from collections.abc import Mapping
from uuid import UUID

from django.db import IntegrityError, transaction

from registry_control.access.policy import Action, Kind, Principal, Role, role_on_project
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor, Target, record
from registry_control.common.changes import namespace_scope, record_change, repositories_scope
from registry_control.common.clock import database_now, now
from registry_control.common.errors import AlreadyExists, InvalidArgument, PermissionsDenied
from registry_control.common.models import DELETED, Status
from registry_control.common.signals import deletion_started, namespace_deletion_requested
from registry_control.db.functions import DatabaseNow
from registry_control.identity.models import Application, Project, User
from registry_control.namespaces import recycling, selectors
from registry_control.namespaces.locking import set_locked
from registry_control.namespaces.models import Namespace, RecycleBinEntry, Retention
from registry_control.namespaces.policy import check_deletable, check_name, check_writable


def create(
    *,
    principal: Principal,
    name: str,
    description: str,
    is_public: bool,
    project_id: UUID | None = None,
    organization_id: UUID | None = None,
) -> Namespace:
    """Create a namespace that the principal owns.

    Its project is the given one, else the default project of the given organization, else that of the key.

    Raises:
        InvalidArgument: the name is not a valid namespace name, no project is given and the key has none, or
            the project or organization is not one of the principal's organization.
        PermissionsDenied: the principal may not create namespaces in the project.
        AlreadyExists: the registry has a namespace of that name, perhaps of another organization.
    """
    check_name(name)  # before the project: a client is told about its own input first
    if organization_id not in (None, principal.organization_id):
        raise InvalidArgument("organization_id", "it is not your organization", reason="unknown")
    # The id of an organization is also that of its default project.
    project = _project(principal, project_id or organization_id or principal.default_project_id)
    if role_on_project(principal, project.pk) < Role.ADMIN:
        raise PermissionsDenied("create", "registry_namespace")
    namespace = create_in_project(
        actor=actor_of(principal),
        project=project,
        name=name,
        description=description,
        is_public=is_public,
        owner_user_id=principal.id if principal.kind is Kind.USER else None,
        owner_application_id=principal.id if principal.kind is Kind.APPLICATION else None,
    )
    return selectors.get_visible(principal, namespace.pk)


def create_in_project(
    *,
    actor: Actor,
    project: Project,
    name: str,
    description: str,
    is_public: bool,
    accepts_sparse_indexes: bool = False,
    owner_user_id: UUID | None = None,
    owner_application_id: UUID | None = None,
) -> Namespace:
    """Create a namespace for an actor whose right to do so has been checked.

    Raises:
        InvalidArgument: the name is not a valid namespace name.
        AlreadyExists: the registry has a namespace of that name.
    """
    check_name(name)
    try:
        with transaction.atomic():
            namespace = Namespace.objects.create(
                name=name,
                description=description,
                is_public=is_public,
                accepts_sparse_indexes=accepts_sparse_indexes,
                project=project,
                owner_user_id=owner_user_id,
                owner_application_id=owner_application_id,
            )
            # Pushes share this row, so that its first change waits for them, too (ADR 62).
            Retention.objects.create(namespace=namespace, updated_at=DatabaseNow())
            record(actor=actor, verb="namespace.create", target=target_of(namespace), is_public=is_public)
            return namespace
    except IntegrityError as error:
        raise AlreadyExists(
            "namespace", name, "names are unique in the whole registry: choose another"
        ) from error


def _project(principal: Principal, project_id: UUID | None) -> Project:
    if project_id is None:
        raise InvalidArgument(
            "project_id", "name a project: the API key has no default one", reason="required"
        )
    project = Project.objects.filter(pk=project_id, organization=principal.organization_id).first()
    if project is None:
        raise InvalidArgument("project_id", "there is no such project in your organization", reason="unknown")
    return project


@transaction.atomic
def update(
    *, principal: Principal, namespace_id: UUID, description: str | None, is_public: bool | None
) -> Namespace:
    """Change the given fields; None leaves a field unchanged. Privacy applies from the next pull on.

    Raises:
        NotFound: there is no such namespace, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not administer it.
        TransientState: the namespace is being deleted.
        Locked: the namespace is locked by an administrator.
    """
    namespace = _for_change(principal, namespace_id, "write")
    check_writable("namespace", namespace.pk, namespace.status)
    changes = {
        field: value
        for field, value in (("description", description), ("is_public", is_public))
        if value is not None and value != getattr(namespace, field)
    }
    if changes:
        change(namespace, actor=actor_of(principal), **changes)
    return namespace


def change(namespace: Namespace, *, actor: Actor, **changes: str | bool | User | Application | None) -> None:
    """Set fields of a namespace whose row is locked; privacy applies from the next pull on."""
    for field, value in changes.items():
        setattr(namespace, field, value)
    namespace.updated_at = now()
    namespace.save(update_fields=[*changes, "updated_at"])
    _record_change(namespace)
    record(actor=actor, verb="namespace.update", target=target_of(namespace), **_recorded(changes))


def lock(namespace: Namespace, *, actor: Actor) -> bool:
    """Make a namespace read-only; False if it is already, or is being deleted. Its row must be locked."""
    return _set_locked(namespace, is_locked=True, actor=actor)


def unlock(namespace: Namespace, *, actor: Actor) -> bool:
    """Allow changes of a read-only namespace again; False if it is not. Its row must be locked."""
    return _set_locked(namespace, is_locked=False, actor=actor)


def _set_locked(namespace: Namespace, *, is_locked: bool, actor: Actor) -> bool:
    scopes = [namespace_scope(namespace.pk)]
    return set_locked(namespace, is_locked=is_locked, actor=actor, target=target_of(namespace), scopes=scopes)


def _record_change(namespace: Namespace) -> None:
    record_change(namespace_scope(namespace.pk), repositories_scope(namespace.project.organization_id))


def _recorded(changes: Mapping[str, str | bool | User | Application | None]) -> dict[str, str | bool | None]:
    """The values for an audit row: an owner as its id."""
    return {
        field: str(value.pk) if isinstance(value, User | Application) else value
        for field, value in changes.items()
    }


@transaction.atomic
def delete(*, principal: Principal, namespace_id: UUID) -> Namespace:
    """Delete a namespace: its name can be reused at once. The recycle bin keeps it, or the worker deletes it.

    Idempotent while the namespace is being deleted.

    Raises:
        NotFound: there is no such namespace, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not delete it, or an image of it has a
            protected tag.
        Locked: the namespace is locked by an administrator.
    """
    namespace = _for_change(principal, namespace_id, "delete")
    check_deletable("namespace", namespace.pk, namespace.status)
    start_deletion(namespace, actor=actor_of(principal))
    return namespace


def start_deletion(namespace: Namespace, *, actor: Actor) -> None:
    """Move a namespace, whose row is locked, to the recycle bin, or without one mark it as deleting.

    Idempotent.

    Raises:
        PermissionsDenied: an image of it has a protected tag.
    """
    if namespace.status in DELETED:
        return
    namespace_deletion_requested.send(sender=Namespace, namespace=namespace)
    record(actor=actor, verb="namespace.delete", target=target_of(namespace))
    if recycling.is_on():
        _recycle(namespace, actor)
    else:
        mark_deleting(namespace)


def _recycle(namespace: Namespace, actor: Actor) -> None:
    deleted = recycling.Deleted(
        name=namespace.name,
        object_id=namespace.pk,
        row_id=namespace.pk,
        size=selectors.bytes_of(namespace),
        columns={"former_status": namespace.status},
    )
    recycling.keep(RecycleBinEntry.Kind.NAMESPACE, [deleted], namespace=namespace, actor=actor)
    namespace.status = Status.RECYCLED
    namespace.save(update_fields=["status"])
    _record_change(namespace)
    namespace.updated_at = now()  # of the response: what is restored has its old one


def restore(namespace: Namespace, entry: RecycleBinEntry, *, name: str | None, actor: Actor) -> None:
    """Take a namespace out of the recycle bin, under another name if one is given. Both rows are locked.

    Raises:
        InvalidArgument: the name is not a valid namespace name.
        AlreadyExists: the registry has a namespace of that name.
    """
    if name is not None:
        check_name(name)
        namespace.name = name
    namespace.status, namespace.restored_at = entry.former_status, database_now()
    try:
        with transaction.atomic():
            namespace.save(update_fields=["name", "status", "restored_at"])
    except IntegrityError as error:
        raise AlreadyExists("namespace", namespace.name, recycling.TAKEN) from error
    _record_change(namespace)
    record(actor=actor, verb="namespace.restore", target=target_of(namespace))


def mark_deleting(namespace: Namespace) -> None:
    """Mark a namespace, whose row is locked, as deleting, and notify the worker."""
    namespace.status = Status.DELETING
    namespace.updated_at = now()
    namespace.save(update_fields=["status", "updated_at"])
    _record_change(namespace)
    deletion_started.send(sender=Namespace)


def _for_change(principal: Principal, namespace_id: UUID, what: str) -> Namespace:
    namespace = selectors.get_visible(principal, namespace_id, lock=True)
    if not selectors.may(principal, Action.ADMINISTER, namespace):
        raise PermissionsDenied(what, "registry_namespace")
    return namespace


def target_of(namespace: Namespace) -> Target:
    """The namespace as the target of an audit row."""
    return Target("namespace", namespace.pk, namespace.name, namespace.project.organization_id)
