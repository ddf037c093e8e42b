"""Administration pages of the recycle bin. Services restore and purge."""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from registry_control.administration.base import ReadOnlyAdmin, actor_of, human_size
from registry_control.administration.confirmation import ask, is_confirmed, some
from registry_control.common.errors import ServiceError
from registry_control.namespaces.models import RecycleBinEntry
from registry_control.recycling.services import emptying, restoring

_RESTORE: Final = "namespaces.change_recyclebinentry"
_PURGE: Final = "namespaces.delete_recyclebinentry"


@admin.register(RecycleBinEntry)
class RecycleBinEntryAdmin(ReadOnlyAdmin):
    """What was deleted and can be restored, with buttons for both on the page of an entry."""

    change_form_template = "admin/namespaces/recyclebinentry/change_form.html"
    list_display = ("name", "kind", "size_for_people", "deleted_at", "deleted_by", "expires_at")
    list_filter = ("kind",)
    search_fields = ("name", "object_id")
    ordering = ("-deleted_at", "-pk")
    actions = ("restore_selected", "purge_selected")

    @admin.display(description="size", ordering="size")
    def size_for_people(self, entry: RecycleBinEntry) -> str:
        """The size of what it keeps."""
        return human_size(entry.size)

    def get_urls(self) -> list[URLPattern]:
        """Add the actions of the buttons."""
        restore = self.admin_site.admin_view(require_POST(self.restore))
        purge = self.admin_site.admin_view(require_POST(self.purge))
        return [
            path("<uuid:entry_id>/restore/", restore, name="recycle_bin_restore"),
            path("<uuid:entry_id>/purge/", purge, name="recycle_bin_purge"),
            *super().get_urls(),
        ]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *arguments: Any, **options: Any
    ) -> HttpResponse:
        """Show the buttons that the administrator may use."""
        allowed = {"may_restore": self.has_restore_permission(request)}
        allowed["may_purge"] = self.has_purge_permission(request)
        return super().render_change_form(request, {**context, **allowed}, *arguments, **options)

    def has_restore_permission(self, request: HttpRequest) -> bool:
        """Whether the administrator may restore."""
        return bool(request.user.has_perm(_RESTORE))

    def has_purge_permission(self, request: HttpRequest) -> bool:
        """Whether the administrator may delete for good."""
        return bool(request.user.has_perm(_PURGE))

    def restore(self, request: HttpRequest, entry_id: UUID) -> HttpResponse:
        """Restore one entry, under another name if the form has one."""
        if not self.has_restore_permission(request):
            raise PermissionDenied
        name = request.POST.get("name", "").strip() or None
        return self._done(request, entry_id, lambda: self._restore(request, entry_id, name))

    def purge(self, request: HttpRequest, entry_id: UUID) -> HttpResponse:
        """Delete for good what one entry keeps, once the administrator has confirmed it."""
        if not self.has_purge_permission(request):
            raise PermissionDenied
        found = RecycleBinEntry.objects.filter(pk=entry_id)
        if not is_confirmed(request) and found.exists():
            return self._ask(
                request, found, reverse("admin:namespaces_recyclebinentry_change", args=[entry_id])
            )
        return self._done(request, entry_id, lambda: self._purge(request, entry_id))

    def _done(self, request: HttpRequest, entry_id: UUID, act: Callable[[], bool]) -> HttpResponse:
        """Act, and return to the list, or to the page of the entry with the reason why it was refused."""
        if act():
            return HttpResponseRedirect(reverse("admin:namespaces_recyclebinentry_changelist"))
        page = reverse("admin:namespaces_recyclebinentry_change", args=[entry_id])
        return HttpResponseRedirect(page)

    @admin.action(description="Restore", permissions=["restore"])
    def restore_selected(self, request: HttpRequest, queryset: QuerySet[RecycleBinEntry]) -> None:
        """Restore entries under the names that they had.

        The newest first: a namespace or image was deleted after what was deleted in it, which needs it.
        """
        for entry_id in queryset.order_by("-deleted_at", "-pk").values_list("pk", flat=True):
            if RecycleBinEntry.objects.filter(pk=entry_id).exists():  # else an index has brought it back
                self._restore(request, entry_id, None)

    @admin.action(description="Delete for good", permissions=["purge"])
    def purge_selected(
        self, request: HttpRequest, queryset: QuerySet[RecycleBinEntry]
    ) -> HttpResponse | None:
        """Delete for good what entries keep, once the administrator has confirmed it."""
        if not is_confirmed(request):
            return self._ask(request, queryset, reverse("admin:namespaces_recyclebinentry_changelist"))
        for entry_id in queryset.order_by("deleted_at", "pk").values_list("pk", flat=True):
            self._purge(request, entry_id)
        return None

    def _ask(self, request: HttpRequest, entries: QuerySet[RecycleBinEntry], back: str) -> TemplateResponse:
        """The page that asks whether to delete entries for good."""
        return ask(
            request,
            {**self.admin_site.each_context(request), "opts": self.opts},
            question="Delete this for good? Nobody can restore it then. The grace period begins of all"
            " content that nothing else keeps.",
            button="Delete for good",
            back=back,
            rows=[
                f"{entry.get_kind_display()} {entry.name}" for entry in some(entries.order_by("name", "pk"))
            ],
            number=entries.count(),
        )

    def _restore(self, request: HttpRequest, entry_id: UUID, name: str | None) -> bool:
        """Whether it was restored; a message says what happened."""
        try:
            restoring.restore_entry(entry_id, name=name, actor=actor_of(request))
        except ServiceError as error:
            return self._refuse(request, error)
        self.message_user(request, "Restored.")
        return True

    def _purge(self, request: HttpRequest, entry_id: UUID) -> bool:
        """Whether it was deleted for good; a message says what happened."""
        try:
            entry = emptying.purge_entry(entry_id, actor=actor_of(request))
        except ServiceError as error:
            return self._refuse(request, error)
        self.message_user(request, f"Deleted for good: {entry}")
        return True

    def _refuse(self, request: HttpRequest, error: ServiceError) -> bool:
        text = getattr(error, "help_message", "") or error.message
        self.message_user(request, f"Not restored or deleted: {text}", messages.ERROR)
        return False
