"""The wire formats of images and tags."""

from typing import Any, Final

from rest_framework import serializers

from registry_control.access.policy import Visibility
from registry_control.catalog.models import Image, Tag
from registry_control.common.models import Status
from registry_control.rest.serializers import Id, ListQuery, Text, order_field

# What clients send that have nothing to say: the first value of their type.
UNSET: Final = "visibility_unknown"


class ImageSerializer(serializers.Serializer[Image]):
    """An image as clients see it: always all ten keys."""

    id = serializers.UUIDField()
    name = serializers.CharField(help_text="All that follows the namespace; it may have slashes.")
    namespace_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Status.choices)
    status_message = serializers.CharField()
    visibility = serializers.ChoiceField(choices=[policy.value for policy in Visibility])
    size = serializers.IntegerField(help_text="Bytes; what several of its tags have counts once.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    tags = serializers.SerializerMethodField(help_text="Names only.")

    def get_tags(self, image: Image) -> list[str]:
        """Take them from the context, where they are by the image's id for a whole page."""
        names: list[str] = self.context["names"].get(image.pk, [])
        return names


class TagSerializer(serializers.Serializer[Tag]):
    """A tag as clients see it: always all seven keys."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    image_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Status.choices)
    digest = serializers.CharField(help_text="Of the manifest; other tags may have the same.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ImageListSerializer(serializers.Serializer[Any]):
    """A page of images."""

    images = ImageSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class TagListSerializer(serializers.Serializer[Any]):
    """A page of tags."""

    tags = TagSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class ImageQuery(ListQuery):
    """Filters (exact, and all of them must match), order and page."""

    order_by = order_field("created_at", "name")
    namespace_id = Id(required=False)
    organization_id = Id(required=False)
    project_id = Id(required=False)
    name = Text(required=False)


class TagQuery(ListQuery):
    """Filter (exact), order and page."""

    order_by = order_field("created_at", "name")
    name = Text(required=False)


class UpdateImageSerializer(serializers.Serializer[Any]):
    """What is absent, null or `visibility_unknown` stays as it is."""

    visibility = serializers.ChoiceField(
        choices=[UNSET, *(policy.value for policy in Visibility)], default=UNSET, allow_null=True
    )

    def validate_visibility(self, value: str | None) -> str | None:
        """Take the client's word for nothing as nothing."""
        return None if value == UNSET else value
