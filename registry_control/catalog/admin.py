"""Administration pages of the catalogue: images, tags, manifests, blobs and uploads.

Services make all changes: only the privacy and the lock of an image can be edited, images, tags and manifests
can be deleted, and all other rows are read-only.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import Count, Model, OuterRef, Q, QuerySet, Subquery, TextField, Value
from django.db.models.functions import Concat
from django.http import HttpRequest
from django.utils.html import format_html

from registry_control.access.policy import Facts, Role, Visibility, is_public
from registry_control.administration.base import (
    ReadOnlyAdmin,
    ServiceDeletedAdmin,
    actor_of,
    human_size,
    link_to,
    link_to_list,
    short,
)
from registry_control.catalog.models import (
    Blob,
    BlobLease,
    BlobLink,
    Image,
    Manifest,
    ManifestChild,
    MissingChild,
    Tag,
    TagHistory,
    UploadSession,
)
from registry_control.catalog.services import images, manifests, tags
from registry_control.common.models import DELETED, NOT_DELETING, Status

if TYPE_CHECKING:
    from django.forms import ModelForm


_RECYCLED: Final = Q(status=Status.RECYCLED) | Q(namespace__status=Status.RECYCLED)


def _recycled() -> QuerySet[Image]:
    """The images in the recycle bin, which has a page of its own."""
    return Image.objects.filter(_RECYCLED)


def _reference(term: str) -> tuple[str, str, str]:
    """Namespace, image and tag of `[HOST/]NAMESPACE/IMAGE[:TAG]`; empty if the term has no slash."""
    first, slash, rest = term.strip().partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        first, slash, rest = rest.partition("/")
    name, _, tag = rest.partition(":")
    return (first, name, tag) if slash else ("", "", "")


class PushedAdmin(ServiceDeletedAdmin):
    """Rows that only a push creates."""

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Always False."""
        return False


@admin.register(Image)
class ImageAdmin(PushedAdmin):
    """An image's own privacy policy overrides that of its namespace."""

    start_deletion = staticmethod(images.start_deletion)
    list_display = (
        "name_in_full",
        "visibility",
        "effective",
        "tag_count",
        "size_for_people",
        "status",
        "pushed_at",
        "last_pulled_at",
    )
    list_filter = ("visibility", "namespace__is_public", "status")
    list_select_related = ("namespace",)
    search_fields = ("name", "id", "namespace__name")
    date_hierarchy = "created_at"
    fields = (
        "id",
        "namespace",
        "name",
        "visibility",
        "effective",
        "pull_command",
        "contents",
        "size_for_people",
        "status",
        "status_message",
        "created_at",
        "updated_at",
        "pushed_at",
        "last_pulled_at",
    )
    readonly_fields = tuple(name for name in fields if name != "visibility")
    actions = ("make_public", "make_private", "inherit", "lock", "unlock")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Image]:
        """Add the number of tags; the recycle bin has a page of its own."""
        found: QuerySet[Image] = super().get_queryset(request).exclude(_RECYCLED)
        return found.annotate(tags_there=Count("tags", filter=~Q(tags__status__in=DELETED)))

    def has_change_permission(self, request: HttpRequest, obj: Image | None = None) -> bool:
        """False while the image or its namespace is being deleted."""
        is_deleting = obj is not None and Status.DELETING in (obj.status, obj.namespace.status)
        return not is_deleting and super().has_change_permission(request, obj)

    @admin.display(description="image", ordering="name")
    def name_in_full(self, image: Image) -> str:
        """NAMESPACE/IMAGE."""
        return str(image)

    @admin.display(description="who may pull")
    def effective(self, image: Image) -> str:
        """Who may pull, by the policies of the image and its namespace together."""
        visibility = Visibility(image.visibility)
        public = is_public(Facts(Role.NONE, namespace_is_public=image.namespace.is_public, image=visibility))
        return "anyone" if public else "members"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Image], search_term: str
    ) -> tuple[QuerySet[Image], bool]:
        """Search also for NAMESPACE/IMAGE, with or without a host in front."""
        namespace, name, _ = _reference(search_term)
        if not namespace:
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(namespace__name=namespace, name__startswith=name), False

    @admin.display(description="pull command")
    def pull_command(self, image: Image) -> str:
        """The docker command for the tag that was pushed last."""
        newest = image.tags.filter(NOT_DELETING).order_by("-updated_at").first()
        tag = f":{newest.name}" if newest else ""
        return format_html("<code>docker pull {}/{}{}</code>", settings.PUBLIC_HOST, image, tag)

    @admin.display(description="tags", ordering="tags_there")
    def tag_count(self, image: Any) -> int:
        """The number of tags."""
        return int(image.tags_there)

    @admin.display(description="size", ordering="size")
    def size_for_people(self, image: Image) -> str:
        """The size of its distinct blobs."""
        return human_size(image.size)

    @admin.display(description="contents")
    def contents(self, image: Image) -> str:
        """A link to the list of its tags."""
        return link_to_list(Tag, "its tags", image__id__exact=image.pk)

    def save_model(self, request: HttpRequest, obj: Image, form: "ModelForm[Any]", change: bool) -> None:
        """Set the visibility through the service; administrators may also edit a read-only image."""
        for image in _locked(Image.objects.filter(pk=obj.pk)) if form.changed_data else ():
            images.change_visibility(image, to=form.cleaned_data["visibility"], actor=actor_of(request))

    @admin.action(description="Make public: anyone may pull", permissions=["change"])
    def make_public(self, request: HttpRequest, queryset: QuerySet[Image]) -> None:
        """Set the image's own policy."""
        self._set_visibility(request, queryset, Visibility.PUBLIC)

    @admin.action(description="Make private", permissions=["change"])
    def make_private(self, request: HttpRequest, queryset: QuerySet[Image]) -> None:
        """Set the image's own policy."""
        self._set_visibility(request, queryset, Visibility.PRIVATE)

    @admin.action(description="Inherit from the namespace", permissions=["change"])
    def inherit(self, request: HttpRequest, queryset: QuerySet[Image]) -> None:
        """Remove the image's own policy."""
        self._set_visibility(request, queryset, Visibility.INHERIT)

    @admin.action(description="Lock: refuse pushes and changes", permissions=["change"])
    def lock(self, request: HttpRequest, queryset: QuerySet[Image]) -> None:
        """Make it read-only; pulls continue."""
        self._set_locked(request, queryset, is_locked=True)

    @admin.action(description="Unlock", permissions=["change"])
    def unlock(self, request: HttpRequest, queryset: QuerySet[Image]) -> None:
        """Make it writable again."""
        self._set_locked(request, queryset, is_locked=False)

    def _set_visibility(self, request: HttpRequest, queryset: QuerySet[Image], to: Visibility) -> None:
        for image in _locked(queryset).exclude(visibility=to):
            images.change_visibility(image, to=to, actor=actor_of(request))
            messages.info(request, f"Now {to}: {image}")

    def _set_locked(self, request: HttpRequest, queryset: QuerySet[Image], *, is_locked: bool) -> None:
        change = images.lock if is_locked else images.unlock
        for image in _locked(queryset):
            if change(image, actor=actor_of(request)):
                messages.info(request, f"Now {image.status}: {image}")


def _locked(queryset: QuerySet[Image]) -> QuerySet[Image]:
    """Lock the rows in the common lock order; without counts, because PostgreSQL cannot lock aggregates."""
    found = Image.objects.filter(NOT_DELETING, pk__in=queryset.values("pk"))
    return found.select_related("namespace__project").select_for_update(of=("self",)).order_by("pk")


@admin.register(Tag)
class TagAdmin(PushedAdmin):
    """Deleting a tag leaves its manifest and its siblings."""

    start_deletion = staticmethod(tags.start_deletion)
    lock_order = ("image_id", "pk")
    list_display = ("name", "image", "digest", "status", "created_at", "updated_at", "last_pulled_at")
    list_filter = ("status",)
    list_select_related = ("image__namespace", "manifest")
    search_fields = ("name", "id", "image__name", "manifest__digest")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Tag], search_term: str
    ) -> tuple[QuerySet[Tag], bool]:
        """Search also for NAMESPACE/IMAGE:TAG, with or without a host in front."""
        namespace, name, tag = _reference(search_term)
        if not namespace:
            return super().get_search_results(request, queryset, search_term)
        found = queryset.filter(image__namespace__name=namespace, image__name__startswith=name)
        return found.filter(name__startswith=tag), False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tag]:
        """Do not load the manifests' payloads."""
        found: QuerySet[Tag] = super().get_queryset(request)
        return found.exclude(image__in=_recycled()).defer("manifest__payload")

    def lock_row(self, row: Any) -> bool:
        """Lock the image's row first, as every push does (invariant 11)."""
        Image.objects.select_for_update().filter(pk=row.image_id).values_list("pk").first()
        return super().lock_row(row)

    def has_change_permission(self, request: HttpRequest, obj: Tag | None = None) -> bool:
        """Only a push moves a tag."""
        return False

    @admin.display(description="digest")
    def digest(self, tag: Tag) -> str:
        """The digest of its manifest."""
        return short(tag.manifest.digest)

    def get_deleted_objects(
        self, objs: Iterable[Model] | QuerySet[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """List the tags; their manifests remain."""
        shown = [f"tag: {row.image}:{row}; its manifest remains" for row in objs if isinstance(row, Tag)]
        return shown, {"tags": len(shown)}, set(), []


@admin.register(TagHistory)
class TagHistoryAdmin(ReadOnlyAdmin):
    """The manifests that tags named before they moved."""

    list_display = ("tag", "short_digest", "since", "until", "set_by")
    fields = ("tag", "tag_id", "digest", "since", "until", "set_by")
    ordering = ("-until", "-pk")
    search_fields = ("digest__startswith", "tag_id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[TagHistory]:
        """Add the names: a row outlives its tag, so that it has only the tag's id."""
        found: QuerySet[TagHistory] = super().get_queryset(request)
        parts = ("image__namespace__name", Value("/"), "image__name", Value(":"), "name")
        named = Tag.objects.annotate(full_name=Concat(*parts, output_field=TextField()))
        of_row = named.filter(pk=OuterRef("tag_id")).values("full_name")
        return found.annotate(tag_name=Subquery(of_row[:1]))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[TagHistory], search_term: str
    ) -> tuple[QuerySet[TagHistory], bool]:
        """Search also for NAMESPACE/IMAGE:TAG, which has indexes, and for the name of an image or a tag."""
        namespace, name, tag = _reference(search_term)
        if namespace:
            of_image = Tag.objects.filter(image__namespace__name=namespace, image__name__startswith=name)
            named = of_image.filter(name__startswith=tag)
            return queryset.filter(tag_id__in=named.values("pk")), False
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if search_term:
            named = Tag.objects.filter(
                Q(name__startswith=search_term) | Q(image__name__startswith=search_term)
            )
            found |= queryset.filter(tag_id__in=named.values("pk"))
        return found, may_repeat

    @admin.display(description="tag")
    def tag(self, row: Any) -> str:
        """NAMESPACE/IMAGE:TAG, or the id of a tag that was deleted for good."""
        return row.tag_name or f"deleted tag {row.tag_id}"

    @admin.display(description="digest", ordering="digest")
    def short_digest(self, row: TagHistory) -> str:
        """The first characters of the digest."""
        return short(row.digest)


class ManifestAdmin(PushedAdmin):
    """Manifests with their tags; deleting one deletes its tags too.

    `gc.admin` adds what keeps them, and registers the page.
    """

    start_deletion = staticmethod(manifests.delete_with_tags)
    lock_order = ("image_id", "pk")
    list_display = (
        "short_digest",
        "image",
        "tag_names",
        "is_reachable",
        "media_type",
        "artifact_type",
        "size_for_people",
        "created_at",
        "last_pulled_at",
    )
    list_filter = ("is_reachable", "media_type")
    list_select_related = ("image__namespace",)
    search_fields = ("digest__startswith", "subject_digest__startswith", "image__name")
    exclude = ("payload",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Manifest]:
        """Do not load the payloads; add the newest tag and the number of tags."""
        found: QuerySet[Manifest] = super().get_queryset(request)
        there = Tag.objects.filter(NOT_DELETING, manifest=OuterRef("pk"))
        count = there.order_by().values("manifest").annotate(number=Count("pk")).values("number")
        return (
            found.exclude(image__in=_recycled())
            .defer("payload")
            .annotate(
                newest_tag=Subquery(there.order_by("-created_at").values("name")[:1]),
                tags_there=Subquery(count),
            )
        )

    @admin.display(description="digest", ordering="digest")
    def short_digest(self, manifest: Manifest) -> str:
        """The first characters of the digest."""
        return short(manifest.digest)

    @admin.display(description="tags")
    def tag_names(self, manifest: Any) -> str:
        """Its newest tag, and how many others; a dash for an untagged manifest."""
        if manifest.newest_tag is None:
            return "-"
        others = manifest.tags_there - 1
        return f"{manifest.newest_tag} and {others} more" if others else str(manifest.newest_tag)

    def lock_row(self, row: Any) -> bool:
        """Lock the image's row first, as every push does (invariant 11)."""
        Image.objects.select_for_update().filter(pk=row.image_id).values_list("pk").first()
        return super().lock_row(row)

    def has_change_permission(self, request: HttpRequest, obj: Manifest | None = None) -> bool:
        """Refuse: the content of a manifest is what its digest says."""
        return False

    def get_deleted_objects(
        self, objs: Iterable[Model] | QuerySet[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """List the manifests; they and their tags are deleted at once."""
        shown = [f"manifest: {row}, with its tags" for row in objs]
        return shown, {"manifests": len(shown)}, set(), []

    @admin.display(description="size", ordering="size")
    def size_for_people(self, manifest: Manifest) -> str:
        """The size of the manifest itself."""
        return human_size(manifest.size)


@admin.register(ManifestChild)
class ManifestChildAdmin(ReadOnlyAdmin):
    """The manifests that an index lists."""

    list_display = ("parent", "child")
    list_select_related = ("parent", "child")
    search_fields = ("parent__digest__startswith", "child__digest__startswith")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ManifestChild]:
        """Do not load the manifests' payloads."""
        found: QuerySet[ManifestChild] = super().get_queryset(request)
        return found.defer("parent__payload", "child__payload")


@admin.register(MissingChild)
class MissingChildAdmin(ReadOnlyAdmin):
    """The manifests that a sparse index lists and its image does not have."""

    list_display = ("parent", "digest", "platform", "image")
    list_select_related = ("parent", "image__namespace")
    search_fields = ("parent__digest__startswith", "digest__startswith")

    def get_queryset(self, request: HttpRequest) -> QuerySet[MissingChild]:
        """Do not load the manifests' payloads."""
        found: QuerySet[MissingChild] = super().get_queryset(request)
        return found.defer("parent__payload")


class BlobAdmin(ReadOnlyAdmin):
    """Content in the blob store. `gc.admin` adds what keeps it, and registers the page."""

    list_display = ("short_digest", "size_for_people", "state", "created_at")
    list_filter = ("state",)
    search_fields = ("digest__startswith", "storage_key")

    @admin.display(description="digest", ordering="digest")
    def short_digest(self, blob: Blob) -> str:
        """The first characters of the digest."""
        return short(blob.digest)

    @admin.display(description="size", ordering="size")
    def size_for_people(self, blob: Blob) -> str:
        """The size of the content."""
        return human_size(blob.size)


@admin.register(BlobLink)
class BlobLinkAdmin(ReadOnlyAdmin):
    """References from manifests to blobs."""

    list_display = ("id", "image", "manifest_digest", "blob_digest")
    list_select_related = ("image__namespace", "manifest", "blob")
    search_fields = ("blob__digest__startswith", "manifest__digest__startswith")

    def get_queryset(self, request: HttpRequest) -> QuerySet[BlobLink]:
        """Do not load the manifests' payloads."""
        found: QuerySet[BlobLink] = super().get_queryset(request)
        return found.defer("manifest__payload")

    @admin.display(description="manifest")
    def manifest_digest(self, link: BlobLink) -> str:
        """The first characters of the manifest's digest."""
        return short(link.manifest.digest)

    @admin.display(description="blob")
    def blob_digest(self, link: BlobLink) -> str:
        """The first characters of the blob's digest."""
        return short(link.blob.digest)


@admin.register(BlobLease)
class BlobLeaseAdmin(ReadOnlyAdmin):
    """Images that have a blob until a time, without a manifest that references it."""

    list_display = ("id", "image", "blob_digest", "expires_at")
    list_select_related = ("image__namespace", "blob")
    search_fields = ("blob__digest__startswith", "image__name")

    @admin.display(description="blob")
    def blob_digest(self, lease: BlobLease) -> str:
        """The first characters of the blob's digest."""
        return short(lease.blob.digest)


@admin.register(UploadSession)
class UploadSessionAdmin(ReadOnlyAdmin):
    """Open uploads, and closed ones whose files the worker has not deleted yet."""

    list_display = ("id", "image_link", "by", "is_open", "hashed_size", "created_at", "expires_at")
    list_filter = ("is_open",)
    list_select_related = ("image__namespace", "user", "application__organization")
    search_fields = ("id", "image__name")

    @admin.display(description="image")
    def image_link(self, session: UploadSession) -> str:
        """A link to the image that receives it."""
        return link_to(session.image)

    @admin.display(description="by")
    def by(self, session: UploadSession) -> str:
        """The principal that started it."""
        return str(session.user or session.application or "-")
