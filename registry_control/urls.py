"""Every path of the control plane.

Paths of the v1 API do not end in a slash, and nothing redirects: clients would turn a POST into a GET.
"""

from functools import partial

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, register_converter
from drf_spectacular.views import SpectacularSwaggerView

from registry_control.access.api import Keys, Tokens
from registry_control.catalog.api import ImageDetail, ImageList, TagDetail, TagList
from registry_control.catalog.selectors.resolve import repository_facts
from registry_control.common.version import version
from registry_control.namespaces.api import NamespaceDetail, NamespaceList
from registry_control.rest import errors
from registry_control.rest.api import Health, Metadata, Schema
from registry_control.rest.identifiers import OtherRegion, OwnRegion

register_converter(OwnRegion, "own_region")
register_converter(OtherRegion, "other_region")

# Only the control plane has pages, so only here are they loaded: the other processes need none of them.
admin.autodiscover()
admin.site.site_header = f"Stowage {version()}"
admin.site.site_title = "Stowage"

_REGISTRY_V1 = [
    path("namespaces", NamespaceList.as_view()),
    path("namespaces/<str:namespace_id>", NamespaceDetail.as_view()),
    path("images", ImageList.as_view()),
    path("images/<str:image_id>", ImageDetail.as_view()),
    path("images/<str:image_id>/tags", TagList.as_view()),
    path("tags/<str:tag_id>", TagDetail.as_view()),
]
_unknown_region = partial(errors.unknown_region, served=settings.REGION)

urlpatterns = [
    path("registry/v1/regions/<own_region:region>/", include(_REGISTRY_V1)),
    path("registry/v1/regions/<other_region:region>/<path:rest>", _unknown_region),
    path(
        "registry-internal/v1/regions/<own_region:region>/tokens", Tokens.as_view(facts_of=repository_facts)
    ),
    path("registry-internal/v1/regions/<other_region:region>/<path:rest>", _unknown_region),
    path(".well-known/jwks.json", Keys.as_view()),
    path("metadata", Metadata.as_view()),
    path("healthz", Health.as_view()),
    path("api/schema/", Schema.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("admin/", admin.site.urls),
]

handler400 = errors.bad_request
handler403 = errors.permission_denied
handler404 = errors.not_found
handler500 = errors.server_error
