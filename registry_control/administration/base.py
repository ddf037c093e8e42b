"""Base classes of the administration's pages: audit rows, row locks, validation of query strings."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ERROR_FLAG, ChangeList
from django.core.exceptions import BadRequest, ValidationError
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode

from registry_control.administration.forms import OptimisticForm, columns_changed
from registry_control.administration.lookups import check_lengths, field_value, refusing_bad_values
from registry_control.audit.models import ActorKind, AuditEvent
from registry_control.audit.services import Actor, Target, record
from registry_control.common.changes import EVERYTHING, record_change
from registry_control.common.clock import now
from registry_control.common.errors import ServiceError
from registry_control.common.models import Timestamped

if TYPE_CHECKING:
    from django.db.models.expressions import Combinable
    from django.forms import ModelForm
    from django.forms.models import BaseInlineFormSet

    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin  # generic for the type checker only


def actor_of(request: HttpRequest) -> Actor:
    """The administrator who is signed in."""
    return Actor(kind=ActorKind.USER, id=str(request.user.pk), name=request.user.get_username())


def target_of(row: models.Model) -> Target:
    """The audit target for any row."""
    return Target(row._meta.model_name or "", row.pk, str(row)[:512], organization_id_of(row))


def organization_id_of(row: models.Model) -> UUID | None:
    """The id of the organization that a row belongs to, if its model has that column."""
    if row._meta.model_name == "organization":
        return UUID(str(row.pk))
    found = getattr(row, "organization_id", None)
    return found if isinstance(found, UUID) else None


_ASSIGNED: Final = ("id", "created_at", "updated_at")


class AuditedAdmin(_ModelAdmin):
    """Records one audit row for each change, in its transaction, with the administrator as the actor.

    A page whose service makes the change overrides `save_model` and `delete_model`: the service records it.
    """

    form = OptimisticForm
    list_per_page = 50
    show_full_result_count = False
    lock_order: ClassVar[tuple[str, ...]] = ("pk",)
    """The order in which every transaction locks several rows of this model."""

    def get_ordering(self, request: HttpRequest) -> "list[str | Combinable] | tuple[str | Combinable, ...]":
        """A total order for every list: by name where rows have one, otherwise newest first."""
        if declared := self.ordering or self.opts.ordering:
            return tuple(declared)
        names = {field.name for field in self.opts.concrete_fields}
        if "name" in names:
            return ("name", "pk")
        has_random_ids = "created_at" in names and not isinstance(self.opts.pk, models.AutoField)
        return ("-created_at", "-pk") if has_random_ids else ("-pk",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """An empty form has no id and no times: the row does not have them yet."""
        fields = super().get_fields(request, obj)
        return fields if obj is not None else [name for name in fields if name not in _ASSIGNED]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Find a row; inside a transaction, lock it first, because it is about to be changed or deleted."""
        try:
            field_value(self.model, self.opts.pk.name, object_id)
        except ValidationError:
            return None
        found = super().get_object(request, object_id, from_field)
        if found is None or not transaction.get_connection().in_atomic_block:
            return found
        self.lock_row(found)
        # Read again after the lock: another transaction may have changed or deleted the row. Two queries,
        # because PostgreSQL cannot lock rows of a query with aggregates, which many lists have.
        return super().get_object(request, object_id, from_field)

    def lock_row(self, row: models.Model) -> bool:
        """Lock a row until the transaction ends; False if the row no longer exists."""
        # `no_key`: other transactions may insert rows that reference it, and wait for it for nothing else.
        locked = self.model._default_manager.select_for_update(no_key=True).filter(pk=row.pk)
        return locked.values_list("pk").first() is not None

    def save_model(self, request: HttpRequest, obj: Any, form: "ModelForm[Any]", change: bool) -> None:
        """Save and audit the names of the changed fields; not their values, some of which are secret."""
        if not change:
            super().save_model(request, obj, form, change)
        elif form.changed_data:
            self._save_changed(obj, form)
        else:
            return
        self.record_audit(request, obj, "update" if change else "create", fields=", ".join(form.changed_data))

    def _save_changed(self, row: Any, form: "ModelForm[Any]") -> None:
        """Write only the fields that the administrator edited: others may have changed the rest."""
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
        """Save the rows of an inline and audit them as changes of the row that they belong to."""
        super().save_formset(request, form, formset, change)
        for verb, rows in (
            ("add", formset.new_objects),
            ("change", [row for row, _ in formset.changed_objects]),
            ("remove", formset.deleted_objects),
        ):
            for row in rows:
                name = row._meta.model_name or ""
                self.record_audit(request, form.instance, f"{verb}_{name}", **{name: str(row)})

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Audit, then delete: a deleted row has no id."""
        if self.lock_row(obj):
            self.record_audit(request, obj, "delete")
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        """Delete the rows one by one, each with its audit row, in the common lock order."""
        for obj in queryset.order_by(*self.lock_order):
            self.delete_model(request, obj)

    def record_audit(self, request: HttpRequest, row: models.Model, verb: str, **detail: str) -> None:
        """Record an audit row for a change of `row`, and evict every cached response of the data plane."""
        # An edited row may have belonged to another scope before the edit, so none is narrow enough.
        record_change(EVERYTHING)
        record(
            actor=actor_of(request), verb=f"{row._meta.model_name}.{verb}", target=target_of(row), **detail
        )

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Refuse regular expressions: a bad one fails in the database, a costly one never ends there."""
        is_pattern = lookup.rpartition("__")[2] in ("regex", "iregex")
        return not is_pattern and super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Build the list and run its query here, where an invalid lookup value can still be refused.

        Raises:
            IncorrectLookupParameters: a value is invalid; Django redirects to the list with `?e=1`.
            BadRequest: a value is invalid, and that redirect was followed already.
        """
        check_lengths(request)
        try:
            with refusing_bad_values():
                changelist = super().get_changelist_instance(request)
                len(changelist.result_list)
                return changelist
        except (BadRequest, IncorrectLookupParameters) as error:
            if ERROR_FLAG in request.GET:
                raise BadRequest("a value in the query string is not valid") from error
            raise IncorrectLookupParameters from error

    def response_action(
        self, request: HttpRequest, queryset: models.QuerySet[Any], *options: Any, **more: Any
    ) -> HttpResponse | None:
        """Run an action on the selected rows; ids that the database refuses are a 400."""
        with refusing_bad_values():
            queryset.filter(pk__in=request.POST.getlist(ACTION_CHECKBOX_NAME)).exists()
        return super().response_action(request, queryset, *options, **more)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Initial values of an empty form from the query string, without those that are invalid."""
        names = {field.name for field in self.opts.get_fields()}
        initial = {}
        for name, text in super().get_changeform_initial_data(request).items():
            if name in names and isinstance(text, str):
                with suppress(ValidationError):
                    initial[name] = field_value(self.model, name, text)
        return initial

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Run actions on selected rows in one transaction, as Django does for forms."""
        if request.method != "POST":  # on SQLite a transaction would wait for the write lock
            return super().changelist_view(request, extra_context)
        try:
            with transaction.atomic():
                return super().changelist_view(request, extra_context)
        except ServiceError as error:
            return self._refused(request, error)

    def changeform_view(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        """Show why a service refused a change, as a message on the same page."""
        try:
            return super().changeform_view(request, *arguments, **options)
        except ServiceError as error:
            return self._refused(request, error)

    def delete_view(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        """Show why a service refused a deletion, as a message on the same page."""
        try:
            return super().delete_view(request, *arguments, **options)
        except ServiceError as error:
            return self._refused(request, error)

    def _refused(self, request: HttpRequest, error: ServiceError) -> HttpResponse:
        self.message_user(request, getattr(error, "help_message", "") or error.message, messages.ERROR)
        return HttpResponseRedirect(request.get_full_path())

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the audit events of the row, whichever API or page caused them."""
        query = {"target_kind__exact": str(self.opts.model_name), "target_id__exact": unquote(object_id)}
        events = reverse(f"admin:{AuditEvent._meta.app_label}_{AuditEvent._meta.model_name}_changelist")
        return HttpResponseRedirect(f"{events}?{urlencode(query)}")


class ReadOnlyAdmin(AuditedAdmin):
    """Rows that only the registry itself creates and changes; the page shows every column."""

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """All columns: Django leaves out those that no form may edit, which here are all of them."""
        if self.fields is not None:
            return self.fields
        return [field.name for field in self.opts.concrete_fields if field.name not in (self.exclude or ())]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """All columns."""
        return self.get_fields(request, obj)

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Always False."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Always False; the permission to view is separate."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Always False."""
        return False


class ServiceDeletedAdmin(AuditedAdmin):
    """Rows that a service marks as deleting; the worker then removes them and everything below them."""

    start_deletion: ClassVar[Callable[..., None]]
    """The service: called with the locked row and `actor`."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Mark the row, unless it no longer exists."""
        self.lock_row(obj)
        for locked in self.model._default_manager.filter(pk=obj.pk):
            type(self).start_deletion(locked, actor=actor_of(request))

    def get_deleted_objects(
        self, objs: Iterable[models.Model] | models.QuerySet[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """List the rows to mark; the worker deletes the rows below them, so those need no permission."""
        shown = [
            f"{row._meta.verbose_name}: {row}, with everything below it, in the background" for row in objs
        ]
        return shown, {str(self.opts.verbose_name_plural): len(shown)}, set(), []


def link_to(row: models.Model | None) -> str:
    """A link to the page of a row; a dash for None."""
    if row is None:
        return "-"
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return format_html('<a href="{}">{}</a>', reverse(name, args=[row.pk]), row)


def link_to_list(model: type[models.Model], text: str, **filters: object) -> str:
    """A link to the filtered list of a model."""
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return format_html(
        '<a href="{}?{}">{}</a>', url, urlencode({name: str(value) for name, value in filters.items()}), text
    )


def short(digest: str) -> str:
    """The first 12 characters of a digest's hash, which fit a column."""
    return f"{digest[:19]}…" if len(digest) > 19 else digest


def human_size(size: int) -> str:
    """A number of bytes in a readable unit."""
    return filesizeformat(size)
