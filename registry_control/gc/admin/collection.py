"""Administration pages of garbage collection: the review queue and the runs."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_GET, require_POST

from registry_control.administration.base import ReadOnlyAdmin, actor_of, human_size, short
from registry_control.administration.confirmation import ask, is_confirmed
from registry_control.catalog.models import BlobReview
from registry_control.common.clock import database_now
from registry_control.gc.models import GcRun
from registry_control.gc.selectors import queue
from registry_control.gc.selectors.report import report
from registry_control.gc.services import breaker, requested


class _IsBeingDeleted(admin.SimpleListFilter):
    """Blobs that wait for the end of their grace period, or those whose deletion has begun."""

    title = "deletion"
    parameter_name = "deletion"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The two choices."""
        return [("waiting", "Not begun"), ("deleting", "Begun")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows of the choice."""
        if self.value() not in ("waiting", "deleting"):
            return queryset
        return queryset.filter(retry_at__isnull=self.value() == "waiting")


@admin.register(BlobReview)
class BlobReviewAdmin(ReadOnlyAdmin):
    """Blobs that lost a reference. The order and the filter have indexes: there may be millions of rows."""

    list_display = ("blob_digest", "size_for_people", "cause", "unreferenced_since", "retry_at", "attempts")
    list_filter = (_IsBeingDeleted,)
    list_select_related = ("blob",)
    ordering = ("pk",)
    search_fields = ("blob__digest__startswith",)

    @admin.display(description="blob")
    def blob_digest(self, review: BlobReview) -> str:
        """The first characters of the blob's digest."""
        return short(review.blob.digest)

    @admin.display(description="size")
    def size_for_people(self, review: BlobReview) -> str:
        """The size of the content."""
        return human_size(review.blob.size)


@admin.register(GcRun)
class GcRunAdmin(ReadOnlyAdmin):
    """What garbage collection removed: by continuous work in each hour, and by runs that were requested."""

    list_display = ("started_at", "kind", "status", "dry_run", "blobs", "size_for_people", "manifests")
    list_filter = ("kind", "status")
    change_list_template = "admin/gc/gcrun/change_list.html"
    ordering = ("-started_at", "-pk")
    search_fields = ("id",)

    @admin.display(description="bytes", ordering="bytes")
    def size_for_people(self, run: GcRun) -> str:
        """The size of the removed content."""
        return human_size(run.bytes)

    def get_urls(self) -> list[URLPattern]:
        """Add the page `Why has the disk not shrunk?` and the actions of the buttons."""
        view = self.admin_site.admin_view
        return [
            path("run/", view(require_POST(self.run)), name="gc_gcrun_run"),
            path("release/", view(require_POST(self.release)), name="gc_gcrun_release"),
            path("disk/", view(require_GET(self.disk)), name="gc_gcrun_disk"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the queue and the sum of all runs above the list."""
        shown = {
            "queue": queue.summarize(grace=settings.GC_GRACE),
            "removed": queue.removed_in_total(),
            "now": database_now(),
            "may_run": self.may_run(request),
        }
        return super().changelist_view(request, {**shown, **(extra_context or {})})

    def run(self, request: HttpRequest) -> HttpResponse:
        """Start a run; a worker advances it."""
        if not self.may_run(request):
            raise PermissionDenied
        dry_run = "dry_run" in request.POST
        run = requested.start_run(actor=actor_of(request), dry_run=dry_run)
        self.message_user(request, f"The {'dry run' if dry_run else 'run'} {run.pk} was started.")
        return HttpResponseRedirect(reverse("admin:gc_gcrun_changelist"))

    def release(self, request: HttpRequest) -> HttpResponse:
        """Let a collector go on that the circuit breaker or a jump of the clock has stopped.

        The administrator confirms it first, because it deletes any number of bytes.
        """
        if not self.may_run(request):
            raise PermissionDenied
        if not is_confirmed(request):
            return self._ask_to_release(request)
        breaker.release(actor=actor_of(request))
        self.message_user(request, "Garbage collection goes on.")
        return HttpResponseRedirect(reverse("admin:gc_gcrun_disk"))

    def _ask_to_release(self, request: HttpRequest) -> HttpResponse:
        """The page that asks whether to let the collector go on."""
        waiting = queue.summarize(grace=settings.GC_GRACE)
        return ask(
            request,
            {**self.admin_site.each_context(request), "opts": self.opts},
            question="Let garbage collection go on? All that is in the review queue now"
            f" ({waiting.entries} blobs of {human_size(waiting.bytes)}) is deleted when its grace period is"
            " over, whatever its size.",
            button="Let it go on",
            back=reverse("admin:gc_gcrun_disk"),
        )

    def disk(self, request: HttpRequest) -> HttpResponse:
        """Answer why the disk has not shrunk."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        shown = {
            **self.admin_site.each_context(request),
            "title": "Why has the disk not shrunk?",
            "opts": self.opts,
            "report": report(grace=settings.GC_GRACE),
            "may_run": self.may_run(request),
            "now": database_now(),
        }
        return TemplateResponse(request, "admin/gc/gcrun/disk.html", shown)

    def may_run(self, request: HttpRequest) -> bool:
        """Whether the user has the permission to add runs."""
        return bool(request.user.has_perm("gc.add_gcrun"))  # `has_add_permission` is False: there is no form
