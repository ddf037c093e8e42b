"""The health check of the control plane."""

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.common.version import version
from registry_control.serving.heartbeat import worker_state


@extend_schema(exclude=True)
class Health(APIView):
    """Reports whether the database responds and whether a worker is alive."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's
        """503 if the database does not respond. A missing worker does not make this server unhealthy."""
        return Response({"status": "ok", "worker": worker_state(), "version": version()})


class HealthCheck:
    """Serves /healthz before Django checks the Host header: probes use the address of the container."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response
        self._view = Health.as_view()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve the health check, or pass the request on."""
        if request.path != "/healthz":
            return self._get_response(request)
        response: HttpResponseBase = self._view(request).render()
        return response
