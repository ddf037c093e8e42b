"""The REST API of garbage collection; selectors and services make all decisions."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.http import StreamingHttpResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.authentication import principal_of
from registry_control.common.clock import now
from registry_control.gc.policy import Rules
from registry_control.gc.retention import parse
from registry_control.gc.selectors import explanation, queue
from registry_control.gc.selectors import retention as retentions
from registry_control.gc.selectors.preview import Preview
from registry_control.gc.serializers import (
    ExplainQuery,
    ExplanationSerializer,
    NoQuery,
    QueueSerializer,
    RetentionPreviewSerializer,
    RetentionSerializer,
    RunListSerializer,
    RunQuery,
    RunSerializer,
    StartRunSerializer,
)
from registry_control.gc.services import requested, retention
from registry_control.rest.identifiers import id_of
from registry_control.rest.openapi import UPDATE_ERRORS, id_parameter, operation
from registry_control.rest.serializers import validated
from registry_control.rest.views import ResourceView

_TAG: Final = "garbage collection"
_RETENTION: Final = "retention"
_PIECE: Final = 64 * 1024  # characters of a preview that are sent at a time
_RUN_ID: Final = id_parameter("run_id")
_NAMESPACE_ID: Final = id_parameter("namespace_id")
_ERRORS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN)


class Queue(APIView):
    """The review queue as a whole."""

    @operation("GetGarbageQueue", tag=_TAG, response=QueueSerializer, errors=_ERRORS)
    def get(self, request: Request, region: str) -> Response:
        """Count the unreferenced blobs that wait for their deletion; for operators of the installation."""
        validated(NoQuery, request.query_params)
        found = queue.summary(principal_of(request), grace=settings.GC_GRACE)
        return Response(QueueSerializer(found).data)


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
        found = explanation.explain(query["digest"], viewer=viewer, rules=Rules(now(), settings.GC_GRACE))
        return Response(ExplanationSerializer(found).data)


class RetentionDetail(APIView):
    """The retention rules and protected tags of one namespace."""

    @operation(
        "GetRetention",
        tag=_RETENTION,
        response=RetentionSerializer,
        parameters=[_NAMESPACE_ID],
        errors=[*_ERRORS, HTTPStatus.NOT_FOUND],
    )
    def get(self, request: Request, region: str, namespace_id: str) -> Response:
        """Show the retention of a namespace; without one, it is disabled and empty."""
        validated(NoQuery, request.query_params)
        namespace = retentions.administered(
            principal_of(request), id_of("namespace", namespace_id), action="read"
        )
        return Response(retentions.policy_of(namespace.pk).as_json())

    @operation(
        "SetRetention",
        tag=_RETENTION,
        body=RetentionSerializer,
        example={
            "enabled": True,
            "rules": [{"images": "*", "tags": "pr-*", "keep_newest": 5, "keep_days_since_pulled": 14}],
            "untagged_days": 30,
            "protected_tags": ["v*"],
            "protected_except": ["v*-rc*"],
        },
        response=RetentionSerializer,
        parameters=[_NAMESPACE_ID],
        errors=UPDATE_ERRORS,
    )
    def put(self, request: Request, region: str, namespace_id: str) -> Response:
        """Replace the retention of a namespace; it is enforced within a minute and then every hour."""
        validated(NoQuery, request.query_params)
        policy = retention.put(
            principal=principal_of(request),
            namespace_id=id_of("namespace", namespace_id),
            document=request.data,
        )
        return Response(policy.as_json())


class RetentionPreview(APIView):
    """What a retention would remove."""

    @operation(
        "PreviewRetention",
        tag=_RETENTION,
        body=RetentionSerializer,
        response=RetentionPreviewSerializer,
        parameters=[_NAMESPACE_ID],
        errors=[*_ERRORS, HTTPStatus.NOT_FOUND],
    )
    def post(self, request: Request, region: str, namespace_id: str) -> StreamingHttpResponse:
        """Show what an enforcement would remove now, by the rules in the body, or else by those that stand.

        Changes nothing. `enabled` does not matter.
        """
        validated(NoQuery, request.query_params)
        namespace = retentions.administered(
            principal_of(request), id_of("namespace", namespace_id), action="read"
        )
        policy = parse(request.data) if request.data != {} else retentions.policy_of(namespace.pk)
        return StreamingHttpResponse(_stream(Preview(namespace, policy)), content_type="application/json")


def _stream(preview: Preview) -> Iterator[bytes]:
    """The JSON of a preview in pieces, because a namespace may have millions of tags."""
    pieces, length = ['{"tags": ['], 0
    for number, each in enumerate(preview.tags()):
        action = "keep" if each.keep else "remove"
        shown = {"image": each.image, "tag": each.tag, "digest": each.digest, "action": action}
        pieces.append((", " if number else "") + json.dumps({**shown, "reason": each.reason}))
        length += len(pieces[-1])
        if length >= _PIECE:
            yield "".join(pieces).encode()
            pieces, length = [], 0
    pieces.append(f'], "manifests": {preview.manifests}, "bytes": {preview.bytes}}}')
    yield "".join(pieces).encode()
