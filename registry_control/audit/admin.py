"""The audit log, to read."""

from django.contrib import admin

from registry_control.administration.base import ReadOnlyAdmin
from registry_control.audit.models import AuditEvent

admin.site.site_header = "Stowage administration"
admin.site.site_title = "Stowage"
admin.site.index_title = "Registry"
admin.site.site_url = None  # there is no other site to view


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Newest first."""

    list_display = ("at", "actor_name", "actor_kind", "verb", "target_kind", "target_name", "detail")
    list_filter = ("verb", "actor_kind", "target_kind")
    search_fields = ("actor_name", "target_name", "target_id", "actor_id")
    date_hierarchy = "at"
