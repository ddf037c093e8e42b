"""Prepares an empty or older database: tables, the first administrator, the first API key.

Several nodes may start concurrently: one prepares the database while the others wait for the lock.

A start may be killed at any line. All rows are inserted in one transaction, and its last step writes the
credentials to the disk as a draft; the draft is renamed to `credentials.json` after the commit. So

- killed before the commit: no rows, and at most a draft, which the next start overwrites;
- killed after it: the rows and their draft both exist, and the next start publishes the draft.

So `credentials.json` never contains a key that does not work. A database that has an organization or a user
never gets first credentials again, so an operator may keep them elsewhere and delete the file.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import Error as AnyDatabaseError
from django.db import connection, transaction
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.loader import MigrationLoader

from registry_control.access.errors import BadCredentials
from registry_control.access.selectors import principal_by_secret
from registry_control.audit.services import SYSTEM
from registry_control.common.errors import AlreadyExists
from registry_control.identity.models import Organization, User
from registry_control.identity.permission_sets import PermissionSet
from registry_control.identity.services import create_api_key, create_organization, create_user, grant_policy
from registry_control.serving.dependencies import check_database
from registry_control.serving.process_tuning import rare_collections
from registry_control.serving.readiness import CheckFailed
from registry_control.serving.secret_key import check_secret_key, record_secret_key
from registry_control.settings.environment import ConfigurationError, FirstAccounts
from registry_control.standalone.credentials import Credentials, CredentialsFile
from registry_control.standalone.preflight import one_line
from registry_control.standalone.startup_lock import startup_lock


@contextmanager
def prepared_database(report: Callable[[str], None]) -> Iterator[None]:
    """Migrate the database, and hold the startup lock until the end of the context.

    Args:
        report: receives a line if this node has to wait for another one.

    Raises:
        ConfigurationError: the database does not respond, is not a database, belongs to a newer release, or
            was set up with another REGISTRY_SECRET_KEY.
    """
    if connection.settings_dict["NAME"] == ":memory:":
        raise ConfigurationError("REGISTRY_DATABASE_URL: a database in memory cannot be shared by processes")
    with _locked_database(report):
        _migrate()
        _check_key()
        yield


@contextmanager
def migrated_database(report: Callable[[str], None]) -> Iterator[None]:
    """The same for a database that `manage.py migrate` has prepared.

    Raises:
        ConfigurationError: as above, or a migration is missing.
    """
    with _locked_database(report):
        try:
            check_database()
        except CheckFailed as error:
            raise ConfigurationError(f"{_database_name()} is not ready: {error}") from error
        _check_key()
        yield


@contextmanager
def _locked_database(report: Callable[[str], None]) -> Iterator[None]:
    try:
        with startup_lock(report):
            yield
    except (AnyDatabaseError, InconsistentMigrationHistory, OSError) as error:
        raise ConfigurationError(
            f"REGISTRY_DATABASE_URL: {_database_name()} cannot be used: {one_line(error)}"
        ) from error


def _check_key() -> None:
    record_secret_key()  # Raises what `check_secret_key` ignores.
    check_secret_key()


def _migrate() -> None:
    loader = MigrationLoader(connection)
    _refuse_newer(loader)
    # Also without pending migrations: it creates content types and permissions that a killed start left out.
    # Django's command, because this process already holds the lock.
    with rare_collections():
        call_command(migrate.Command(), interactive=False, verbosity=0)
    connection.close()  # It has no timeouts, which later statements need.


def first_start(file: CredentialsFile, *, control_url: str, registry_host: str) -> Credentials | None:
    """Create the first organization, administrator and key, unless the database has an organization or user.

    Later starts only update the two addresses in the file if they have changed.

    Returns:
        The content of the file; None if this state folder has none, because another node created the
        credentials or because the operator has deleted it.

    Raises:
        ConfigurationError: another process is doing the same on the same database.
    """
    if is_empty():
        create_accounts(control_url=control_url, registry_host=registry_host, before_commit=file.draft)
        # After a change of REGISTRY_DATABASE_URL, the file belongs to another database, maybe still in use.
        file.set_aside()
        file.publish()
    else:
        _finish_publishing(file)
    credentials = file.read()
    if credentials is None:
        return None
    current = replace(credentials, control_url=control_url, registry_host=registry_host)
    if current != credentials:
        file.draft(current)
        file.publish()
    return current


def works(credentials: Credentials) -> bool:
    """Whether the key is valid in this database with the current REGISTRY_SECRET_KEY."""
    try:
        return principal_by_secret(credentials.secret_key).access_key == credentials.access_key
    except BadCredentials:
        return False


def _refuse_newer(loader: MigrationLoader) -> None:
    """Reject a database with unknown migrations: this code could violate constraints of the newer release."""
    ours = loader.migrated_apps
    unknown = [
        f"{app}.{name}"
        for app, name in sorted(loader.applied_migrations)
        if app in ours and (app, name) not in loader.disk_migrations
    ]
    if unknown:
        raise ConfigurationError(
            f"REGISTRY_DATABASE_URL: {_database_name()} was made by a newer release (it has {unknown[-1]}):"
            " start that release, or restore the backup from before the upgrade"
        )


def is_empty() -> bool:
    """Whether the database has no organization and no user, so that the first start creates them."""
    return not (Organization.objects.exists() or User.objects.exists())


def create_accounts(
    *, control_url: str, registry_host: str, before_commit: Callable[[Credentials], None] = lambda _: None
) -> Credentials:
    """Create the first organization, project, administrator and API key in one transaction.

    Raises:
        ConfigurationError: the configured password is refused, or another process is doing the same.
    """
    try:
        if settings.FIRST_ACCOUNTS.admin_password is not None:
            validate_password(settings.FIRST_ACCOUNTS.admin_password)
        with transaction.atomic():
            created = _insert_rows(settings.FIRST_ACCOUNTS, control_url, registry_host)
            before_commit(created)
    except AlreadyExists as error:
        raise ConfigurationError(
            "another process has just created the first administrator of this database: start again"
        ) from error
    except ValidationError as error:
        raise ConfigurationError(f"REGISTRY_BOOTSTRAP_ADMIN_PASSWORD: {' '.join(error.messages)}") from error
    return created


def _insert_rows(first: FirstAccounts, control_url: str, registry_host: str) -> Credentials:
    password = first.admin_password or secrets.token_urlsafe(18)
    organization = create_organization(actor=SYSTEM, name=first.organization, operates_installation=True)
    administrator = create_user(
        actor=SYSTEM,
        username=first.admin_username,
        organization=organization,
        password=password,
        is_administrator=True,
    )
    for permission_set in (PermissionSet.FULL_ACCESS, PermissionSet.OPERATOR):
        grant_policy(actor=SYSTEM, holder=administrator, permission_set=permission_set)
    issued = create_api_key(
        actor=SYSTEM,
        holder=administrator,
        description="created at the first start",
        secret=first.secret_key,
    )
    return Credentials(
        control_url=control_url,
        registry_host=registry_host,
        organization_id=str(organization.pk),
        project_id=str(issued.api_key.default_project_id),
        access_key=issued.api_key.access_key,
        secret_key=issued.secret,
        admin_username=administrator.username,
        admin_password=password,
    )


def _finish_publishing(file: CredentialsFile) -> None:
    """Publish the draft of a start that was killed between its commit and its rename."""
    draft, published = file.read_draft(), file.read()
    if draft and works(draft) and not (published and works(published)):
        file.set_aside()
        file.publish()
    file.discard_draft()


def _database_name() -> str:
    """The database in error messages, without its password."""
    config = connection.settings_dict
    host = f"{config['HOST']}:{config['PORT'] or 5432}/" if config["HOST"] else ""
    return f"{connection.display_name} {host}{config['NAME']}"
