"""The REST API of the recycle bin; selectors and services make all decisions."""

from http import HTTPStatus
from typing import Any, Final

from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.authentication import principal_of
from registry_control.access.policy import Principal
from registry_control.catalog.selectors import listing
from registry_control.catalog.serializers import ImageSerializer, ManifestSerializer, TagSerializer
from registry_control.namespaces.models import RecycleBinEntry
from registry_control.namespaces.selectors import get_visible
from registry_control.namespaces.serializers import NamespaceSerializer
from registry_control.recycling import selectors
from registry_control.recycling.serializers import (
    EntryListSerializer,
    EntryQuery,
    EntrySerializer,
    RestoreSerializer,
    UsageSerializer,
)
from registry_control.recycling.services import emptying, restoring
from registry_control.rest.identifiers import id_of
from registry_control.rest.openapi import GET_ERRORS, LIST_ERRORS, UPDATE_ERRORS, id_parameter, operation
from registry_control.rest.pagination import page_of
from registry_control.rest.serializers import NoQuery, validated

_TAG: Final = "recycle bin"
_ID: Final = id_parameter("entry_id")
_RESTORED: Final = PolymorphicProxySerializer(
    component_name="Restored",
    serializers=[NamespaceSerializer, ImageSerializer, ManifestSerializer, TagSerializer],
    resource_type_field_name=None,
)


class EntryList(APIView):
    """The recycle bin."""

    @operation(
        "ListRecycleBin",
        tag=_TAG,
        response=EntryListSerializer,
        parameters=[EntryQuery],
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN],
    )
    def get(self, request: Request, region: str) -> Response:
        """List what was deleted in the namespaces that the API key may administer, and can be restored."""
        query = validated(EntryQuery, request.query_params)
        found = selectors.entries_of(principal_of(request), namespace_id=query.get("namespace_id"))
        page, total = page_of(found, query=query)
        return Response(EntryListSerializer({"entries": page, "total_count": total}).data)


class Usage(APIView):
    """The bytes that an organization uses."""

    @operation("GetUsage", tag=_TAG, response=UsageSerializer, errors=LIST_ERRORS)
    def get(self, request: Request, region: str) -> Response:
        """Show how many bytes the organization of the API key uses, and how many lie in the recycle bin."""
        validated(NoQuery, request.query_params)
        return Response(UsageSerializer(selectors.usage(principal_of(request))).data)


class EntryDetail(APIView):
    """One entry by its id."""

    @operation(
        "GetRecycleBinEntry",
        tag=_TAG,
        response=EntrySerializer,
        parameters=[_ID],
        errors=[*LIST_ERRORS, *GET_ERRORS, HTTPStatus.FORBIDDEN],
    )
    def get(self, request: Request, region: str, entry_id: str) -> Response:
        """Show an entry."""
        validated(NoQuery, request.query_params)
        wanted = id_of(selectors.RESOURCE, entry_id)
        return Response(
            EntrySerializer(selectors.get_entry(principal_of(request), wanted, action="read")).data
        )

    @operation(
        "PurgeRecycleBinEntry",
        tag=_TAG,
        response=EntrySerializer,
        parameters=[_ID],
        errors=[*LIST_ERRORS, *GET_ERRORS, HTTPStatus.FORBIDDEN],
    )
    def delete(self, request: Request, region: str, entry_id: str) -> Response:
        """Delete for good what an entry keeps: the grace period of its content begins."""
        validated(NoQuery, request.query_params)
        wanted = id_of(selectors.RESOURCE, entry_id)
        return Response(
            EntrySerializer(emptying.purge(principal=principal_of(request), entry_id=wanted)).data
        )


class EntryRestore(APIView):
    """The restore of one entry."""

    @operation(
        "RestoreRecycleBinEntry",
        tag=_TAG,
        body=RestoreSerializer,
        example={"name": None},
        response=_RESTORED,
        parameters=[_ID],
        errors=UPDATE_ERRORS,
    )
    def post(self, request: Request, region: str, entry_id: str) -> Response:
        """Restore what was deleted, with the same id; 409 if its name is taken and no other is given."""
        validated(NoQuery, request.query_params)
        wanted, principal = id_of(selectors.RESOURCE, entry_id), principal_of(request)
        selectors.get_entry(principal, wanted, action="write")  # 404 comes before what is wrong with the body
        body = validated(RestoreSerializer, request.data)
        restored = restoring.restore(principal=principal, entry_id=wanted, name=body["name"])
        return Response(_shown(principal, restored))


def _shown(principal: Principal, restored: restoring.Restored) -> dict[str, Any]:
    """What was restored, as the other routes of the API show it."""
    match restored.kind:
        case RecycleBinEntry.Kind.NAMESPACE:
            return NamespaceSerializer(get_visible(principal, restored.id)).data
        case RecycleBinEntry.Kind.IMAGE:
            image = listing.get_visible_image(principal, restored.id)
            tags = listing.newest_tags_of([image.pk])
            return ImageSerializer(image, context={"newest_tags": tags}).data
        case RecycleBinEntry.Kind.MANIFEST:
            manifest = listing.get_visible_manifest(principal, restored.id)
            on_it = listing.newest_tags_on([manifest.pk])
            return ManifestSerializer(manifest, context={"newest_tags": on_it}).data
        case _:
            return TagSerializer(listing.get_visible_tag(principal, restored.id)).data
