"""The REST API of retention."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from django.http import StreamingHttpResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.authentication import principal_of
from registry_control.gc.retention import parse
from registry_control.gc.selectors import retention as retentions
from registry_control.gc.selectors.preview import Preview
from registry_control.gc.serializers import RetentionPreviewSerializer, RetentionSerializer
from registry_control.gc.services import retention
from registry_control.rest.identifiers import id_of
from registry_control.rest.openapi import UPDATE_ERRORS, id_parameter, operation
from registry_control.rest.parsers import has_body
from registry_control.rest.serializers import NoQuery, validated

_TAG: Final = "retention"
_NAMESPACE_ID: Final = id_parameter("namespace_id")
_ERRORS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN)
_PIECE: Final = 64 * 1024  # characters of a preview that are sent at a time


class RetentionDetail(APIView):
    """The retention rules and protected tags of one namespace."""

    @operation(
        "GetRetention",
        tag=_TAG,
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
        tag=_TAG,
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
            document=request.data if has_body(request) else None,
        )
        return Response(policy.as_json())


class RetentionPreview(APIView):
    """What a retention would remove."""

    @operation(
        "PreviewRetention",
        tag=_TAG,
        body=RetentionSerializer,
        response=RetentionPreviewSerializer,
        parameters=[_NAMESPACE_ID],
        errors=[*_ERRORS, HTTPStatus.NOT_FOUND],
    )
    def post(self, request: Request, region: str, namespace_id: str) -> StreamingHttpResponse:
        """Show what an enforcement would remove now, by the rules in the body, or else by those that stand.

        The body is that of a PUT, so `{}` has no rules. Changes nothing. `enabled` does not matter.
        """
        validated(NoQuery, request.query_params)
        namespace = retentions.administered(
            principal_of(request), id_of("namespace", namespace_id), action="read"
        )
        policy = parse(request.data) if has_body(request) else retentions.policy_of(namespace.pk)
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
