"""From nothing to a registry that somebody can use: the schema, the first administrator, the first key.

A start may be killed at any line. All rows are made in one transaction, and its last step puts the
credentials on the disk as a draft; the draft becomes `credentials.json` after the commit. So

- killed before the commit: no rows, and at most a draft, which the next start overwrites;
- killed after it: the rows and their draft are both there, and the next start publishes the draft.

`credentials.json` itself thus never holds a key that does not work. A database with somebody in it is
never given anybody again, so an operator may keep the credentials elsewhere and remove the file.
"""

import secrets
from dataclasses import replace
from typing import Final

from django.core.management import call_command
from django.db import Error as AnyDatabaseError
from django.db import connection, transaction
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.loader import MigrationLoader

from registry_control.access.errors import BadCredentials
from registry_control.access.selectors import principal_by_secret
from registry_control.audit.services import SYSTEM
from registry_control.common.errors import AlreadyExists
from registry_control.identity.models import Organization, PermissionSet, User
from registry_control.identity.services import create_api_key, create_organization, create_user, grant_policy
from registry_control.settings.environment import ConfigurationError
from registry_control.standalone.credentials import Credentials, CredentialsFile
from registry_control.standalone.preflight import one_line

_ORGANIZATION: Final = "default"
_ADMINISTRATOR: Final = "admin"


def prepare_database() -> None:
    """Reach the database and bring its tables up to date.

    Raises:
        ConfigurationError: it does not answer, is no database, or was made by a newer release.
    """
    if connection.settings_dict["NAME"] == ":memory:":
        raise ConfigurationError("REGISTRY_DATABASE_URL: a database in memory cannot be shared by processes")
    try:
        loader = MigrationLoader(connection)
        _refuse_newer(loader)
        # Also when there is nothing to do: it finishes what a killed start left of Django's own rows.
        call_command("migrate", interactive=False, verbosity=0)
    except (AnyDatabaseError, InconsistentMigrationHistory) as error:
        raise ConfigurationError(
            f"REGISTRY_DATABASE_URL: {_place()} cannot be used: {one_line(error)}"
        ) from error
    connection.close()  # migrations may wait for ever on it, what follows may not


def first_start(file: CredentialsFile, *, control_url: str, registry_host: str) -> Credentials | None:
    """Make the first organization, administrator and key, unless the database has somebody already.

    A later start only corrects the two addresses in the file, when they have changed.

    Returns:
        What the file says, or None when there is no file (any more).

    Raises:
        ConfigurationError: another process is doing the same on the same database.
    """
    if not (Organization.objects.exists() or User.objects.exists()):
        _make_everything(file, control_url=control_url, registry_host=registry_host)
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
    """Whether the key stands, in this database and under the present REGISTRY_SECRET_KEY."""
    try:
        return principal_by_secret(credentials.secret_key).access_key == credentials.access_key
    except BadCredentials:
        return False


def _refuse_newer(loader: MigrationLoader) -> None:
    """Code that does not know all of the schema could break what the newer code relies on."""
    ours = loader.migrated_apps
    unknown = [
        f"{app}.{name}"
        for app, name in sorted(loader.applied_migrations)
        if app in ours and (app, name) not in loader.disk_migrations
    ]
    if unknown:
        raise ConfigurationError(
            f"REGISTRY_DATABASE_URL: {_place()} was made by a newer release (it has {unknown[-1]}):"
            " start that release, or restore the backup from before the upgrade"
        )


def _make_everything(file: CredentialsFile, *, control_url: str, registry_host: str) -> None:
    try:
        with transaction.atomic():
            made = _make_rows(control_url=control_url, registry_host=registry_host)
            file.draft(made)
    except AlreadyExists as error:
        raise ConfigurationError(
            "another process has just made the first administrator of this database: start again"
        ) from error
    # The file of another database, perhaps still in use, when REGISTRY_DATABASE_URL has changed.
    file.set_aside()
    file.publish()


def _make_rows(*, control_url: str, registry_host: str) -> Credentials:
    password = secrets.token_urlsafe(18)
    organization = create_organization(actor=SYSTEM, name=_ORGANIZATION)
    administrator = create_user(
        actor=SYSTEM,
        username=_ADMINISTRATOR,
        organization=organization,
        password=password,
        is_administrator=True,
    )
    grant_policy(actor=SYSTEM, holder=administrator, permission_set=PermissionSet.FULL_ACCESS)
    issued = create_api_key(actor=SYSTEM, holder=administrator, description="made at the first start")
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


def _place() -> str:
    """Which database, without its password."""
    config = connection.settings_dict
    host = f"{config['HOST']}:{config['PORT'] or 5432}/" if config["HOST"] else ""
    return f"{connection.display_name} {host}{config['NAME']}"
