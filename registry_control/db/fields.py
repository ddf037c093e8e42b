"""Model fields that behave alike on every database."""

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    _Text = models.CharField[str, str]
else:
    _Text = models.CharField  # generic for the type checker only


class ByteOrderedField(_Text):
    """Text that sorts and compares by its bytes, as the OCI tag list does (OCI 117).

    That is SQLite's default. PostgreSQL's default is the collation of the database.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """Add the collation "C" on PostgreSQL."""
        parameters = dict(super().db_parameters(connection))
        if connection.vendor == "postgresql":
            parameters["collation"] = "C"
        return parameters


class Last32(models.Func):
    """The last 32 characters of a text, in the same SQL on both databases."""

    template = "substr(%(expressions)s, length(%(expressions)s) - 31)"
    output_field = models.CharField()
