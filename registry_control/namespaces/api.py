"""The REST API of namespaces; selectors and services make all decisions."""

from http import HTTPStatus
from typing import Final

from rest_framework.request import Request
from rest_framework.response import Response

from registry_control.access.authentication import principal_of
from registry_control.namespaces import selectors, services
from registry_control.namespaces.serializers import (
    CreateNamespaceSerializer,
    NamespaceListSerializer,
    NamespaceQuery,
    NamespaceSerializer,
    UpdateNamespaceSerializer,
)
from registry_control.rest.openapi import (
    DELETE_ERRORS,
    GET_ERRORS,
    LIST_ERRORS,
    UPDATE_ERRORS,
    id_parameter,
    operation,
)
from registry_control.rest.serializers import validated
from registry_control.rest.views import ResourceView

_TAG: Final = "namespaces"
_ID: Final = id_parameter("namespace_id")


class _NamespaceView(ResourceView):
    resource = "namespace"
    serializer = NamespaceSerializer
    page_serializer = NamespaceListSerializer


class NamespaceList(_NamespaceView):
    """All that the caller may see."""

    @operation(
        "ListNamespaces",
        tag=_TAG,
        response=NamespaceListSerializer,
        parameters=[NamespaceQuery],
        errors=LIST_ERRORS,
    )
    def get(self, request: Request, region: str) -> Response:
        """List the namespaces that the API key may see, of all projects."""
        query = validated(NamespaceQuery, request.query_params)
        rows = selectors.listed(
            principal_of(request),
            name=query.get("name"),
            project_id=query.get("project_id"),
            organization_id=query.get("organization_id"),
        )
        return self.respond_with_page(rows, query=query)

    @operation(
        "CreateNamespace",
        tag=_TAG,
        body=CreateNamespaceSerializer,
        example={"name": "my-namespace", "description": "", "is_public": False},
        response=NamespaceSerializer,
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT],
    )
    def post(self, request: Request, region: str) -> Response:
        """Create a namespace; its name is unique in the whole registry and never changes."""
        body = validated(CreateNamespaceSerializer, request.data)
        return self.respond(services.create(principal=principal_of(request), **body))


class NamespaceDetail(_NamespaceView):
    """One namespace by its id."""

    @operation(
        "GetNamespace",
        tag=_TAG,
        response=NamespaceSerializer,
        parameters=[_ID],
        errors=GET_ERRORS,
    )
    def get(self, request: Request, region: str, namespace_id: str) -> Response:
        """Show a namespace."""
        return self.respond(selectors.get_visible(principal_of(request), self.parse_id(namespace_id)))

    @operation(
        "UpdateNamespace",
        tag=_TAG,
        body=UpdateNamespaceSerializer,
        example={"is_public": True},
        response=NamespaceSerializer,
        parameters=[_ID],
        errors=UPDATE_ERRORS,
    )
    def patch(self, request: Request, region: str, namespace_id: str) -> Response:
        """Change description or privacy policy; the policy decides the very next pull."""
        body = validated(UpdateNamespaceSerializer, request.data)
        return self.respond(
            services.update(principal=principal_of(request), namespace_id=self.parse_id(namespace_id), **body)
        )

    @operation(
        "DeleteNamespace",
        tag=_TAG,
        response=NamespaceSerializer,
        parameters=[_ID],
        errors=DELETE_ERRORS,
    )
    def delete(self, request: Request, region: str, namespace_id: str) -> Response:
        """Delete a namespace with all its images: the name is free at once, the rest follows."""
        return self.respond(
            services.delete(principal=principal_of(request), namespace_id=self.parse_id(namespace_id))
        )
