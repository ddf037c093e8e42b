"""The wire formats of scrubbing."""

from typing import Any, Final

from rest_framework import serializers

from registry_control.integrity.selectors.report import MOST, Reconciled, Report, State


class FaultSerializer(serializers.Serializer[Any]):
    """Content that was found damaged or missing. Requests for a quarantined blob get 404."""

    digest = serializers.CharField()
    images = serializers.ListField(child=serializers.CharField(), help_text="Names, 200 at most.")
    found_at = serializers.DateTimeField()
    state = serializers.ChoiceField(choices=[*State])
    detail = serializers.CharField(help_text="What was found.")
    healed_at = serializers.DateTimeField(allow_null=True)


_LISTED: Final = (
    f"At most {MOST}: the quarantined ones first, then the healed ones, the newest of each first."
)


class ReconciledSerializer(serializers.Serializer[Reconciled]):
    """The last comparison of database and storage."""

    period = serializers.IntegerField(help_text="Seconds between two comparisons; 0: never.")
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True, help_text="Null while it runs.")
    unknown_objects = serializers.IntegerField(
        help_text="Objects that no row knows; each is removed a grace period after it was seen first."
    )
    unknown_bytes = serializers.IntegerField()
    foreign_objects = serializers.IntegerField(help_text="Files of other programs, which stay.")


class ScrubSerializer(serializers.Serializer[Report]):
    """The state of the stored content as a whole."""

    period = serializers.IntegerField(help_text="Seconds within which all content is read; 0: never.")
    covered = serializers.FloatField(help_text="Share of the bytes that were hashed within the period.")
    damaged = FaultSerializer(many=True, help_text=_LISTED)
    damaged_total = serializers.IntegerField(help_text="Findings, also those that `damaged` lacks.")
    missing = FaultSerializer(many=True, help_text=_LISTED)
    missing_total = serializers.IntegerField(help_text="Findings, also those that `missing` lacks.")
    quarantined_total = serializers.IntegerField(
        help_text="Blobs that are damaged or missing now, also those that the lists lack."
    )
    waiting = serializers.IntegerField(
        help_text="Blobs that are looked at again: first findings to confirm, and quarantined ones."
    )
    reconcile = ReconciledSerializer()
    # DRF removes declared fields from the class, whose property `errors` stays.
    errors = serializers.ListField(child=serializers.CharField())  # type: ignore[assignment]
