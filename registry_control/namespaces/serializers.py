"""JSON formats of namespaces."""

from typing import Any, Final

from django.conf import settings
from rest_framework import serializers

from registry_control.namespaces.models import Namespace
from registry_control.namespaces.policy import NAME_RULE
from registry_control.rest.serializers import Flag, Id, ListQuery, StatusField, Text, order_field

DESCRIPTION_LENGTH: Final = 4096  # characters


class NamespaceSerializer(serializers.Serializer[Namespace]):
    """A namespace as clients see it: always all fifteen keys."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    organization_id = serializers.UUIDField(source="project.organization_id")
    project_id = serializers.UUIDField()
    status = StatusField()
    status_message = serializers.CharField()
    endpoint = serializers.SerializerMethodField(help_text="What names of images begin with.")
    is_public = serializers.BooleanField(help_text="Whether anyone may pull its images that inherit.")
    size = serializers.IntegerField(help_text="Bytes: the sum of the sizes of its images.")
    untagged_size = serializers.IntegerField(help_text="Bytes: the sum of its images' untagged sizes.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    image_count = serializers.IntegerField()
    region = serializers.SerializerMethodField()

    def get_endpoint(self, namespace: Namespace) -> str:
        """Host and namespace, without a scheme."""
        return f"{settings.PUBLIC_HOST}/{namespace.name}"

    def get_region(self, namespace: Namespace) -> str:  # noqa: ARG002
        """The only region of this registry."""
        return settings.REGION


class NamespaceListSerializer(serializers.Serializer[Any]):
    """A page of namespaces."""

    namespaces = NamespaceSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class NamespaceQuery(ListQuery):
    """Filters (exact, and all of them must match), order and page."""

    order_by = order_field("created_at", "description", "name")
    organization_id = Id(required=False)
    project_id = Id(required=False)
    name = Text(required=False)


class CreateNamespaceSerializer(serializers.Serializer[Any]):
    """Without a project or an organization: the default project of the API key."""

    name = Text(help_text=NAME_RULE)
    description = Text(default="", allow_blank=True, max_length=DESCRIPTION_LENGTH)
    is_public = Flag(default=False)
    project_id = Id(default=None, allow_null=True)
    organization_id = Id(default=None, allow_null=True, help_text="Deprecated: its default project.")


class UpdateNamespaceSerializer(serializers.Serializer[Any]):
    """What is absent or null stays as it is."""

    description = Text(default=None, allow_null=True, allow_blank=True, max_length=DESCRIPTION_LENGTH)
    is_public = Flag(default=None, allow_null=True)
