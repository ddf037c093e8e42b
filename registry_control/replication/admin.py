"""Administration pages of replication. Services make all changes."""

from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe

from registry_control.administration.base import (
    AuditedAdmin,
    ReadOnlyAdmin,
    actor_of,
    human_size,
    link_to,
    link_to_list,
)
from registry_control.administration.forms import OptimisticForm
from registry_control.common.errors import InvalidArgument
from registry_control.replication.models import Direction, Execution, Rule, Target
from registry_control.replication.policy import check_url
from registry_control.replication.remote import check_address
from registry_control.replication.selectors import LIVE_RULE
from registry_control.replication.services import executions, rules, targets
from registry_control.replication.services.rules import DEFAULT_DESTINATION, RuleFields

if TYPE_CHECKING:
    from django.forms import ModelForm


class TargetForm(OptimisticForm):
    """The password can be set and never read."""

    password = forms.CharField(
        required=False,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text="Stored encrypted. Empty: the present one stays, unless the URL changes.",
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # It is no column of the row, so it has no initial value that another administrator could change.
        self._shown = tuple(name for name in self._shown if name != "password")
        if "password" in self.fields:
            self.fields["password"].show_hidden_initial = False

    def clean_url(self) -> str:
        """Check the form of the URL, and that its address may be connected to."""
        url: str = self.cleaned_data["url"]
        try:
            check_url(url)
            check_address(url)
        except InvalidArgument as error:
            raise ValidationError(error.help_message) from error
        return url.rstrip("/")


@admin.register(Target)
class TargetAdmin(AuditedAdmin):
    """Other registries; the action connects to them and signs in."""

    form = TargetForm
    list_display = ("name", "url", "username", "organization", "rules", "tls", "created_at")
    list_filter = ("organization",)
    list_select_related = ("organization",)
    search_fields = ("name", "url", "id")
    autocomplete_fields = ("organization",)
    actions = ("check_connection",)

    def get_fields(self, request: HttpRequest, obj: Target | None = None) -> tuple[str, ...]:
        """The fields of the form, and for an existing target the read-only ones too."""
        chosen = ("name", "url", "username", "password", "insecure")
        return (
            ("id", "organization", *chosen, "created_at", "updated_at") if obj else ("organization", *chosen)
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Target | None = None) -> tuple[str, ...]:
        """A target cannot change its organization: its rules belong to that."""
        return ("id", "organization", "created_at", "updated_at") if obj else ()

    @admin.display(description="TLS", ordering="insecure")
    def tls(self, target: Target) -> str:
        """Whether its certificate is verified."""
        if target.url.startswith("http://"):
            return "none"
        return "not verified" if target.insecure else "verified"

    @admin.display(description="rules")
    def rules(self, target: Target) -> str:
        """A link to the rules that use it."""
        return link_to_list(Rule, "rules", target__id__exact=target.pk)

    @admin.action(description="Check: connect and sign in", permissions=["view"])
    def check_connection(self, request: HttpRequest, queryset: QuerySet[Target]) -> None:
        """Say of each selected target whether it answers and accepts the credentials."""
        for target in queryset.order_by("pk"):
            # After the transaction of the page: on SQLite it would make all writers wait for the network.
            transaction.on_commit(partial(self._check, request, target))

    def _check(self, request: HttpRequest, target: Target) -> None:
        checked = targets.check_target(target, actor=actor_of(request))
        level = messages.SUCCESS if checked.ok else messages.ERROR
        messages.add_message(request, level, f"{target}: {checked.message}")

    def save_model(self, request: HttpRequest, obj: Target, form: "ModelForm[Target]", change: bool) -> None:
        """Create a target, or change the edited fields of one, through the services."""
        chosen = form.cleaned_data
        if not change:
            created = targets.create_in_organization(
                actor=actor_of(request),
                organization_id=chosen["organization"].pk,
                name=chosen["name"],
                url=chosen["url"],
                username=chosen["username"],
                password=chosen["password"],
                insecure=chosen["insecure"],
            )
            vars(obj).update(vars(created))
            return
        changes: Any = {name: chosen[name] for name in form.changed_data}
        stored = Target.objects.get(pk=obj.pk)  # the form has assigned the new values to `obj`
        targets.change(stored, actor=actor_of(request), changes=changes)

    def delete_model(self, request: HttpRequest, obj: Target) -> None:
        """Delete a target that no rule uses."""
        if self.lock_row(obj):
            targets.remove(obj, actor=actor_of(request))

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """List the targets; rules that use one forbid its deletion."""
        protected = [f"rule: {rule}" for rule in Rule.objects.filter(target__in=objs)]
        shown = [f"target: {target}" for target in objs]
        return shown, {"targets": len(shown)}, set(), protected


class RuleForm(OptimisticForm):
    """Checks what the API checks; repositories are written one on each line."""

    repositories = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 4, "cols": 60}),
        help_text="Names at the source, or globs of * and ?, one on each line.",
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.instance.pk and "repositories" in self.fields:
            self.initial["repositories"] = "\n".join(self.instance.repositories or ())
        if "destination" in self.fields:
            self.fields["destination"].required = False
            self.fields["destination"].help_text += " Empty: {namespace}/{image} for push, {image} for pull."

    def clean(self) -> dict[str, Any]:
        """Check all fields together."""
        cleaned = super().clean()
        if self.errors:
            return cleaned
        direction = cleaned.get("direction") or self.instance.direction
        if isinstance(cleaned["repositories"], str):
            cleaned["repositories"] = cleaned["repositories"].split()
        cleaned["destination"] = cleaned.get("destination") or DEFAULT_DESTINATION[Direction(direction)]
        try:
            fields_of(cleaned).check(direction)
        except InvalidArgument as error:
            raise ValidationError({error.argument: error.help_message}) from error
        return cleaned


def fields_of(cleaned: dict[str, Any]) -> RuleFields:
    """The fields of a valid form."""
    return RuleFields(
        name=cleaned["name"],
        repositories=tuple(cleaned["repositories"]),
        tags=cleaned["tags"],
        destination=cleaned["destination"],
        on_push=cleaned["on_push"],
        cron=cleaned["cron"],
        enabled=cleaned["enabled"],
    )


@admin.register(Rule)
class RuleAdmin(AuditedAdmin):
    """What is replicated where to; the actions run rules, and switch them on and off."""

    form = RuleForm
    list_display = (
        "name",
        "direction",
        "namespace",
        "target",
        "on_push",
        "cron",
        "enabled",
        "executions",
        "created_at",
    )
    list_filter = ("direction", "enabled", "on_push", "target")
    list_select_related = ("namespace", "target")
    search_fields = ("name", "id", "namespace__name")
    autocomplete_fields = ("target", "namespace")
    actions = ("run_now", "enable", "disable")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Rule]:
        """Without the rules whose rows the worker is deleting."""
        found: QuerySet[Rule] = super().get_queryset(request)
        return found.filter(LIVE_RULE)

    def get_fields(self, request: HttpRequest, obj: Rule | None = None) -> tuple[str, ...]:
        """The fields of the form, and for an existing rule the read-only ones too."""
        fixed, chosen = ("direction", "namespace"), ("name", "target", "repositories", "tags", "destination")
        when = ("on_push", "cron", "enabled")
        if obj is None:
            return (*fixed, *chosen, *when)
        return ("id", *fixed, *chosen, *when, "next_run_at", "created_at", "updated_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Rule | None = None) -> tuple[str, ...]:
        """Direction and namespace cannot change."""
        fixed = ("id", "direction", "namespace", "next_run_at", "created_at", "updated_at")
        return fixed if obj else ()

    @admin.display(description="executions")
    def executions(self, rule: Rule) -> str:
        """A link to its executions."""
        return link_to_list(Execution, "executions", rule__id__exact=rule.pk)

    @admin.action(description="Run now", permissions=["change"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[Rule]) -> None:
        """Start an execution of each selected rule."""
        for rule in _locked(queryset):
            rules.run_by_hand(rule, actor=actor_of(request))
            messages.success(request, f"Started: {rule}")

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Rule]) -> None:
        """Let pushes and schedules run the selected rules."""
        for rule in _locked(queryset):
            rules.change(rule, actor=actor_of(request), changes={"enabled": True})

    @admin.action(description="Disable: cancel what runs", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Rule]) -> None:
        """Stop the selected rules."""
        for rule in _locked(queryset):
            rules.change(rule, actor=actor_of(request), changes={"enabled": False})

    def save_model(self, request: HttpRequest, obj: Rule, form: "ModelForm[Rule]", change: bool) -> None:
        """Create a rule, or change the edited fields of one, through the services."""
        chosen = form.cleaned_data
        if not change:
            created = rules.create_for(
                actor=actor_of(request),
                direction=chosen["direction"],
                namespace=chosen["namespace"],
                target=chosen["target"],
                fields=fields_of(chosen),
            )
            vars(obj).update(vars(created))
            return
        stored = Rule.objects.select_related("target").get(pk=obj.pk)
        changes = {name: chosen[name] for name in form.changed_data if name != "target"}
        if "repositories" in changes:
            changes["repositories"] = tuple(changes["repositories"])
        target = chosen["target"] if "target" in form.changed_data else None
        rules.change(stored, actor=actor_of(request), changes=changes, target=target)

    def delete_model(self, request: HttpRequest, obj: Rule) -> None:
        """Delete a rule with its executions; a running one is cancelled."""
        self.lock_row(obj)
        for rule in Rule.objects.filter(pk=obj.pk):
            rules.start_deletion(rule, actor=actor_of(request))

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """List the rules; the worker deletes their executions."""
        shown = [f"rule: {rule}, with its executions" for rule in objs]
        return shown, {"rules": len(shown)}, set(), []


def _locked(queryset: QuerySet[Rule]) -> QuerySet[Rule]:
    return Rule.objects.select_for_update().filter(LIVE_RULE, pk__in=queryset.values("pk")).order_by("pk")


@admin.register(Execution)
class ExecutionAdmin(ReadOnlyAdmin):
    """The progress and errors of executions; the action cancels them."""

    list_display = ("number", "of_rule", "trigger", "status", "progress", "sent", "created_at", "finished_at")
    list_filter = ("status", "trigger")
    list_select_related = ("rule",)
    search_fields = ("id", "rule__name", "rule__id")
    date_hierarchy = "created_at"
    fields = (
        "id",
        "of_rule",
        "trigger",
        "status",
        "progress",
        "sent",
        "problems",
        "created_at",
        "started_at",
        "finished_at",
    )
    actions = ("cancel",)

    @admin.display(description="execution")
    def number(self, execution: Execution) -> str:
        """The beginning of its id, which fits a column."""
        return str(execution.pk)[:8]

    @admin.display(description="rule", ordering="rule__name")
    def of_rule(self, execution: Execution) -> str:
        """A link to its rule, as long as that is not deleted."""
        rule = execution.rule
        return str(rule) if rule.deleted_at else link_to(rule)

    @admin.display(description="images")
    def progress(self, execution: Execution) -> str:
        """How many images are done."""
        return f"{execution.images_done} of {execution.images_total}"

    @admin.display(description="sent")
    def sent(self, execution: Execution) -> str:
        """How many bytes were sent, and how many bytes the images have."""
        return f"{human_size(execution.bytes_done)} of {human_size(execution.bytes_total)}"

    @admin.display(description="errors")
    def problems(self, execution: Execution) -> str:
        """The errors, one on each line."""
        shown = execution.shown_errors
        return format_html_join(mark_safe("<br>"), "{}", ((sentence,) for sentence in shown)) or "-"

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Whether the administrator may cancel: the permission to change executions."""
        return request.user.has_perm("replication.change_execution")

    @admin.action(description="Cancel", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Execution]) -> None:
        """End the selected executions that have not finished."""
        found = Execution.objects.select_for_update(of=("self",)).select_related("rule")
        for execution in found.filter(pk__in=queryset.values("pk")).order_by("pk"):
            if executions.stop(execution, actor=actor_of(request)):
                messages.success(request, f"Cancelled: {execution}")
