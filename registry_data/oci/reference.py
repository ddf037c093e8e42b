"""Names of repositories, tags and what a manifest is asked for by (checklist 18-23)."""

import re
from dataclasses import dataclass
from typing import Final, NewType

from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError, shown

Tag = NewType("Tag", str)

NAME_LIMIT: Final = 255  # characters of a whole name; many clients cap it there (checklist 19)
TAG_LIMIT: Final = 128

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"({_COMPONENT})(?:/({_COMPONENT}(?:/{_COMPONENT})*))?")
_TAG: Final = re.compile(rf"[a-zA-Z0-9_][a-zA-Z0-9._-]{{0,{TAG_LIMIT - 1}}}")


@dataclass(frozen=True, slots=True)
class Repository:
    """Where images live: the namespace is a name's first component, the image all the others."""

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
            f"the repository's name has {len(name)} characters, {NAME_LIMIT} at most are allowed",
        )
    match = _NAME.fullmatch(name)
    if match is None:
        raise ProtocolError(
            ErrorCode.NAME_INVALID,
            f"{shown(name)} is not a repository's name; use components of lower-case letters and digits, "
            "which '.', '_', '__' or dashes may join, with '/' between them",
        )
    namespace, image = match.groups()
    if image is None:
        raise ProtocolError(
            ErrorCode.NAME_UNKNOWN,
            f"{shown(name)} has no namespace: images are named <namespace>/<image>, such as my-team/{name}",
        )
    return Repository(namespace, image)


def check_writable_with(repository: Repository, host: str) -> None:
    """Refuse a new name that is too long for clients to write as `<host>/<name>` (checklist 19).

    Raises NAME_INVALID.
    """
    room = NAME_LIMIT - len(host) - 1
    if len(str(repository)) > room:
        raise ProtocolError(
            ErrorCode.NAME_INVALID,
            f"the repository's name has {len(str(repository))} characters, {room} at most fit after {host}/",
        )


def parse_tag(text: str) -> Tag:
    """Read a tag; raise TAG_INVALID."""
    if not _TAG.fullmatch(text):
        raise ProtocolError(
            ErrorCode.TAG_INVALID,
            f"{shown(text)} is not a tag; use up to {TAG_LIMIT} letters, digits, '_', '.' and '-', "
            "the first of them a letter, digit or '_'",
        )
    return Tag(text)


def parse_reference(text: str) -> Digest | Tag:
    """Read what a manifest is asked for by: a digest when it has a ':', else a tag.

    Raises DIGEST_INVALID or TAG_INVALID. Whether that is a 400, or whether such a manifest is merely unknown,
    depends on the verb, and so is the caller's to say (checklist 21, 22).
    """
    return Digest.parse(text) if ":" in text else parse_tag(text)
