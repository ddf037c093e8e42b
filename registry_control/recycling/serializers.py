"""The wire formats of the recycle bin."""

from typing import Any, Final

from rest_framework import serializers

from registry_control.namespaces.models import RecycleBinEntry
from registry_control.rest.serializers import Id, ListQuery, NoUnknown, Text

_FIELDS: Final = ("deleted_at", "expires_at", "name", "size")


class EntryQuery(NoUnknown, ListQuery):
    """Filter (exact), order and page; by default the newest deletion comes first."""

    order_by = serializers.ChoiceField(
        choices=[f"{name}_{direction}" for name in _FIELDS for direction in ("asc", "desc")],
        default="deleted_at_desc",
    )
    namespace_id = Id(required=False)


class UsageSerializer(serializers.Serializer[Any]):
    """Bytes in the namespaces of the API key's organization that it may see."""

    organization_id = serializers.UUIDField(allow_null=True)
    size = serializers.IntegerField(help_text="The sum of the sizes of the namespaces.")
    untagged_size = serializers.IntegerField(help_text="The sum of their untagged sizes.")
    recycled_size = serializers.IntegerField(
        help_text="What lies in the recycle bin, and counts in no other size. Of a deleted tag, nothing does."
    )


class RestoreSerializer(NoUnknown):
    """Without a name: the one that it had."""

    name = Text(
        default=None,
        allow_null=True,
        help_text="Another name to restore it under, if the old one is taken. For a manifest, a tag: if"
        " another manifest has exactly one of its tags, this replaces it; otherwise it is a further tag, and"
        " those of its tags that others have stay in the recycle bin, each as an entry of its own.",
    )


class EntrySerializer(serializers.Serializer[RecycleBinEntry]):
    """A deletion that can be undone."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=RecycleBinEntry.Kind.choices)
    name = serializers.CharField(
        help_text="`ns`, `ns/image`, `ns/image:tag` or `ns/image@digest`, as it was when it was deleted."
    )
    namespace_id = serializers.UUIDField(help_text="For a namespace its own id.")
    object_id = serializers.UUIDField(help_text="The id that it had, and has again once it is restored.")
    deleted_at = serializers.DateTimeField()
    deleted_by = serializers.CharField()
    expires_at = serializers.DateTimeField(help_text="When it goes for good.")
    size = serializers.IntegerField(help_text="Bytes that left the sizes when it was deleted.")


class EntryListSerializer(serializers.Serializer[Any]):
    """A page of entries."""

    entries = EntrySerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")
