"""Migrations that are whole, whenever somebody is killed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor as _Editor
else:
    _Editor = object


class FalsyList(list[Any]):
    """Statements that run at the end of a migration, in its transaction; as if there were none.

    Where there are some, Django writes a migration down as done after the commit. Who was killed in between
    could never migrate again: the tables would be there already.
    """

    def __bool__(self) -> bool:
        return False


class AtomicMigrationRecord(_Editor):
    """A schema editor whose migrations are written down in their own transaction, if they have one."""

    atomic_migration: bool

    @property
    def deferred_sql(self) -> list[Any]:
        """What runs at the end."""
        return self._deferred

    @deferred_sql.setter
    def deferred_sql(self, statements: list[Any]) -> None:
        self._deferred = FalsyList(statements) if self.atomic_migration else statements
