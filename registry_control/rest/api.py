"""Endpoints of the control plane that belong to no resource, and those for regions that it does not serve."""

import threading
from functools import cache
from typing import Any, Final

from django.conf import settings
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.encoding import force_bytes
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.permissions import AllowAny
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from registry_control.common.errors import UnknownRegion
from registry_control.rest.serializers import validated

# drf-spectacular loads its extensions on first use, which is not thread-safe.
_generator_lock: Final = threading.Lock()


@cache
def document(renderer: type[BaseRenderer]) -> bytes:
    """The OpenAPI document as YAML or JSON.

    Independent of the request, and cached: generating it takes more than 0.1 s, and clients need no
    credentials to request it.
    """
    schema = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    return force_bytes(renderer().render(schema, renderer_context={}))


@extend_schema(exclude=True)
class Schema(SpectacularAPIView):
    """The OpenAPI document of the v1 API."""

    def get(self, request: Request, *_: Any, **__: Any) -> HttpResponse:
        """Return it in the negotiated media type; parameters of the media type are ignored."""
        renderer = request.accepted_renderer
        with _generator_lock:
            content = document(type(renderer))  # type: ignore[arg-type]
        name = self._get_filename(request, None)  # type: ignore[no-untyped-call]
        return HttpResponse(
            content,
            content_type=f"{renderer.media_type}; charset=utf-8" if renderer.charset else renderer.media_type,
            headers={"Content-Disposition": f'inline; filename="{name}"'},
        )


@extend_schema(exclude=True)
class Metadata(APIView):
    """Names from which some clients build resource names; it is optional for them."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        """Return the names."""
        return Response({"platform": "stowage", "partition": "stowage", "domain": settings.PUBLIC_HOST})


@extend_schema(exclude=True)
class Root(APIView):
    """The root of the control plane, which people open in a browser."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> HttpResponse:
        """Redirect to the administration pages."""
        return HttpResponseRedirect(reverse("admin:index"))


@extend_schema(exclude=True)
class UnservedRegion(APIView):
    """Any path and method of a region that this installation does not serve."""

    def _raise_unknown_region(self, request: Request, region: str, **_: str) -> Response:
        raise UnknownRegion(region, settings.REGION)

    get = post = put = patch = delete = options = _raise_unknown_region


@extend_schema(exclude=True)
class EmptyList(UnservedRegion):
    """An empty list for another region of Scaleway, because some clients list all regions."""

    items = ""
    query: type[Serializer[Any]] = Serializer

    def get(self, request: Request, region: str, **_: str) -> Response:
        """Validate the arguments as in the served region, and return an empty page."""
        validated(self.query, request.query_params)
        return Response({self.items: [], "total_count": 0})
