"""Functions of the database for queries of the ORM."""

from django.db.models import DateTimeField, Func


class DatabaseNow(Func):
    """The time of the database server; with SQLite, of the machine, with microseconds (ADR 66)."""

    function = "statement_timestamp"
    arity = 0
    output_field = DateTimeField()
