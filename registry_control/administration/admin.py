"""Pages of the audit log. They are here because the base classes of all pages write to that log."""

from django.contrib import admin

from registry_control.administration.base import ReadOnlyAdmin
from registry_control.audit.models import AuditEvent


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """The log, newest event first."""

    list_display = ("at", "verb", "target_kind", "target_name", "details", "actor_name", "actor_kind")
    list_filter = ("verb", "actor_kind", "target_kind")
    search_fields = ("actor_name", "actor_id", "verb", "target_name", "target_id", "detail")
    date_hierarchy = "at"
    ordering = ("-id",)

    @admin.display(description="details")
    def details(self, event: AuditEvent) -> str:
        """The details of the event in one line."""
        return ", ".join(
            f"{name}: {value}" for name, value in event.detail.items() if value not in ("", None)
        )
