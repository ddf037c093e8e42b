"""Errors of the catalogue's services; each plane translates them to error responses of its protocol."""

from collections.abc import Mapping

from registry_control.common.errors import PermissionsDenied


class CatalogError(Exception):
    """Base class of these errors."""


class NamespaceNotFound(CatalogError):
    """No such namespace, or it is being deleted."""


class ImageNotFound(CatalogError):
    """No such image, or it is being deleted."""


class ImageReadOnly(CatalogError):
    """An administrator has locked the image of this name, or its namespace: pulls work, changes do not."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class TagProtected(CatalogError, PermissionsDenied):
    """A tag can be neither moved nor deleted, because a protected glob of its namespace matches it.

    Args:
        action: of the request that is refused: `write` or `delete`.
        image: NAMESPACE/IMAGE of the tag.
        tag: the name.
        rule: the glob.
    """

    def __init__(self, action: str, *, image: str, tag: str, rule: str) -> None:
        PermissionsDenied.__init__(self, action, "registry_tag")
        self.image, self.tag, self.rule = image, tag, rule
        self.message = (
            f'tag {tag} of {image} is protected by the rule "{rule}" of its namespace and can be neither '
            "moved nor deleted: use another tag, or change protected_tags or protected_except in the "
            "retention of the namespace"
        )

    def __str__(self) -> str:
        return self.message

    def fields(self) -> dict[str, object]:
        """The action, the resource, and what protects it."""
        detail = {"action": self.action, "resource": self.resource}
        return {"details": [{**detail, "image": self.image, "tag": self.tag, "rule": self.rule}]}


class DigestMismatch(CatalogError):
    """The content of a blob or manifest has another digest than claimed; nothing was stored."""

    def __init__(self, *, expected: str, actual: str, content: str = "content") -> None:
        super().__init__(f"the {content}'s digest is {actual}, not {expected}: nothing was stored")
        self.expected = expected
        self.actual = actual


class UploadNotFound(CatalogError):
    """The session was cancelled, finished, or has expired."""


class TooManyUploads(CatalogError):
    """The principal has `limit` open uploads."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} uploads are under way")
        self.limit = limit


class ManifestNotFound(CatalogError):
    """No such manifest in the image."""


class StoredAsAnotherType(CatalogError):
    """The image has the manifest, but as `media_type`."""

    def __init__(self, media_type: str) -> None:
        super().__init__(media_type)
        self.media_type = media_type


class TagNotFound(CatalogError):
    """No such tag in the image."""


class BlobNotFound(CatalogError):
    """The image does not have the blob."""


class BlobInUse(CatalogError):
    """A manifest of the image needs the blob."""


class ConditionUnmet(CatalogError):
    """A precondition of the request does not hold; the text is for the client."""


class MissingContent(CatalogError):
    """A manifest references digests that its image does not have; with their platforms, "" for none."""

    def __init__(self, platforms: Mapping[str, str]) -> None:
        super().__init__(", ".join(platforms))
        self.platforms = platforms
