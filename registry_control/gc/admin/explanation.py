"""The pages of blobs and manifests, with a section on why their content is kept, or when it goes."""

from typing import Any, Final

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string

from registry_control.administration.base import AuditedAdmin
from registry_control.catalog.admin import BlobAdmin, ManifestAdmin
from registry_control.catalog.models import Blob, Manifest
from registry_control.common.clock import database_now
from registry_control.gc.policy import Rules
from registry_control.gc.selectors.explanation import Viewer, explain

_INSTALLATION: Final = Viewer(None)


class _ExplainedAdmin(AuditedAdmin):
    """Adds the section for staff who may view images, whose names it has."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Put the section below the columns."""
        columns = super().get_fieldsets(request, obj)
        if obj is None or not request.user.has_perm("catalog.view_image"):
            return columns
        return [*columns, ("Garbage collection", {"fields": ("explanation",)})]

    @admin.display(description="why it is kept, or when it goes")
    def explanation(self, row: Any) -> str:
        """What the API says of the digest to someone who may see all images."""
        rules = Rules(database_now(), settings.GC_GRACE)
        found = explain(row.digest, viewer=_INSTALLATION, rules=rules)
        return render_to_string("admin/gc/explanation.html", {"found": found})


@admin.register(Blob)
class ExplainedBlobAdmin(_ExplainedAdmin, BlobAdmin):
    """The page of the catalogue with the section."""


@admin.register(Manifest)
class ExplainedManifestAdmin(_ExplainedAdmin, ManifestAdmin):
    """The page of the catalogue with the section."""
