"""Images and tags over HTTP: translates, and decides nothing."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.authentication import principal_of
from registry_control.catalog.models import Image, Tag
from registry_control.catalog.selectors import listing
from registry_control.catalog.serializers import (
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
from registry_control.rest.openapi import id_parameter, operation
from registry_control.rest.pagination import page_of
from registry_control.rest.serializers import checked

_IMAGES: Final = "images"
_TAGS: Final = "tags"
_MANIFESTS: Final = "manifests"
_IMAGE_ID: Final = id_parameter("image_id")
_TAG_ID: Final = id_parameter("tag_id")
_MANIFEST_ID: Final = id_parameter("manifest_id")
_FORCE: Final = OpenApiParameter(
    "force", bool, deprecated=True, description="Accepted, and without effect: other tags always stay."
)


class ImageList(APIView):
    """All that the caller may see. Images are made by pushing."""

    @operation(
        "ListImages",
        tag=_IMAGES,
        answer=ImageListSerializer,
        parameters=[ImageQuery],
        errors=[HTTPStatus.BAD_REQUEST],
    )
    def get(self, request: Request, region: str) -> Response:
        """List the images that the API key may see, of all namespaces."""
        query = checked(ImageQuery, request.query_params)
        principal = principal_of(request)
        wanted = listing.ImageFilter(
            name=query.get("name"),
            namespace_id=query.get("namespace_id"),
            project_id=query.get("project_id"),
            organization_id=query.get("organization_id"),
        )
        found, total = listing.images_visible_to(principal, wanted), listing.count_images(principal, wanted)
        page, total = page_of(found, query=query, shown=Image.objects.all(), total=total)
        answer = {"images": page, "total_count": total}
        return Response(ImageListSerializer(answer, context=_tags_of(page)).data)


class ImageDetail(APIView):
    """One image by its id."""

    @operation(
        "GetImage",
        tag=_IMAGES,
        answer=ImageSerializer,
        parameters=[_IMAGE_ID],
        errors=[HTTPStatus.NOT_FOUND],
    )
    def get(self, request: Request, region: str, image_id: str) -> Response:
        """Show an image."""
        return _shown(listing.get_visible_image(principal_of(request), id_of("image", image_id)))

    @operation(
        "UpdateImage",
        tag=_IMAGES,
        body=UpdateImageSerializer,
        example={"visibility": "private"},
        answer=ImageSerializer,
        parameters=[_IMAGE_ID],
        errors=[
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.LOCKED,
        ],
    )
    def patch(self, request: Request, region: str, image_id: str) -> Response:
        """Change an image's own privacy policy, which beats its namespace's from the next pull on."""
        body = checked(UpdateImageSerializer, request.data)
        return _shown(
            images.update(principal=principal_of(request), image_id=id_of("image", image_id), **body)
        )

    @operation(
        "DeleteImage",
        tag=_IMAGES,
        answer=ImageSerializer,
        parameters=[_IMAGE_ID],
        errors=[HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.LOCKED],
    )
    def delete(self, request: Request, region: str, image_id: str) -> Response:
        """Delete an image with all its tags: the name is free at once, the rest follows."""
        return _shown(images.delete(principal=principal_of(request), image_id=id_of("image", image_id)))


class TagList(APIView):
    """The tags of one image. They are made by pushing."""

    @operation(
        "ListTags",
        tag=_TAGS,
        answer=TagListSerializer,
        parameters=[_IMAGE_ID, TagQuery],
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND],
    )
    def get(self, request: Request, region: str, image_id: str) -> Response:
        """List an image's tags."""
        image = listing.get_visible_image(principal_of(request), id_of("image", image_id))
        query = checked(TagQuery, request.query_params)
        found, total = listing.tags_of(image, name=query.get("name"))
        page, total = page_of(found, query=query, shown=listing.with_digest(Tag.objects.all()), total=total)
        return Response(TagListSerializer({"tags": page, "total_count": total}).data)


class TagDetail(APIView):
    """One tag by its id."""

    @operation("GetTag", tag=_TAGS, answer=TagSerializer, parameters=[_TAG_ID], errors=[HTTPStatus.NOT_FOUND])
    def get(self, request: Request, region: str, tag_id: str) -> Response:
        """Show a tag."""
        tag = listing.get_visible_tag(principal_of(request), id_of("tag", tag_id))
        return Response(TagSerializer(tag).data)

    @operation(
        "DeleteTag",
        tag=_TAGS,
        answer=TagSerializer,
        parameters=[_TAG_ID, _FORCE],
        errors=[HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.LOCKED],
    )
    def delete(self, request: Request, region: str, tag_id: str) -> Response:
        """Delete a tag: what it stands for stays, by its digest and by other tags."""
        tag = tags.delete(principal=principal_of(request), tag_id=id_of("tag", tag_id))
        return Response(TagSerializer(tag).data)


class ManifestList(APIView):
    """The manifests of one image, tagged or not. They are made by pushing."""

    @operation(
        "ListManifests",
        tag=_MANIFESTS,
        answer=ManifestListSerializer,
        parameters=[ManifestQuery],
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND],
    )
    def get(self, request: Request, region: str) -> Response:
        """List an image's manifests with their tags; `is_reachable=false` lists what no tag reaches."""
        query = checked(ManifestQuery, request.query_params)
        image = listing.get_visible_image(principal_of(request), query["image_id"])
        found = listing.manifests_of(
            image, digest=query.get("digest"), is_reachable=query.get("is_reachable")
        )
        page, total = page_of(found, query=query)
        answer = {"manifests": page, "total_count": total}
        context = {"newest_tags": listing.newest_tags_on([manifest.pk for manifest in page])}
        return Response(ManifestListSerializer(answer, context=context).data)


class ManifestDetail(APIView):
    """One manifest by its id."""

    @operation(
        "GetManifest",
        tag=_MANIFESTS,
        answer=ManifestSerializer,
        parameters=[_MANIFEST_ID],
        errors=[HTTPStatus.NOT_FOUND],
    )
    def get(self, request: Request, region: str, manifest_id: str) -> Response:
        """Show a manifest."""
        manifest = listing.get_visible_manifest(principal_of(request), id_of("manifest", manifest_id))
        context = {"newest_tags": listing.newest_tags_on([manifest.pk])}
        return Response(ManifestSerializer(manifest, context=context).data)

    @operation(
        "DeleteManifest",
        tag=_MANIFESTS,
        answer=ManifestSerializer,
        parameters=[_MANIFEST_ID],
        errors=[HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.LOCKED],
    )
    def delete(self, request: Request, region: str, manifest_id: str) -> Response:
        """Delete a manifest with all its tags, as a client that deletes its digest does."""
        manifest = manifests.delete_visible(
            principal=principal_of(request), manifest_id=id_of("manifest", manifest_id)
        )
        return Response(ManifestSerializer(manifest, context={"newest_tags": {}}).data)


def _shown(image: Image) -> Response:
    return Response(ImageSerializer(image, context=_tags_of([image])).data)


def _tags_of(page: Iterable[Image]) -> dict[str, Any]:
    return {"newest_tags": listing.newest_tags_of([image.pk for image in page])}
