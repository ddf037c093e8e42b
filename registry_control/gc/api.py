"""The REST API of garbage collection; selectors and services make all decisions."""

from http import HTTPStatus
from typing import Final

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.authentication import principal_of
from registry_control.common.clock import database_now
from registry_control.gc.policy import Rules
from registry_control.gc.selectors import explanation, queue, report
from registry_control.gc.serializers import (
    ExplainQuery,
    ExplanationSerializer,
    NoBody,
    QueueSerializer,
    ReportSerializer,
    RunListSerializer,
    RunQuery,
    RunSerializer,
    StartRunSerializer,
)
from registry_control.gc.services import breaker, requested
from registry_control.rest.openapi import id_parameter, operation
from registry_control.rest.serializers import NoQuery, validated
from registry_control.rest.views import ResourceView

_TAG: Final = "garbage collection"
_RUN_ID: Final = id_parameter("run_id")
_ERRORS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN)


class Queue(APIView):
    """The review queue as a whole."""

    @operation("GetGarbageQueue", tag=_TAG, response=QueueSerializer, errors=_ERRORS)
    def get(self, request: Request, region: str) -> Response:
        """Count the unreferenced blobs that wait for their deletion; for operators of the installation."""
        validated(NoQuery, request.query_params)
        found = queue.summary(principal_of(request), grace=settings.GC_GRACE)
        return Response(QueueSerializer(found).data)


class DiskReport(APIView):
    """Why the disk has not shrunk."""

    @operation("GetGarbageReport", tag=_TAG, response=ReportSerializer, errors=_ERRORS)
    def get(self, request: Request, region: str) -> Response:
        """Say what keeps the stored bytes, and what else is in the storage; for operators."""
        validated(NoQuery, request.query_params)
        found = report.report_to(principal_of(request), grace=settings.GC_GRACE)
        return Response(ReportSerializer(found).data)


class BreakerRelease(APIView):
    """The circuit breaker, once it has stopped the collector."""

    @operation(
        "ReleaseGarbageBreaker", tag=_TAG, body=NoBody, example={}, response=QueueSerializer, errors=_ERRORS
    )
    def post(self, request: Request, region: str) -> Response:
        """Let the collector go on: what is in the queue now is removed, whatever its size."""
        validated(NoQuery, request.query_params)
        validated(NoBody, request.data)
        principal = principal_of(request)
        breaker.request_release(principal=principal)
        return Response(QueueSerializer(queue.summary(principal, grace=settings.GC_GRACE)).data)


class _RunView(ResourceView):
    resource = "run"
    serializer = RunSerializer
    page_serializer = RunListSerializer


class RunList(_RunView):
    """Runs of garbage collection."""

    @operation("ListGarbageRuns", tag=_TAG, response=RunListSerializer, parameters=[RunQuery], errors=_ERRORS)
    def get(self, request: Request, region: str) -> Response:
        """List the runs, the newest first; continuous work is one run an hour."""
        query = validated(RunQuery, request.query_params)
        return self.respond_with_page(queue.runs(principal_of(request)), query=query)

    @operation(
        "CreateGarbageRun",
        tag=_TAG,
        body=StartRunSerializer,
        example={"dry_run": True},
        response=RunSerializer,
        errors=_ERRORS,
    )
    def post(self, request: Request, region: str) -> Response:
        """Start a run: a worker deletes what is due at once, or in a dry run counts it."""
        validated(NoQuery, request.query_params)
        body = validated(StartRunSerializer, request.data)
        return self.respond(requested.request_run(principal=principal_of(request), **body))


class RunDetail(_RunView):
    """One run by its id."""

    @operation(
        "GetGarbageRun",
        tag=_TAG,
        response=RunSerializer,
        parameters=[_RUN_ID],
        errors=[*_ERRORS, HTTPStatus.NOT_FOUND],
    )
    def get(self, request: Request, region: str, run_id: str) -> Response:
        """Show a run."""
        validated(NoQuery, request.query_params)
        return self.respond(queue.get_run(principal_of(request), run_id))


class Explain(APIView):
    """The state of one digest."""

    @operation(
        "ExplainGarbage",
        tag=_TAG,
        response=ExplanationSerializer,
        parameters=[ExplainQuery],
        errors=[HTTPStatus.BAD_REQUEST],
    )
    def get(self, request: Request, region: str) -> Response:
        """Say why a blob or manifest is kept, or when it goes, as far as the API key may know."""
        query = validated(ExplainQuery, request.query_params)
        viewer = explanation.Viewer(principal_of(request))
        rules = Rules(database_now(), settings.GC_GRACE)
        found = explanation.explain(query["digest"], viewer=viewer, rules=rules)
        return Response(ExplanationSerializer(found).data)
