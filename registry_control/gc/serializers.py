"""The wire formats of garbage collection."""

from typing import Any, Final

from rest_framework import serializers

from registry_control.gc.models import GcRun
from registry_control.gc.selectors.explanation import Explanation, State
from registry_control.rest.serializers import Flag, ListQuery, NoUnknown, Text
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError

_ORDERS: Final = ("started_at_desc", "started_at_asc")


class NoBody(NoUnknown):
    """No fields."""


class RunQuery(NoUnknown, ListQuery):
    """Order and page; by default the newest run comes first."""

    order_by = serializers.ChoiceField(choices=_ORDERS, default=_ORDERS[0])


class ExplainQuery(NoUnknown):
    """The digest of a blob or a manifest."""

    digest = Text()

    def validate_digest(self, value: str) -> str:
        """Reject what no content can have."""
        try:
            return str(Digest.parse(value))
        except ProtocolError as error:
            raise serializers.ValidationError(error.message) from error


class StartRunSerializer(NoUnknown):
    """A dry run removes nothing and counts what a run would remove."""

    dry_run = Flag(default=False)


class QueueSerializer(serializers.Serializer[Any]):
    """The unreferenced blobs that wait for their deletion."""

    entries = serializers.IntegerField()
    bytes = serializers.IntegerField()
    oldest_due_at = serializers.DateTimeField(allow_null=True)
    stopped_by_breaker = serializers.BooleanField()
    reason = serializers.CharField(
        allow_blank=True, help_text="Why garbage collection has stopped; empty if it works."
    )


class LineSerializer(serializers.Serializer[Any]):
    """Blobs that one reason keeps."""

    title = serializers.CharField()
    blobs = serializers.IntegerField()
    bytes = serializers.IntegerField()
    advice = serializers.CharField(help_text="What would have to happen for them to go.")


class FailureSerializer(serializers.Serializer[Any]):
    """An error of the storage, and how many of the first thousand failed deletions got it."""

    error = serializers.CharField()
    blobs = serializers.IntegerField()


class FindingSerializer(serializers.Serializer[Any]):
    """What else keeps bytes in the storage, or makes the lines wrong."""

    kind = serializers.CharField(help_text="A stable name.")
    text = serializers.CharField(help_text="For people, with what to do.")
    number = serializers.IntegerField(allow_null=True)
    bytes = serializers.IntegerField(allow_null=True)


class ReportSerializer(serializers.Serializer[Any]):
    """Why the disk has not shrunk."""

    counted_at = serializers.DateTimeField(
        allow_null=True, help_text="When the lines were counted; null: not yet."
    )
    lines = LineSerializer(many=True)
    queue = QueueSerializer()
    failures = FailureSerializer(many=True)
    findings = FindingSerializer(many=True)
    stopped = serializers.CharField(allow_blank=True, help_text="Why the circuit breaker has stopped.")
    held = serializers.CharField(allow_blank=True, help_text="Why nothing is deleted by its age.")


class RunSerializer(serializers.Serializer[GcRun]):
    """A run. The collector's continuous work is summed up as one run an hour."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=GcRun.Kind.choices)
    status = serializers.ChoiceField(choices=GcRun.Status.choices)
    dry_run = serializers.BooleanField()
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    blobs = serializers.IntegerField()
    bytes = serializers.IntegerField()
    manifests = serializers.IntegerField(help_text="Of deleted images, removed in the background.")
    # DRF removes declared fields from the class, whose property `errors` stays.
    errors = serializers.ListField(child=serializers.CharField())  # type: ignore[assignment]


class RunListSerializer(serializers.Serializer[Any]):
    """A page of runs."""

    runs = RunSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class ExplanationSerializer(serializers.Serializer[Explanation]):
    """Why content is kept, or when it goes."""

    digest = serializers.CharField()
    state = serializers.ChoiceField(choices=[*State])
    kept_by = serializers.ListField(
        child=serializers.CharField(),
        help_text="Tags, manifests and leases of images that the API key may see, and `images of others`;"
        " at most 200, of which the last is `and more` if there are more.",
    )
    goes_at = serializers.DateTimeField(
        allow_null=True, help_text="Null: not as long as it is kept, or the circuit breaker is not released."
    )
    reason = serializers.CharField(help_text="Also what has stopped the collector, if that keeps the blob.")


class RetentionRuleSerializer(serializers.Serializer[Any]):
    """A rule for the tags that its globs match; a tag is kept if one of the three keeps holds it."""

    images = serializers.CharField(help_text="A glob of * and ?; * matches slashes too.")
    tags = serializers.CharField(help_text="A glob of * and ?.")
    keep_newest = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        help_text="The newest of the image that the rule matches.",
    )
    keep_days_since_tagged = serializers.IntegerField(required=False, allow_null=True, min_value=1)
    keep_days_since_pulled = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, help_text="Until the first pull, the push counts."
    )


class RetentionSerializer(serializers.Serializer[Any]):
    """The retention of a namespace. The first rule whose globs match a tag decides about it."""

    enabled = serializers.BooleanField(required=False, help_text="Default: true.")
    rules = RetentionRuleSerializer(many=True, required=False, help_text="At most 100.")
    untagged_days = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        help_text="Untagged manifests not pulled for that long are removed; null: never.",
    )
    protected_tags = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Globs of tags that can be neither moved nor deleted, even if `enabled` is false.",
    )
    protected_except = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Globs of tags that are not protected."
    )


class PreviewedTagSerializer(serializers.Serializer[Any]):
    """What the rules decide about a tag."""

    image = serializers.CharField()
    tag = serializers.CharField()
    digest = serializers.CharField()
    action = serializers.ChoiceField(choices=["keep", "remove"])
    reason = serializers.CharField()


class RetentionPreviewSerializer(serializers.Serializer[Any]):
    """What an enforcement at this moment would remove."""

    tags = PreviewedTagSerializer(many=True, help_text="All tags of the namespace, by image and name.")
    manifests = serializers.IntegerField(help_text="Untagged manifests that would be removed.")
    bytes = serializers.IntegerField(help_text="Bytes of the blobs that only these link in their images.")
