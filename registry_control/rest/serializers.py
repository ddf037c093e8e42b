"""Strict serializer fields, the query parameters of lists, and the serializers of errors.

The fields of Django REST framework convert 5 to "5" and "yes" to true, and trim text. These fields reject a
value of another JSON type instead (ADR 11).
"""

from collections.abc import Mapping
from typing import Any, Final, Never
from uuid import UUID

from rest_framework import serializers

from registry_control.common.models import SHOWN_STATUSES, Status
from registry_control.rest.identifiers import parse_id

PAGE_SIZE: Final = 20
PAGE_SIZE_LIMIT: Final = 100


class Text(serializers.CharField):
    """A string exactly as sent, without NUL characters and lone surrogates."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: object) -> str:
        """Reject other types than strings."""
        return super().to_internal_value(data) if isinstance(data, str) else _fail(self, "invalid")


class Flag(serializers.BooleanField):
    """A boolean."""

    def to_internal_value(self, data: object) -> bool:
        """Reject other types than booleans."""
        return data if isinstance(data, bool) else _fail(self, "invalid", input=data)


class Id(serializers.UUIDField):
    """A UUID with hyphens."""

    def to_internal_value(self, data: object) -> UUID:
        """Reject other types and other forms of UUIDs."""
        found = parse_id(data) if isinstance(data, str) else None
        return found if found is not None else _fail(self, "invalid", value=data)


def _fail(field: serializers.Field[Any, Any, Any, Any], key: str, **values: object) -> Never:
    field.fail(key, **values)
    raise AssertionError  # `fail` always raises, but is not annotated with Never


class StatusField(serializers.ChoiceField):
    """A status as the v1 API names it: what is in the recycle bin is deleted."""

    def __init__(self, **options: Any) -> None:
        """Offer the statuses that the API shows."""
        super().__init__(choices=SHOWN_STATUSES, **options)

    def to_representation(self, value: str) -> str:
        """Show `recycled` as `deleting`."""
        shown: str = super().to_representation(Status.DELETING if value == Status.RECYCLED else value)
        return shown


class ListQuery(serializers.Serializer[Any]):
    """Query parameters that select a page; pages are numbered from 1, and 0 means 1."""

    page = serializers.IntegerField(min_value=0, default=1)
    page_size = serializers.IntegerField(min_value=1, max_value=PAGE_SIZE_LIMIT, default=PAGE_SIZE)


class NoUnknown(serializers.Serializer[Any]):
    """A base of bodies and query parameters of which no other fields are accepted."""

    def to_internal_value(self, data: Any) -> Any:  # noqa: ANN401 - as in the base class
        """Reject parameters that have no field."""
        if isinstance(data, Mapping) and (unknown := sorted(set(data) - set(self.fields))):
            messages = {name: ["there is no such parameter"] for name in unknown}
            raise serializers.ValidationError(messages, code="unknown")
        return super().to_internal_value(data)


class NoQuery(NoUnknown):
    """No query parameters."""


def order_field(*names: str) -> serializers.ChoiceField:
    """The field `order_by`: each name, ascending and descending."""
    choices = [f"{name}_{direction}" for name in names for direction in ("asc", "desc")]
    return serializers.ChoiceField(choices=choices, default="created_at_asc")


def validated(serializer: type[serializers.Serializer[Any]], data: object) -> dict[str, Any]:
    """Validate a body or query parameters.

    Raises:
        ValidationError: for all invalid arguments.
    """
    found = serializer(data=data)
    found.is_valid(raise_exception=True)
    values: dict[str, Any] = found.validated_data
    return values


class ErrorSerializer(serializers.Serializer[Any]):
    """The fields of every error: a type for programs and a message for people."""

    type = serializers.CharField()
    message = serializers.CharField()


class ArgumentDetailSerializer(serializers.Serializer[Any]):
    """One wrong argument."""

    argument_name = serializers.CharField()
    reason = serializers.CharField(help_text="unknown, required, format or constraint")
    help_message = serializers.CharField()


class InvalidArgumentsSerializer(ErrorSerializer):
    """`invalid_arguments`: each wrong argument."""

    details = ArgumentDetailSerializer(many=True)


class DeniedAuthenticationSerializer(ErrorSerializer):
    """`denied_authentication`: how the caller authenticated, and what is wrong with it."""

    method = serializers.CharField(help_text="api_key or jwt")
    reason = serializers.CharField(help_text="invalid_argument, not_found or expired")
    help_message = serializers.CharField()


class PermissionDetailSerializer(serializers.Serializer[Any]):
    """One missing right."""

    action = serializers.CharField()
    resource = serializers.CharField()


class PermissionsDeniedSerializer(ErrorSerializer):
    """`permissions_denied`: the missing rights."""

    details = PermissionDetailSerializer(many=True)


class ResourceErrorSerializer(ErrorSerializer):
    """`not_found` and `locked`: the resource that the error is about."""

    resource = serializers.CharField()
    resource_id = serializers.CharField()


class ConflictSerializer(ResourceErrorSerializer):
    """`already_exists` has a help message, `transient_state` the current state."""

    help_message = serializers.CharField(required=False)
    current_state = serializers.CharField(required=False)
