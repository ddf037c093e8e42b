"""Migrations that are atomic together with their record in `django_migrations`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor as _Editor
else:
    _Editor = object


class FalsyList(list[Any]):
    """A list that is always falsy.

    Django records a migration inside the migration's own transaction only if `deferred_sql` is falsy,
    otherwise after COMMIT. A kill in between would leave tables without the record, and every later `migrate`
    would fail because the tables exist. The deferred statements themselves run before COMMIT either way.
    """

    def __bool__(self) -> bool:
        return False


class AtomicMigrationRecord(_Editor):
    """Mixin for schema editors: an atomic migration is recorded in its own transaction."""

    atomic_migration: bool

    @property
    def deferred_sql(self) -> list[Any]:
        """Statements to run at the end of the migration, for example the creation of foreign keys."""
        return self._deferred

    @deferred_sql.setter
    def deferred_sql(self, statements: list[Any]) -> None:
        self._deferred = FalsyList(statements) if self.atomic_migration else statements
