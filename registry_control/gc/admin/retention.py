"""Administration pages of retention: rules, protected tags, a preview, and the passes of the worker."""

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from registry_control.administration.base import AuditedAdmin, ReadOnlyAdmin, actor_of, link_to_list
from registry_control.administration.forms import OptimisticForm
from registry_control.common.errors import InvalidArgument
from registry_control.common.models import DELETED
from registry_control.gc.models import RetentionRun
from registry_control.gc.retention import Policy, parse
from registry_control.gc.selectors.preview import Preview, PreviewedTag
from registry_control.gc.selectors.retention import policy_in, policy_of
from registry_control.gc.services import retention
from registry_control.namespaces.models import Namespace, Retention

if TYPE_CHECKING:
    from django.forms import ModelForm

_SHOWN: Final = 200  # tags on the page of a preview
_EXAMPLE: Final = '[{"images": "*", "tags": "pr-*", "keep_newest": 5, "keep_days_since_pulled": 14}]'
_LINES: Final = ("protected_tags", "protected_except")


def _lines(help_text: str) -> forms.CharField:
    return forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "cols": 60}),
        help_text=f"{help_text} Globs of * and ?, one on each line.",
    )


class RetentionForm(OptimisticForm):
    """Checks what the API checks."""

    protected_tags = _lines("Tags that can be neither moved nor deleted, even if the rules are disabled.")
    protected_except = _lines("Tags that are not protected.")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name in self.fields.keys() & set(_LINES):
            self.initial[name] = "\n".join(getattr(self.instance, name))
        if "rules" in self.fields:
            self.fields["rules"].help_text = (
                "A list as in the API; the first rule that matches a tag decides about it. Save it disabled "
                f"and look at the preview before you enable it. Example: {_EXAMPLE}"
            )

    def clean(self) -> dict[str, Any]:
        """Check all fields as the API does."""
        cleaned = super().clean()
        if self.errors:
            return cleaned
        for name in _LINES:
            if isinstance(cleaned[name], str):
                cleaned[name] = cleaned[name].split()
        cleaned["rules"] = cleaned["rules"] or []
        try:
            policy_of_form(cleaned)
        except InvalidArgument as error:
            name = error.argument.partition("[")[0]
            where = name if name in self.fields else None
            raise ValidationError({where or "rules": f"{error.argument}: {error.help_message}"}) from error
        return cleaned


def policy_of_form(cleaned: dict[str, Any]) -> Policy:
    """The retention in a form.

    Raises:
        InvalidArgument: a field is malformed.
    """
    names = ("enabled", "rules", "untagged_days", *_LINES)
    return parse({name: cleaned[name] for name in names})


@admin.register(Retention)
class RetentionAdmin(AuditedAdmin):
    """The retention of a namespace; the service stores it and starts a pass. Empty rules remove nothing."""

    form = RetentionForm
    list_display = ("namespace", "enabled", "number_of_rules", "untagged_days", "protected", "updated_at")
    list_filter = ("enabled",)
    list_select_related = ("namespace",)
    search_fields = ("namespace__name", "namespace__id")
    ordering = ("namespace__name",)
    fields = ("namespace", "enabled", "rules", "untagged_days", *_LINES, "preview", "passes", "updated_at")
    readonly_fields = ("namespace", "preview", "passes", "updated_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Always False: each namespace has one."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Retention | None = None) -> bool:
        """Always False: a retention goes with its namespace."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Retention | None = None) -> bool:
        """False when the namespace was deleted."""
        is_deleted = obj is not None and obj.namespace.status in DELETED
        return not is_deleted and super().has_change_permission(request, obj)

    def lock_row(self, row: Any) -> bool:
        """Lock the namespace's row first, as the service does (invariant 11)."""
        _lock(row.namespace_id)
        return super().lock_row(row)

    @admin.display(description="rules")
    def number_of_rules(self, row: Retention) -> int:
        """How many rules it has."""
        return len(row.rules)

    @admin.display(description="protected tags")
    def protected(self, row: Retention) -> str:
        """The globs."""
        return ", ".join(row.protected_tags) or "-"

    @admin.display(description="preview")
    def preview(self, row: Retention) -> str:
        """A link to what the stored rules remove."""
        url = reverse("admin:namespaces_retention_preview", args=[row.pk])
        return format_html('<a href="{}">what these rules remove now</a>', url)

    @admin.display(description="passes")
    def passes(self, row: Retention) -> str:
        """A link to the last pass."""
        return link_to_list(RetentionRun, "the last pass", namespace__id__exact=row.pk)

    def save_model(
        self, request: HttpRequest, obj: Retention, form: "ModelForm[Retention]", change: bool
    ) -> None:
        """Store the retention through the service, unless nothing was edited."""
        policy = policy_of_form(form.cleaned_data)
        if policy == policy_of(obj.namespace_id):
            return
        namespace = _lock(obj.namespace_id)
        if namespace is None or namespace.status in DELETED:
            raise PermissionDenied("the namespace was deleted")
        stored = retention.store(namespace, policy, actor=actor_of(request))
        vars(obj).update(vars(stored))

    def get_urls(self) -> list[URLPattern]:
        """Add the page of the preview."""
        view = self.admin_site.admin_view(self.preview_view)
        return [path("<uuid:pk>/preview/", view, name="namespaces_retention_preview"), *super().get_urls()]

    def preview_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Show what the stored rules remove at this moment."""
        row = Retention.objects.select_related("namespace").filter(pk=pk).first()
        if row is None:
            raise Http404
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        found, removed, tags = Preview(row.namespace, policy_in(row)), 0, list[PreviewedTag]()
        for tag in found.tags():
            removed += not tag.keep
            if not tag.keep and len(tags) < _SHOWN:
                tags.append(tag)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Preview of the {row}",
            "retention": row,
            "tags": tags,
            "removed": removed,
            "found": found,
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/namespaces/retention/preview.html", context)


def _lock(namespace_id: UUID) -> Namespace | None:
    """Lock the row of a namespace."""
    found = Namespace.objects.select_for_update(of=("self",), no_key=True).select_related("project")
    return found.filter(pk=namespace_id).first()


@admin.register(RetentionRun)
class RetentionRunAdmin(ReadOnlyAdmin):
    """What the last pass over each namespace removed and skipped, and when the next one is due."""

    list_display = ("namespace", "started_at", "finished_at", "tags", "manifests", "number_skipped", "due_at")
    list_select_related = ("namespace",)
    search_fields = ("namespace__name",)
    ordering = ("-started_at", "pk")
    exclude = ("claim",)

    @admin.display(description="skipped")
    def number_skipped(self, run: RetentionRun) -> int:
        """How many images it skipped."""
        return len(run.skipped)
