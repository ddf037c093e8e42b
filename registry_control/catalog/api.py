"""The REST API of images, tags and manifests; selectors and services make all decisions."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.authentication import principal_of
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.selectors import history, listing
from registry_control.catalog.serializers import (
    HistoryQuery,
    HistorySerializer,
    ImageListSerializer,
    ImageQuery,
    ImageSerializer,
    ManifestListSerializer,
    ManifestQuery,
    ManifestSerializer,
    TagListSerializer,
    TagQuery,
    TagSerializer,
    UpdateImageSerializer,
)
from registry_control.catalog.services import images, manifests, tags
from registry_control.rest.identifiers import id_of
from registry_control.rest.openapi import (
    DELETE_ERRORS,
    GET_ERRORS,
    LIST_ERRORS,
    UPDATE_ERRORS,
    id_parameter,
    operation,
)
from registry_control.rest.pagination import bounds
from registry_control.rest.serializers import NoQuery, validated
from registry_control.rest.views import ResourceView

_IMAGES: Final = "images"
_TAGS: Final = "tags"
_MANIFESTS: Final = "manifests"
_IMAGE_ID: Final = id_parameter("image_id")
_TAG_ID: Final = id_parameter("tag_id")
_MANIFEST_ID: Final = id_parameter("manifest_id")
_FORCE: Final = OpenApiParameter(
    "force",
    bool,
    deprecated=True,
    description="Accepted for compatibility, without effect: other tags always stay.",
)


class _ImageView(ResourceView):
    resource = "image"
    serializer = ImageSerializer
    page_serializer = ImageListSerializer

    def context_for(self, rows: Sequence[Image]) -> dict[str, Any]:
        return {"newest_tags": listing.newest_tags_of([image.pk for image in rows])}


class _TagView(ResourceView):
    resource = "tag"
    serializer = TagSerializer
    page_serializer = TagListSerializer


class _ManifestView(ResourceView):
    resource = "manifest"
    serializer = ManifestSerializer
    page_serializer = ManifestListSerializer

    def context_for(self, rows: Sequence[Manifest]) -> dict[str, Any]:
        return {"newest_tags": listing.newest_tags_on([manifest.pk for manifest in rows])}


class ImageList(_ImageView):
    """The images that the caller may see. A push creates an image."""

    @operation(
        "ListImages",
        tag=_IMAGES,
        response=ImageListSerializer,
        parameters=[ImageQuery],
        errors=LIST_ERRORS,
    )
    def get(self, request: Request, region: str) -> Response:
        """List the images that the API key may see, of all namespaces."""
        query = validated(ImageQuery, request.query_params)
        principal = principal_of(request)
        filters = listing.ImageFilter(
            name=query.get("name"),
            namespace_id=query.get("namespace_id"),
            project_id=query.get("project_id"),
            organization_id=query.get("organization_id"),
        )
        return self.respond_with_page(
            listing.images_visible_to(principal, filters),
            query=query,
            shown=Image.objects.all(),
            total=listing.count_images(principal, filters),
        )


class ImageDetail(_ImageView):
    """One image by its id."""

    @operation(
        "GetImage",
        tag=_IMAGES,
        response=ImageSerializer,
        parameters=[_IMAGE_ID],
        errors=GET_ERRORS,
    )
    def get(self, request: Request, region: str, image_id: str) -> Response:
        """Show an image."""
        return self.respond(listing.get_visible_image(principal_of(request), self.parse_id(image_id)))

    @operation(
        "UpdateImage",
        tag=_IMAGES,
        body=UpdateImageSerializer,
        example={"visibility": "private"},
        response=ImageSerializer,
        parameters=[_IMAGE_ID],
        errors=UPDATE_ERRORS,
    )
    def patch(self, request: Request, region: str, image_id: str) -> Response:
        """Change an image's visibility, which overrides that of its namespace from the next pull on."""
        body = validated(UpdateImageSerializer, request.data)
        return self.respond(
            images.update(principal=principal_of(request), image_id=self.parse_id(image_id), **body)
        )

    @operation(
        "DeleteImage",
        tag=_IMAGES,
        response=ImageSerializer,
        parameters=[_IMAGE_ID],
        errors=DELETE_ERRORS,
    )
    def delete(self, request: Request, region: str, image_id: str) -> Response:
        """Delete an image with all its tags: the name is free at once, a background task deletes the rest."""
        return self.respond(images.delete(principal=principal_of(request), image_id=self.parse_id(image_id)))


class TagList(_TagView):
    """The tags of one image. A push creates a tag."""

    @operation(
        "ListTags",
        tag=_TAGS,
        response=TagListSerializer,
        parameters=[_IMAGE_ID, TagQuery],
        errors=[*LIST_ERRORS, *GET_ERRORS],
    )
    def get(self, request: Request, region: str, image_id: str) -> Response:
        """List an image's tags."""
        image = listing.get_visible_image(principal_of(request), id_of("image", image_id))
        query = validated(TagQuery, request.query_params)
        rows, total = listing.tags_of(image, name=query.get("name"))
        shown = listing.with_digest(Tag.objects.all())
        return self.respond_with_page(rows, query=query, shown=shown, total=total)


class TagDetail(_TagView):
    """One tag by its id."""

    @operation("GetTag", tag=_TAGS, response=TagSerializer, parameters=[_TAG_ID], errors=GET_ERRORS)
    def get(self, request: Request, region: str, tag_id: str) -> Response:
        """Show a tag."""
        return self.respond(listing.get_visible_tag(principal_of(request), self.parse_id(tag_id)))

    @operation(
        "DeleteTag",
        tag=_TAGS,
        response=TagSerializer,
        parameters=[_TAG_ID, _FORCE],
        errors=DELETE_ERRORS,
    )
    def delete(self, request: Request, region: str, tag_id: str) -> Response:
        """Delete a tag; its manifest and the other tags of the manifest remain."""
        return self.respond(tags.delete(principal=principal_of(request), tag_id=self.parse_id(tag_id)))


class TagHistoryList(APIView):
    """The manifests that a tag named."""

    @operation(
        "ListTagHistory",
        tag=_TAGS,
        response=HistorySerializer,
        parameters=[_TAG_ID, HistoryQuery],
        errors=[*LIST_ERRORS, *GET_ERRORS, HTTPStatus.FORBIDDEN],
    )
    def get(self, request: Request, region: str, tag_id: str) -> Response:
        """List what a tag named and who set it, as far back as the recycle bin reaches.

        Needs the right to administer the namespace.
        """
        tag = history.get_tag(principal_of(request), id_of("tag", tag_id))
        query = validated(HistoryQuery, request.query_params)
        total = history.length_of(tag)
        start, stop = bounds(query, total=total)
        newest_first = query["order_by"] == "from_desc"
        found = history.part_of(tag, newest_first=newest_first, start=start, stop=stop, total=total)
        return Response(HistorySerializer({"history": found, "total_count": total}).data)


class ManifestList(_ManifestView):
    """The manifests of one image, tagged or not. A push creates a manifest."""

    @operation(
        "ListManifests",
        tag=_MANIFESTS,
        response=ManifestListSerializer,
        parameters=[ManifestQuery],
        errors=[*LIST_ERRORS, *GET_ERRORS],
    )
    def get(self, request: Request, region: str) -> Response:
        """List an image's manifests with their tags; `is_reachable=false` lists those that no tag reaches."""
        query = validated(ManifestQuery, request.query_params)
        image = listing.get_visible_image(principal_of(request), query["image_id"])
        rows = listing.manifests_of(image, digest=query.get("digest"), is_reachable=query.get("is_reachable"))
        return self.respond_with_page(rows, query=query)


class ManifestDetail(_ManifestView):
    """One manifest by its id."""

    @operation(
        "GetManifest",
        tag=_MANIFESTS,
        response=ManifestSerializer,
        parameters=[_MANIFEST_ID],
        errors=[*LIST_ERRORS, *GET_ERRORS],
    )
    def get(self, request: Request, region: str, manifest_id: str) -> Response:
        """Show a manifest."""
        validated(NoQuery, request.query_params)
        return self.respond(listing.get_visible_manifest(principal_of(request), self.parse_id(manifest_id)))

    @operation(
        "DeleteManifest",
        tag=_MANIFESTS,
        response=ManifestSerializer,
        parameters=[_MANIFEST_ID],
        errors=[*LIST_ERRORS, *DELETE_ERRORS],
    )
    def delete(self, request: Request, region: str, manifest_id: str) -> Response:
        """Delete a manifest with all its tags, as a client that deletes its digest does."""
        validated(NoQuery, request.query_params)
        manifest = manifests.delete_visible(
            principal=principal_of(request), manifest_id=self.parse_id(manifest_id)
        )
        return self.respond(manifest, context={"newest_tags": {}})
