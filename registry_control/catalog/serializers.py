"""The wire formats of images and tags."""

from typing import Any, Final
from uuid import UUID

from rest_framework import serializers

from registry_control.access.policy import Visibility
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.selectors.history import Named
from registry_control.catalog.selectors.listing import TAGS_SHOWN
from registry_control.rest.serializers import Id, ListQuery, NoUnknown, StatusField, Text, order_field

_LAST_PULLED: Final = "Exact to an hour; null if it was never pulled since the registry records pulls."

# What clients send that have nothing to say: the first value of their type.
UNSET: Final = "visibility_unknown"


class ImageSerializer(serializers.Serializer[Image]):
    """An image as clients see it: always all thirteen keys."""

    id = serializers.UUIDField()
    name = serializers.CharField(help_text="All that follows the namespace; it may have slashes.")
    namespace_id = serializers.UUIDField()
    status = StatusField()
    status_message = serializers.CharField()
    visibility = serializers.ChoiceField(choices=[policy.value for policy in Visibility])
    size = serializers.IntegerField(
        help_text="Bytes of the distinct blobs that its tags reach, by children and referrers too."
    )
    untagged_size = serializers.IntegerField(
        help_text="Bytes of the distinct blobs that only its other manifests list."
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    last_pulled_at = serializers.DateTimeField(allow_null=True, help_text=_LAST_PULLED)
    tags = serializers.SerializerMethodField(help_text="Names of its newest 100 tags, in byte order.")
    tags_total = serializers.SerializerMethodField(
        help_text="How many tags it has; above 100, those whose deletion is under way count for some seconds."
    )

    def get_tags(self, image: Image) -> list[str]:
        """The names, read for a whole page at once."""
        names: list[str] = self.context["newest_tags"].get(image.pk, [])
        return names

    def get_tags_total(self, image: Image) -> int:
        """The number, without counting rows: fewer names than a list shows are all there are."""
        shown = len(self.get_tags(image))
        return shown if shown < TAGS_SHOWN else image.tag_rows


class TagSerializer(serializers.Serializer[Tag]):
    """A tag as clients see it: always all eight keys."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    image_id = serializers.UUIDField()
    status = StatusField()
    digest = serializers.CharField(help_text="Of the manifest; other tags may have the same.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    last_pulled_at = serializers.DateTimeField(allow_null=True, help_text=_LAST_PULLED)


class NamedSerializer(serializers.Serializer[Named]):
    """A manifest that a tag named for some time."""

    digest = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True, help_text="Null for the present one.")
    by = serializers.CharField(help_text="Who pushed it; empty if that was before this was recorded.")

    def get_fields(self) -> dict[str, Any]:
        """Add `from`, which is a keyword of Python."""
        return {**super().get_fields(), "from": serializers.DateTimeField(source="since")}


class HistorySerializer(serializers.Serializer[Any]):
    """A page of the history of a tag."""

    history = NamedSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class HistoryQuery(NoUnknown, ListQuery):
    """Order and page; by default the present manifest comes first."""

    order_by = serializers.ChoiceField(choices=["from_desc", "from_asc"], default="from_desc")


class ManifestSerializer(serializers.Serializer[Manifest]):
    """A manifest as clients see it: always all eleven keys."""

    id = serializers.SerializerMethodField(help_text="For this API only: clients of OCI know the digest.")
    image_id = serializers.UUIDField()
    digest = serializers.CharField()
    media_type = serializers.CharField()
    artifact_type = serializers.CharField(help_text="Empty for images and indexes.")
    subject_digest = serializers.CharField(help_text="What a signature or SBOM refers to; else empty.")
    size = serializers.IntegerField(help_text="Bytes of the manifest itself, without blobs.")
    is_reachable = serializers.BooleanField(
        help_text="Whether it has a tag, or a tag reaches it as a child of an index or as a referrer."
    )
    tags = serializers.SerializerMethodField(help_text="Names of its newest 100 tags, in byte order.")
    created_at = serializers.DateTimeField()
    last_pulled_at = serializers.DateTimeField(allow_null=True, help_text=_LAST_PULLED)

    def get_id(self, manifest: Manifest) -> UUID:
        """The number of the row in the form of all other ids."""
        return UUID(int=manifest.pk)

    def get_tags(self, manifest: Manifest) -> list[str]:
        """The names, read for a whole page at once."""
        names: list[str] = self.context["newest_tags"].get(manifest.pk, [])
        return names


class ManifestListSerializer(serializers.Serializer[Any]):
    """A page of manifests."""

    manifests = ManifestSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class ManifestQuery(NoUnknown, ListQuery):
    """The image, filters (exact, and all of them must match), order and page."""

    order_by = order_field("created_at")
    image_id = Id()
    digest = Text(required=False)
    is_reachable = serializers.ChoiceField(
        choices=["true", "false"], required=False, help_text="`false` lists what no tag reaches."
    )

    def validate_is_reachable(self, value: str) -> bool:
        """The text of a query as the truth value it stands for."""
        return value == "true"


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
