"""Namespaces over HTTP: translates, and decides nothing."""

from http import HTTPStatus
from typing import Final

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.authentication import principal_of
from registry_control.namespaces import selectors, services
from registry_control.namespaces.models import Namespace
from registry_control.namespaces.serializers import (
    CreateNamespaceSerializer,
    NamespaceListSerializer,
    NamespaceQuery,
    NamespaceSerializer,
    UpdateNamespaceSerializer,
)
from registry_control.rest.identifiers import id_of
from registry_control.rest.openapi import id_parameter, operation
from registry_control.rest.pagination import page_of
from registry_control.rest.serializers import checked

_TAG: Final = "namespaces"
_ID: Final = id_parameter("namespace_id")


class NamespaceList(APIView):
    """All that the caller may see."""

    @operation(
        "ListNamespaces",
        tag=_TAG,
        answer=NamespaceListSerializer,
        parameters=[NamespaceQuery],
        errors=[HTTPStatus.BAD_REQUEST],
    )
    def get(self, request: Request, region: str) -> Response:
        """List the namespaces that the API key may see, of all projects."""
        query = checked(NamespaceQuery, request.query_params)
        found = selectors.listed(
            principal_of(request),
            name=query.get("name"),
            project_id=query.get("project_id"),
            organization_id=query.get("organization_id"),
        )
        page, total = page_of(found, query=query)
        return Response(NamespaceListSerializer({"namespaces": page, "total_count": total}).data)

    @operation(
        "CreateNamespace",
        tag=_TAG,
        body=CreateNamespaceSerializer,
        example={"name": "my-namespace", "description": "", "is_public": False},
        answer=NamespaceSerializer,
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT],
    )
    def post(self, request: Request, region: str) -> Response:
        """Create a namespace; its name is unique in the whole registry and never changes."""
        body = checked(CreateNamespaceSerializer, request.data)
        return _shown(services.create(principal=principal_of(request), **body))


class NamespaceDetail(APIView):
    """One namespace by its id."""

    @operation(
        "GetNamespace",
        tag=_TAG,
        answer=NamespaceSerializer,
        parameters=[_ID],
        errors=[HTTPStatus.NOT_FOUND],
    )
    def get(self, request: Request, region: str, namespace_id: str) -> Response:
        """Show a namespace."""
        return _shown(selectors.get_visible(principal_of(request), id_of("namespace", namespace_id)))

    @operation(
        "UpdateNamespace",
        tag=_TAG,
        body=UpdateNamespaceSerializer,
        example={"is_public": True},
        answer=NamespaceSerializer,
        parameters=[_ID],
        errors=[
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.LOCKED,
        ],
    )
    def patch(self, request: Request, region: str, namespace_id: str) -> Response:
        """Change description or privacy policy; the policy decides the very next pull."""
        body = checked(UpdateNamespaceSerializer, request.data)
        return _shown(
            services.update(
                principal=principal_of(request), namespace_id=id_of("namespace", namespace_id), **body
            )
        )

    @operation(
        "DeleteNamespace",
        tag=_TAG,
        answer=NamespaceSerializer,
        parameters=[_ID],
        errors=[HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.LOCKED],
    )
    def delete(self, request: Request, region: str, namespace_id: str) -> Response:
        """Delete a namespace with all its images: the name is free at once, the rest follows."""
        return _shown(
            services.delete(principal=principal_of(request), namespace_id=id_of("namespace", namespace_id))
        )


def _shown(namespace: Namespace) -> Response:
    return Response(NamespaceSerializer(namespace).data)
