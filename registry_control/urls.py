"""Every path of the control plane.

Paths of the v1 API do not end in a slash, and none of them redirects: clients would turn a POST into a GET.
Every view but those of the administration is one of REST framework's, whose errors `rest.errors` renders.
"""

from django.contrib import admin
from django.urls import include, path, register_converter
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny

from registry_control.access.api import Keys, Tokens
from registry_control.catalog.api import (
    ImageDetail,
    ImageList,
    ManifestDetail,
    ManifestList,
    TagDetail,
    TagHistoryList,
    TagList,
)
from registry_control.catalog.selectors.resolve import repository_facts
from registry_control.catalog.serializers import ImageQuery, TagQuery
from registry_control.gc.api import BreakerRelease, DiskReport, Explain, Queue, RunDetail, RunList
from registry_control.gc.retention_api import RetentionDetail, RetentionPreview
from registry_control.integrity.api import Scrub
from registry_control.monitoring.api import Metrics
from registry_control.namespaces.api import NamespaceDetail, NamespaceList
from registry_control.namespaces.serializers import NamespaceQuery
from registry_control.recycling.api import EntryDetail, EntryList, EntryRestore, Usage
from registry_control.replication.api import (
    ExecutionCancel,
    ExecutionDetail,
    ExecutionList,
    RuleDetail,
    RuleList,
    RuleRun,
    TargetCheck,
    TargetDetail,
    TargetList,
)
from registry_control.rest import errors
from registry_control.rest.api import EmptyList, Metadata, Root, Schema, UnservedRegion
from registry_control.rest.identifiers import OtherRegion, OtherScalewayRegion, OwnRegion
from registry_control.serving.heartbeat import heartbeat_ages

register_converter(OwnRegion, "own_region")
register_converter(OtherRegion, "other_region")
register_converter(OtherScalewayRegion, "other_scaleway_region")

# Loaded here and not at start: of all processes only the control plane serves the administration.
admin.autodiscover()

_REGISTRY_V1 = [
    path("namespaces", NamespaceList.as_view()),
    path("namespaces/<str:namespace_id>", NamespaceDetail.as_view()),
    path("images", ImageList.as_view()),
    path("images/<str:image_id>", ImageDetail.as_view()),
    path("images/<str:image_id>/tags", TagList.as_view()),
    path("tags/<str:tag_id>", TagDetail.as_view()),
]
_REGISTRY_V1BETA1 = [
    path("gc/queue", Queue.as_view()),
    path("gc/report", DiskReport.as_view()),
    path("gc/breaker/release", BreakerRelease.as_view()),
    path("gc/runs", RunList.as_view()),
    path("gc/runs/<str:run_id>", RunDetail.as_view()),
    path("gc/explain", Explain.as_view()),
    path("namespaces/<str:namespace_id>/retention", RetentionDetail.as_view()),
    path("namespaces/<str:namespace_id>/retention/preview", RetentionPreview.as_view()),
    path("gc/scrub", Scrub.as_view()),
    path("tags/<str:tag_id>/history", TagHistoryList.as_view()),
    path("usage", Usage.as_view()),
    path("recycle-bin", EntryList.as_view()),
    path("recycle-bin/<str:entry_id>", EntryDetail.as_view()),
    path("recycle-bin/<str:entry_id>/restore", EntryRestore.as_view()),
    path("manifests", ManifestList.as_view()),
    path("manifests/<str:manifest_id>", ManifestDetail.as_view()),
]
_REPLICATION_V1BETA1 = [
    path("targets", TargetList.as_view()),
    path("targets/<str:target_id>", TargetDetail.as_view()),
    path("targets/<str:target_id>/check", TargetCheck.as_view()),
    path("rules", RuleList.as_view()),
    path("rules/<str:rule_id>", RuleDetail.as_view()),
    path("rules/<str:rule_id>/run", RuleRun.as_view()),
    path("executions", ExecutionList.as_view()),
    path("executions/<str:execution_id>", ExecutionDetail.as_view()),
    path("executions/<str:execution_id>/cancel", ExecutionCancel.as_view()),
]
_OTHER_REGION_LISTS = [
    path("namespaces", EmptyList.as_view(items="namespaces", query=NamespaceQuery)),
    path("images", EmptyList.as_view(items="images", query=ImageQuery)),
    path("images/<str:image_id>/tags", EmptyList.as_view(items="tags", query=TagQuery)),
]

urlpatterns = [
    path("", Root.as_view()),
    path("registry/v1/regions/<own_region:region>/", include(_REGISTRY_V1)),
    path("registry/v1/regions/<other_scaleway_region:region>/", include(_OTHER_REGION_LISTS)),
    path("registry/v1/regions/<other_region:region>/<path:rest>", UnservedRegion.as_view()),
    path("registry/v1beta1/regions/<own_region:region>/", include(_REGISTRY_V1BETA1)),
    path("registry/v1beta1/regions/<other_region:region>/<path:rest>", UnservedRegion.as_view()),
    path("replication/v1beta1/regions/<own_region:region>/", include(_REPLICATION_V1BETA1)),
    path("replication/v1beta1/regions/<other_region:region>/<path:rest>", UnservedRegion.as_view()),
    path(
        "registry-internal/v1/regions/<own_region:region>/tokens", Tokens.as_view(facts_of=repository_facts)
    ),
    path(
        "registry-internal/v1/regions/<other_region:region>/<path:rest>",
        UnservedRegion.as_view(authentication_classes=(), permission_classes=(AllowAny,)),
    ),
    path(".well-known/jwks.json", Keys.as_view()),
    path("metadata", Metadata.as_view()),
    path("metrics", Metrics.as_view(heartbeats=heartbeat_ages)),
    path("api/schema/", Schema.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("admin/", admin.site.urls),
]

handler400 = errors.bad_request
handler403 = errors.permission_denied
handler404 = errors.not_found
handler500 = errors.server_error
