"""The checks of what every process needs: database, migrations, secret key, storage."""

from functools import lru_cache
from typing import Any, Final

from django.db import Error as AnyDatabaseError
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from registry_control.common.signals import storage_prepared
from registry_control.serving.impatient import impatient_connection
from registry_control.serving.models import Installation
from registry_control.serving.readiness import CheckFailed, Readiness
from registry_control.serving.secret_key import is_own
from registry_data.storage.base import BlobStore, StorageError

DATABASE: Final = "database"
MIGRATIONS: Final = "migrations"
SECRET_KEY: Final = "secret_key"  # noqa: S105 - the name of a check
STORAGE: Final = "storage"


def readiness(store: BlobStore) -> Readiness:
    """The checks of this process. A missing worker, broker or free space does not make it unready."""
    return Readiness({(DATABASE, MIGRATIONS, SECRET_KEY): check_database, (STORAGE,): StorageCheck(store)})


def check_database() -> None:
    """Read the applied migrations and the key of the installation over a new connection.

    A new one, because a server that accepts no connections may still serve those that are open.

    Raises:
        CheckFailed: the database does not respond, lacks a migration, or was set up with another secret key.
    """
    try:
        with impatient_connection() as own, own.cursor() as cursor:
            _check_migrations(own, cursor)
            cursor.execute(f"SELECT secret_key_hash FROM {Installation._meta.db_table}")  # noqa: S608
            recorded = cursor.fetchone()
    except AnyDatabaseError as error:
        raise CheckFailed(DATABASE, " ".join(str(error).split())) from error
    if recorded is not None and not is_own(recorded[0]):
        raise CheckFailed(SECRET_KEY, "the database was set up with another REGISTRY_SECRET_KEY")


def _check_migrations(own: Any, cursor: Any) -> None:  # noqa: ANN401 - Django's, several types
    applied: set[tuple[str, str]] = set()
    if "django_migrations" in own.introspection.table_names(cursor):
        cursor.execute("SELECT app, name FROM django_migrations")
        applied = set(cursor.fetchall())
    # More than ours are applied while a newer release is being rolled out.
    if missing := sorted(_required_migrations() - applied):
        app, name = missing[0]
        text = f"{len(missing)} not applied, for example {app}.{name}: run `manage.py migrate`"
        raise CheckFailed(MIGRATIONS, text)


@lru_cache(maxsize=1)
def _required_migrations() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


class StorageCheck:
    """Creates what the store needs at the first success; later it only checks that it is still there.

    A folder that is missing later was unmounted: an empty one in its place would answer "not found" for every
    image. So would a wrong bucket, or a disk that was not mounted at the start: before the first success, a
    sample of the content is looked at (ADR 34).
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._is_prepared = False

    def __call__(self) -> None:
        """Check the store.

        Raises:
            CheckFailed: it does not respond, is not writable, its bucket or folder is missing, or it is
                likely not that of the database.
        """
        try:
            if self._is_prepared:
                self._store.check_exists()
            else:
                self._store.check()
                self._is_prepared = self._was_examined()
        except StorageError as error:
            raise CheckFailed(STORAGE, str(error)) from error

    def _was_examined(self) -> bool:
        """Compare the store with the database; False if that does not respond, which another check reports.

        Raises:
            StorageError: they do not belong together.
        """
        try:
            storage_prepared.send(sender=StorageCheck, store=self._store)
        except AnyDatabaseError:
            return False
        finally:
            connection.close()  # of this thread
        return True
