"""Administration pages of damaged and missing content."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse

from registry_control.administration.base import ReadOnlyAdmin, human_size, short
from registry_control.catalog.selectors.holders import names_of_images_with
from registry_control.integrity.models import IS_OPEN, BlobCheck, BlobFault, UnknownObject
from registry_control.integrity.selectors import report

if TYPE_CHECKING:
    from django.db.models import QuerySet


_STATES: Final = {
    "quarantined": IS_OPEN,
    "healed": Q(healed_at__isnull=False),
    "dropped": Q(dropped_at__isnull=False),
}


class _StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The states of a finding."""
        return [(state, state) for state in _STATES]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[BlobFault]") -> "QuerySet[BlobFault]":
        """Filter by the chosen state."""
        chosen = _STATES.get(self.value() or "")
        return queryset if chosen is None else queryset.filter(chosen)


def _duration(period: timedelta) -> str:
    """A period in days, or in seconds if it is shorter than one."""
    if period < timedelta(days=1):
        return f"{int(period.total_seconds())} s"
    return f"{period.total_seconds() / 86_400:.3g} days"


@admin.register(BlobFault)
class BlobFaultAdmin(ReadOnlyAdmin):
    """Blobs whose content was found damaged or missing, the newest finding first."""

    list_display = ("blob_digest", "kind", "size_for_people", "detail", "found_at", "healed_at", "dropped_at")
    list_filter = ("kind", _StateFilter)
    change_list_template = "admin/integrity/blobfault/change_list.html"
    ordering = ("-found_at", "-pk")
    search_fields = ("digest__startswith",)
    readonly_fields = ("images",)

    @admin.display(description="blob")
    def blob_digest(self, fault: BlobFault) -> str:
        """The first characters of the digest."""
        return short(fault.digest)

    @admin.display(description="size")
    def size_for_people(self, fault: BlobFault) -> str:
        """The size that the content should have."""
        return human_size(fault.size)

    @admin.display(description="images")
    def images(self, fault: BlobFault) -> str:
        """The images that have the blob."""
        return ", ".join(names_of_images_with([fault.blob_id])[fault.blob_id]) or "none"

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show above the list how much content was verified."""
        period = settings.SCRUB_PERIOD
        shown = {
            "is_on": bool(period),
            "period": _duration(period),
            "covered": f"{report.covered(period) * 100:.1f} %" if period else "",
            "open": BlobFault.objects.filter(IS_OPEN).count(),
            "errors": report.errors(),
            "reconciled": report.reconciled(),
        }
        return super().changelist_view(request, {**shown, **(extra_context or {})})


@admin.register(UnknownObject)
class UnknownObjectAdmin(ReadOnlyAdmin):
    """Objects of the storage that no row knows, the ones that go first at the top."""

    list_display = ("name", "kind", "size_for_people", "first_seen_at", "attempts", "error")
    list_filter = ("kind",)
    ordering = ("first_seen_at", "pk")
    search_fields = ("upload__exact",)

    @admin.display(description="size", ordering="size")
    def size_for_people(self, found: UnknownObject) -> str:
        """The size of the object."""
        return human_size(found.size)


@admin.register(BlobCheck)
class BlobCheckAdmin(ReadOnlyAdmin):
    """Blobs whose content is looked at again, the next one first."""

    list_display = ("blob_id", "found", "reason", "due_at", "attempts", "created_at")
    ordering = ("due_at", "pk")
