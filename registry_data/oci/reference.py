"""Names of repositories, tags, and references to manifests (OCI 18-23)."""

import re
from dataclasses import dataclass
from typing import Final, NewType

from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError, shown

Tag = NewType("Tag", str)

NAME_LIMIT: Final = 255  # characters of the full name; many clients accept no more (OCI 19)
TAG_LIMIT: Final = 128

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"({_COMPONENT})(?:/({_COMPONENT}(?:/{_COMPONENT})*))?")
_TAG: Final = re.compile(rf"[a-zA-Z0-9_][a-zA-Z0-9._-]{{0,{TAG_LIMIT - 1}}}")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository: the namespace is the first component of the name, the image is the rest."""

    namespace: str
    image: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.image}"


def parse_repository(name: str) -> Repository:
    """Parse the full name of a repository.

    Raises:
        ProtocolError: NAME_INVALID when it is malformed. NAME_UNKNOWN when it has one component, as in
            `HOST/base`: no repository is outside a namespace. docker repeats a push for 50 s after a 400, but
            shows the message of a NAME_UNKNOWN at once.
    """
    if len(name) > NAME_LIMIT:
        raise ProtocolError(
            ErrorCode.NAME_INVALID,
            f"the repository's name has {len(name)} characters; {NAME_LIMIT} at most are allowed",
        )
    match = _NAME.fullmatch(name)
    if match is None:
        raise ProtocolError(
            ErrorCode.NAME_INVALID,
            f"{shown(name)} is not a valid repository name; use components of lower-case letters and digits, "
            "which may be joined by '.', '_', '__' or dashes, separated by '/'",
        )
    namespace, image = match.groups()
    if image is None:
        raise ProtocolError(
            ErrorCode.NAME_UNKNOWN,
            f"{shown(name)} has no namespace: images are named <namespace>/<image>, such as my-team/{name}",
        )
    return Repository(namespace, image)


def check_name(name: str) -> str:
    """Return the name of a repository of any registry, which may have one component only.

    Raises NAME_INVALID if it is malformed.
    """
    if len(name) > NAME_LIMIT or not _NAME.fullmatch(name):
        raise ProtocolError(ErrorCode.NAME_INVALID, f"{shown(name)} is not a valid repository name")
    return name


def check_writable_with(repository: Repository, host: str) -> None:
    """Raise NAME_INVALID if a new name is too long for clients to write as `<host>/<name>` (OCI 19)."""
    room = NAME_LIMIT - len(host) - 1
    if len(str(repository)) > room:
        raise ProtocolError(
            ErrorCode.NAME_INVALID,
            f"the repository's name has {len(str(repository))} characters; {room} at most fit after {host}/",
        )


def parse_tag(text: str) -> Tag:
    """Parse a tag; raise TAG_INVALID if it is malformed."""
    if not _TAG.fullmatch(text):
        raise ProtocolError(
            ErrorCode.TAG_INVALID,
            f"{shown(text)} is not a tag; use up to {TAG_LIMIT} letters, digits, '_', '.' and '-', "
            "beginning with a letter, digit or '_'",
        )
    return Tag(text)


def parse_reference(text: str) -> Digest | Tag:
    """Parse a reference to a manifest: a digest if it contains a ':', else a tag.

    Raises DIGEST_INVALID or TAG_INVALID. Whether the response is 400 or 404 depends on the method, so the
    caller decides that (OCI 21, 22).
    """
    return Digest.parse(text) if ":" in text else parse_tag(text)
