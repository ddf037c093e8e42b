"""`GET /metrics`, for Prometheus and others that read its format."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from registry_control.access.authentication import BearerAuthentication, principal_of
from registry_control.access.selectors import require_operator
from registry_control.monitoring.metrics import exposition

_RESOURCE: Final = "registry_metrics"


@extend_schema(exclude=True)  # no JSON
class Metrics(APIView):
    """Figures of the installation, for its operators."""

    authentication_classes = (BearerAuthentication,)
    heartbeats: Callable[[], Mapping[str, timedelta]] = staticmethod(dict)
    """The ages of the heartbeats of the worker, from an app above this one: `as_view(heartbeats=...)`."""

    def get(self, request: Request) -> HttpResponse:
        """Read all figures now."""
        require_operator(principal_of(request), "read", _RESOURCE)
        return HttpResponse(exposition(self.heartbeats()), content_type=CONTENT_TYPE_LATEST)

    def perform_content_negotiation(
        self,
        request: Request,
        force: bool | None = False,
    ) -> tuple[BaseRenderer, str]:
        """Ignore `Accept`: figures are text, and errors are JSON as everywhere."""
        return JSONRenderer(), JSONRenderer.media_type
