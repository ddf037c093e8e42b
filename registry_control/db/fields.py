"""Fields whose meaning must be the same on every database."""

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    _Text = models.CharField[str, str]
else:
    _Text = models.CharField  # generic for the type checker only


class ByteOrderedField(_Text):
    """Text that sorts and compares byte by byte, as the OCI tag list does (checklist 117).

    SQLite does so by itself; PostgreSQL has to be told, or the database's language decides.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """Name the collation where the database needs it."""
        parameters = dict(super().db_parameters(connection))
        if connection.vendor == "postgresql":
            parameters["collation"] = "C"
        return parameters
