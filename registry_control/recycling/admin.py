"""Administration page of the recycle bin."""

from django.contrib import admin

from registry_control.administration.base import ReadOnlyAdmin, human_size
from registry_control.namespaces.models import RecycleBinEntry


@admin.register(RecycleBinEntry)
class RecycleBinEntryAdmin(ReadOnlyAdmin):
    """What was deleted and can be restored."""

    list_display = ("name", "kind", "size_for_people", "deleted_at", "deleted_by", "expires_at")
    list_filter = ("kind",)
    search_fields = ("name", "object_id")
    ordering = ("-deleted_at", "-pk")

    @admin.display(description="size", ordering="size")
    def size_for_people(self, entry: RecycleBinEntry) -> str:
        """The size of what it keeps."""
        return human_size(entry.size)
