"""JSON formats of targets, rules and executions."""

from typing import Any, Final

from rest_framework import serializers

from registry_control.replication.models import Direction, Execution, ExecutionStatus, Rule, Target, Trigger
from registry_control.rest.serializers import Flag, Id, ListQuery, NoUnknown, Text, order_field

NAME_LENGTH: Final = 255  # characters
PASSWORD_LENGTH: Final = 4096


class TargetSerializer(serializers.Serializer[Target]):
    """A target as clients see it: never with its password."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    url = serializers.CharField()
    username = serializers.CharField()
    insecure = serializers.BooleanField(help_text="Whether any TLS certificate is accepted.")
    organization_id = serializers.UUIDField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class TargetListSerializer(serializers.Serializer[Any]):
    """A page of targets."""

    targets = TargetSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class TargetQuery(NoUnknown, ListQuery):
    """Filters (exact, and all of them must match), order and page."""

    order_by = order_field("created_at", "name")
    organization_id = Id(required=False)
    name = Text(required=False)


class CreateTargetSerializer(serializers.Serializer[Any]):
    """Without an organization: that of the API key, which is the only one possible."""

    name = Text(max_length=NAME_LENGTH)
    url = Text(max_length=2048, help_text="https://HOST[:PORT] or http://HOST[:PORT].")
    username = Text(default="", allow_blank=True, max_length=NAME_LENGTH)
    password = Text(default="", allow_blank=True, max_length=PASSWORD_LENGTH, write_only=True)
    insecure = Flag(default=False)
    organization_id = Id(default=None, allow_null=True)


class UpdateTargetSerializer(serializers.Serializer[Any]):
    """What is absent or null stays as it is; a new `url` without a `password` removes the password."""

    name = Text(required=False, allow_null=True, max_length=NAME_LENGTH)
    url = Text(required=False, allow_null=True, max_length=2048)
    username = Text(required=False, allow_null=True, allow_blank=True, max_length=NAME_LENGTH)
    password = Text(
        required=False, allow_null=True, allow_blank=True, max_length=PASSWORD_LENGTH, write_only=True
    )
    insecure = Flag(required=False, allow_null=True)


class CheckedSerializer(serializers.Serializer[Any]):
    """Whether the target answers and accepts the credentials; otherwise the message says why not."""

    ok = serializers.BooleanField()
    message = serializers.CharField()


class RuleSerializer(serializers.Serializer[Rule]):
    """A rule as clients see it."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    direction = serializers.ChoiceField(choices=Direction.choices)
    target_id = serializers.UUIDField()
    namespace_id = serializers.UUIDField()
    repositories = serializers.ListField(child=serializers.CharField())
    tags = serializers.CharField()
    destination = serializers.CharField()
    on_push = serializers.BooleanField()
    cron = serializers.SerializerMethodField(help_text="minute hour day month weekday, in UTC; or null.")
    enabled = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()

    def get_cron(self, rule: Rule) -> str | None:
        """The schedule, if there is one."""
        return rule.cron or None


class RuleListSerializer(serializers.Serializer[Any]):
    """A page of rules."""

    rules = RuleSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class RuleQuery(NoUnknown, ListQuery):
    """Filters (exact, and all of them must match), order and page."""

    order_by = order_field("created_at", "name")
    namespace_id = Id(required=False)
    target_id = Id(required=False)
    name = Text(required=False)


class CreateRuleSerializer(serializers.Serializer[Any]):
    """A new rule. For `push` the source is the namespace, and `repositories` are globs of its images."""

    name = Text(max_length=NAME_LENGTH)
    direction = serializers.ChoiceField(choices=Direction.choices)
    target_id = Id()
    namespace_id = Id()
    repositories = serializers.ListField(
        child=Text(max_length=255),
        help_text="Names at the source, or globs of * and ?; for `pull`, globs need the source's catalogue.",
    )
    tags = Text(default="*", max_length=255, help_text="A glob of * and ?.")
    destination = Text(
        default=None,
        allow_null=True,
        max_length=255,
        help_text="The repository at the target, for `pull` the image in the namespace; {namespace} and"
        " {image} stand for the source's. Default: {namespace}/{image} for `push`, {image} for `pull`.",
    )
    on_push = Flag(default=False, help_text="Run by each push to the namespace; `push` rules only.")
    cron = Text(default=None, allow_null=True, allow_blank=True, max_length=255)
    enabled = Flag(default=True)


class UpdateRuleSerializer(serializers.Serializer[Any]):
    """What is absent stays as it is; `cron` null removes the schedule."""

    name = Text(required=False, allow_null=True, max_length=NAME_LENGTH)
    target_id = Id(required=False, allow_null=True)
    repositories = serializers.ListField(child=Text(max_length=255), required=False, allow_null=True)
    tags = Text(required=False, allow_null=True, max_length=255)
    destination = Text(required=False, allow_null=True, max_length=255)
    on_push = Flag(required=False, allow_null=True)
    cron = Text(required=False, allow_null=True, allow_blank=True, max_length=255)
    enabled = Flag(required=False, allow_null=True)


class ExecutionSerializer(serializers.Serializer[Execution]):
    """An execution as clients see it."""

    id = serializers.UUIDField()
    rule_id = serializers.UUIDField()
    trigger = serializers.ChoiceField(choices=Trigger.choices)
    status = serializers.ChoiceField(choices=ExecutionStatus.choices)
    images_total = serializers.IntegerField(help_text="Tags, and pushed manifests without a tag.")
    images_done = serializers.IntegerField()
    bytes_total = serializers.IntegerField(help_text="Bytes of the distinct blobs of its images.")
    bytes_done = serializers.IntegerField(help_text="Bytes sent; what was there already counts nothing.")
    errors = serializers.ListField(  # type: ignore[assignment]  # DRF has an attribute of this name
        child=serializers.CharField(),
        source="shown_errors",
        help_text="Sentences: what failed, and why the work is being tried again.",
    )
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class ExecutionListSerializer(serializers.Serializer[Any]):
    """A page of executions."""

    executions = ExecutionSerializer(many=True)
    total_count = serializers.IntegerField(help_text="On all pages.")


class ExecutionQuery(NoUnknown, ListQuery):
    """Filters (exact, and all of them must match), order and page."""

    order_by = order_field("created_at")
    rule_id = Id(required=False)
    status = serializers.ChoiceField(choices=ExecutionStatus.choices, required=False)
