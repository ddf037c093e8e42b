"""What is asked about the control plane itself, by anyone."""

import threading
from typing import Any, Final

from django.conf import settings
from django.db import connection
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

# Its generator loads its extensions at the first use, and two first uses at once would meet half of them.
_one_at_a_time: Final = threading.Lock()


@extend_schema(exclude=True)
class Schema(SpectacularAPIView):
    """The description of the v1 API."""

    def get(self, request: Request, *arguments: Any, **options: Any) -> Response:
        """Generate it, one request after the other."""
        with _one_at_a_time:
            response: Response = super().get(request, *arguments, **options)  # type: ignore[no-untyped-call]
        return response


@extend_schema(exclude=True)
class Health(APIView):
    """Whether the database answers."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        """Ask it; when it is away, the answer is 503."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return Response({"status": "ok"})


@extend_schema(exclude=True)
class Metadata(APIView):
    """What clients build resource names from; they work without it too."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        """Say whose registry this is."""
        return Response({"platform": "stowage", "partition": "stowage", "domain": settings.PUBLIC_HOST})
