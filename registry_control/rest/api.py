"""Endpoints about the control plane itself, and those of regions that it does not serve."""

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
from registry_control.rest.serializers import checked

# Its generator loads its extensions at the first use, and two first uses at once would meet half of them.
_one_at_a_time: Final = threading.Lock()


@cache
def document(renderer: type[BaseRenderer]) -> bytes:
    """The description in one of its few forms.

    Made for nobody's request in particular, because everybody is given it, and once: it takes a tenth of a
    second and more, and anyone may ask.
    """
    described = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    return force_bytes(renderer().render(described, renderer_context={}))


@extend_schema(exclude=True)
class Schema(SpectacularAPIView):
    """The description of the v1 API."""

    def get(self, request: Request, *_: Any, **__: Any) -> HttpResponse:
        """Answer in the form that was asked for; indents and versions in the request make no further ones."""
        renderer = request.accepted_renderer
        with _one_at_a_time:
            described = document(type(renderer))  # type: ignore[arg-type]
        name = self._get_filename(request, None)  # type: ignore[no-untyped-call]
        return HttpResponse(
            described,
            content_type=f"{renderer.media_type}; charset=utf-8" if renderer.charset else renderer.media_type,
            headers={"Content-Disposition": f'inline; filename="{name}"'},
        )


@extend_schema(exclude=True)
class Metadata(APIView):
    """What clients build resource names from; they work without it too."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        """Say whose registry this is."""
        return Response({"platform": "stowage", "partition": "stowage", "domain": settings.PUBLIC_HOST})


@extend_schema(exclude=True)
class Root(APIView):
    """The address of the control plane itself, as a person types it."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> HttpResponse:
        """Redirect to the administration."""
        return HttpResponseRedirect(reverse("admin:index"))


@extend_schema(exclude=True)
class UnservedRegion(APIView):
    """Any path and method of a region that this installation does not serve."""

    def _refuse(self, request: Request, region: str, **_: str) -> Response:
        raise UnknownRegion(region, settings.REGION)

    get = post = put = patch = delete = options = _refuse


@extend_schema(exclude=True)
class EmptyList(UnservedRegion):
    """A list in another region of Scaleway's, for clients that query every region in turn."""

    items = ""
    query: type[Serializer[Any]] = Serializer

    def get(self, request: Request, region: str, **_: str) -> Response:
        """Check the arguments as in our own region, and return an empty page."""
        checked(self.query, request.query_params)
        return Response({self.items: [], "total_count": 0})
