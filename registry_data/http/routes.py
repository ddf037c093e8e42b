"""The routes of the data plane. Paths are parsed from the right: repository names may contain keywords.

`a/manifests/b` is a valid repository name, so the last keyword decides (OCI 8).
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Kind(Enum):
    """The kinds of resources."""

    ROOT = auto()
    PING = auto()
    MANIFEST = auto()
    BLOB = auto()
    UPLOADS = auto()
    UPLOAD = auto()
    TAGS = auto()
    REFERRERS = auto()
    CATALOG = auto()
    TOKEN = auto()
    EXTENSIONS = auto()
    REPOSITORY_EXTENSIONS = auto()
    KEYS = auto()
    HEALTH = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """A kind of resource, the name of the repository, and the reference within it; not yet validated."""

    kind: Kind
    name: str = ""
    reference: str = ""


_FIXED: Final = {
    "/": Route(Kind.ROOT),
    "/v2": Route(Kind.PING),
    "/v2/": Route(Kind.PING),
    "/v2/_catalog": Route(Kind.CATALOG),
    "/v2/_oci/ext/discover": Route(Kind.EXTENSIONS),
    "/token": Route(Kind.TOKEN),
    "/.well-known/jwks.json": Route(Kind.KEYS),
    "/healthz": Route(Kind.HEALTH),
}
_BY_KEYWORD: Final = {"manifests": Kind.MANIFEST, "blobs": Kind.BLOB, "referrers": Kind.REFERRERS}


def route(path: str) -> Route | None:
    """Return the route of a decoded path, None if there is none."""
    if (fixed := _FIXED.get(path)) is not None:
        return fixed
    if not path.startswith("/v2/"):
        return None
    rest = path[4:]
    return _upload(rest) or _tags(rest) or _content(rest) or _extensions(rest)


def _upload(rest: str) -> Route | None:
    if rest.endswith(
        "/blobs/uploads"
    ):  # a POST must not be redirected, so the final slash is optional (OCI 9)
        return _named(Kind.UPLOADS, rest.removesuffix("/blobs/uploads"))
    name, keyword, session = rest.rpartition("/blobs/uploads/")
    if not keyword or "/" in session:
        return None
    return _named(Kind.UPLOAD, name, session) if session else _named(Kind.UPLOADS, name)


def _tags(rest: str) -> Route | None:
    name, keyword, after = rest.rpartition("/tags/list")
    return _named(Kind.TAGS, name) if keyword and not after else None


def _content(rest: str) -> Route | None:
    before, _, reference = rest.rpartition("/")
    name, _, keyword = before.rpartition("/")
    kind = _BY_KEYWORD.get(keyword)
    return _named(kind, name, reference) if kind and reference else None


def _extensions(rest: str) -> Route | None:
    name, keyword, after = rest.rpartition("/_oci/ext/discover")
    return _named(Kind.REPOSITORY_EXTENSIONS, name) if keyword and not after else None


def _named(kind: Kind, name: str, reference: str = "") -> Route | None:
    # No repository name begins with "_", so /v2/_catalog and /v2/_<extension>/ are not repositories.
    return Route(kind, name, reference) if name and not name.startswith("_") else None
