"""Values in the query string of an administration page, which anybody can edit in the address bar.

Django validates most of them when it builds a query. The rest fail when the database runs it: a year 0, a NUL
character, a number that no column holds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.core.exceptions import BadRequest, FieldError, ValidationError
from django.db import DatabaseError, InterfaceError, OperationalError, models
from django.http import HttpRequest

LONGEST_VALUE: Final = 500  # characters; SQLite refuses expressions that are too deep or patterns too long

_BAD_VALUE: Final = (DatabaseError, ValidationError, FieldError, ValueError, TypeError, ArithmeticError)


@contextmanager
def refusing_bad_values() -> Iterator[None]:
    """Turn the errors that a wrong lookup value causes into a 400.

    Raises:
        BadRequest: the database or the field refused a value.
    """
    try:
        yield
    except (OperationalError, InterfaceError):
        raise  # the database is unavailable: the value may be right
    except _BAD_VALUE as error:
        raise BadRequest("a value in the query string or form is not valid") from error


def check_lengths(request: HttpRequest) -> None:
    """Refuse values that are longer than any filter or search needs.

    Raises:
        BadRequest: a value is longer than LONGEST_VALUE.
    """
    if any(len(value) > LONGEST_VALUE for values in request.GET.lists() for value in values[1]):
        raise BadRequest(f"a value in the query string is longer than {LONGEST_VALUE} characters")


def field_value(model: type[models.Model], name: str, text: str) -> Any:  # noqa: ANN401 - of the field's type
    """The value that the named field of the model reads from `text`, such as an id for a foreign key.

    Raises:
        ValidationError: the field cannot hold the value.
    """
    field = model._meta.get_field(name)
    if isinstance(field, models.ForeignKey):
        field = field.target_field
    if "\0" in text or not isinstance(field, models.Field):
        raise ValidationError(f"{name} has no such value")
    return field.to_python(text)
