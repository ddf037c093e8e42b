"""The REST API of scrubbing; selectors and services make all decisions."""

from http import HTTPStatus
from typing import Final

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.authentication import principal_of
from registry_control.integrity.selectors import report
from registry_control.integrity.serializers import ScrubSerializer
from registry_control.rest.openapi import operation
from registry_control.rest.serializers import NoQuery, validated

_ERRORS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN)


class Scrub(APIView):
    """The state of the stored content."""

    @operation("GetScrub", tag="garbage collection", response=ScrubSerializer, errors=_ERRORS)
    def get(self, request: Request, region: str) -> Response:
        """Show how much content was verified, and what is damaged or missing; for operators."""
        validated(NoQuery, request.query_params)
        found = report.report(principal_of(request), period=settings.SCRUB_PERIOD)
        return Response(ScrubSerializer(found).data)
