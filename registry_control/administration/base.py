"""What every administration page does: leave audit rows, and refuse what would break an invariant."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html

from registry_control.administration.forms import OptimisticForm, columns_changed
from registry_control.audit.models import ActorKind
from registry_control.audit.services import Actor, Target, record
from registry_control.common.changes import EVERYTHING, record_change
from registry_control.common.clock import now
from registry_control.common.models import Timestamped

if TYPE_CHECKING:
    from django.forms import ModelForm
    from django.forms.models import BaseInlineFormSet

    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin  # generic for the type checker only


def actor_of(request: HttpRequest) -> Actor:
    """The administrator who is signed in."""
    return Actor(kind=ActorKind.USER, id=str(request.user.pk), name=request.user.get_username())


def target_of(row: models.Model) -> Target:
    """Any row as audit rows remember it."""
    return Target(row._meta.model_name or "", row.pk, str(row)[:512], organization_id_of(row))


def organization_id_of(row: models.Model) -> UUID | None:
    """The organization that a row says it belongs to."""
    if row._meta.model_name == "organization":
        return UUID(str(row.pk))
    found = getattr(row, "organization_id", None)
    return found if isinstance(found, UUID) else None


class AuditedAdmin(_ModelAdmin):
    """Each change leaves one audit row, in its own transaction, in the administrator's name.

    A page whose change is made by a service calls that instead, and the service leaves the row.
    """

    form = OptimisticForm
    list_per_page = 50
    show_full_result_count = False
    lock_order: ClassVar[tuple[str, ...]] = ("pk",)
    """In which order a transaction that takes several rows takes them, whoever it is of."""

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Find a row, and in a transaction, where it is to be changed or deleted, hold it first."""
        found = super().get_object(request, object_id, from_field)
        if found is None or not transaction.get_connection().in_atomic_block:
            return found
        self.hold(found)
        # Again: whoever had it may have changed or deleted it. And pages count along, which no lock can.
        return super().get_object(request, object_id, from_field)

    def hold(self, row: models.Model) -> bool:
        """Take a row for the present transaction; whether it is there still."""
        held = self.model._default_manager.select_for_update().filter(pk=row.pk)
        return held.values_list("pk").first() is not None

    def save_model(self, request: HttpRequest, obj: Any, form: "ModelForm[Any]", change: bool) -> None:
        """Save and remember what was changed; values stay out, some are secret."""
        if not change:
            super().save_model(request, obj, form, change)
        elif form.changed_data:
            self._save_changed(obj, form)
        else:
            return
        self.remember(request, obj, "update" if change else "create", fields=", ".join(form.changed_data))

    def _save_changed(self, row: Any, form: "ModelForm[Any]") -> None:
        """Write nothing but what the person changed: the rest of the row belongs to others."""
        fields = columns_changed(form)
        if isinstance(row, Timestamped):
            row.updated_at = now()
            fields.append("updated_at")
        row.save(update_fields=fields)

    def save_formset(
        self,
        request: HttpRequest,
        form: "ModelForm[Any]",
        formset: "BaseInlineFormSet[Any, Any, Any]",
        change: bool,
    ) -> None:
        """Save the rows of an inline and remember them with the row they belong to."""
        super().save_formset(request, form, formset, change)
        for verb, rows in (
            ("add", formset.new_objects),
            ("change", [row for row, _ in formset.changed_objects]),
            ("remove", formset.deleted_objects),
        ):
            for row in rows:
                name = row._meta.model_name or ""
                self.remember(request, form.instance, f"{verb}_{name}", **{name: str(row)})

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Remember first: afterwards the row has no id."""
        if self.hold(obj):
            self.remember(request, obj, "delete")
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        """Delete one by one, each with its audit row, in the order that everybody keeps."""
        for obj in queryset.order_by(*self.lock_order):
            self.delete_model(request, obj)

    def remember(self, request: HttpRequest, row: models.Model, verb: str, **detail: str) -> None:
        """Leave an audit row, and evict every cached response of the data plane."""
        # An edited row may have belonged to another scope before the edit, so none is narrow enough.
        record_change(EVERYTHING)
        record(
            actor=actor_of(request), verb=f"{row._meta.model_name}.{verb}", target=target_of(row), **detail
        )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Run actions on chosen rows in one transaction, as Django does for forms."""
        with transaction.atomic():
            return super().changelist_view(request, extra_context)


class ReadOnlyAdmin(AuditedAdmin):
    """Rows that only the registry itself makes and changes."""

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody; who may view still does."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False


class ServiceDeletedAdmin(AuditedAdmin):
    """Rows that a deletion only marks: the worker removes them with all that hangs on them."""

    start_deletion: ClassVar[Callable[..., None]]
    """The service: called with the locked row and `actor`."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Mark it, unless it is gone by now."""
        self.hold(obj)
        for held in self.model._default_manager.filter(pk=obj.pk):
            type(self).start_deletion(held, actor=actor_of(request))

    def get_deleted_objects(
        self, objs: Iterable[models.Model] | models.QuerySet[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """Show what is marked; what hangs on it follows in the background and forbids nothing."""
        shown = [
            f"{row._meta.verbose_name}: {row}, with everything below it, in the background" for row in objs
        ]
        return shown, {}, set(), []


def link_to(row: models.Model | None) -> str:
    """A link to a row's own page."""
    if row is None:
        return "-"
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return format_html('<a href="{}">{}</a>', reverse(name, args=[row.pk]), row)


def link_to_list(model: type[models.Model], text: str, **filters: object) -> str:
    """A link to a list page with filters."""
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return format_html('<a href="{}?{}">{}</a>', url, query, text)


def short(digest: str) -> str:
    """A digest that fits a column; its page shows it whole."""
    return f"{digest[:19]}…" if len(digest) > 19 else digest


def human_size(size: int) -> str:
    """Bytes for people."""
    return filesizeformat(size)
