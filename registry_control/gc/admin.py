"""Administration pages of garbage collection: the review queue and the runs."""

from django.contrib import admin

from registry_control.administration.base import ReadOnlyAdmin, human_size, link_to
from registry_control.catalog.models import BlobReview
from registry_control.gc.models import GcRun


@admin.register(BlobReview)
class BlobReviewAdmin(ReadOnlyAdmin):
    """Blobs that lost a reference, the longest unreferenced first."""

    list_display = (
        "blob_link",
        "size_for_people",
        "cause",
        "unreferenced_since",
        "retry_at",
        "attempts",
        "error",
    )
    list_filter = ("cause",)
    list_select_related = ("blob",)
    ordering = ("unreferenced_since", "pk")
    search_fields = ("blob__digest__startswith",)

    @admin.display(description="blob")
    def blob_link(self, review: BlobReview) -> str:
        """A link to the blob."""
        return link_to(review.blob)

    @admin.display(description="size")
    def size_for_people(self, review: BlobReview) -> str:
        """The size of the content."""
        return human_size(review.blob.size)


@admin.register(GcRun)
class GcRunAdmin(ReadOnlyAdmin):
    """What garbage collection removed: by continuous work in each hour, and by runs that were requested."""

    list_display = (
        "started_at",
        "kind",
        "status",
        "dry_run",
        "blobs",
        "size_for_people",
        "manifests",
        "finished_at",
    )
    list_filter = ("kind", "status", "dry_run")
    ordering = ("-started_at", "-pk")
    search_fields = ("id",)

    @admin.display(description="bytes", ordering="bytes")
    def size_for_people(self, run: GcRun) -> str:
        """The size of the removed content."""
        return human_size(run.bytes)
