"""Rules without I/O: addresses, templates, schedules, the order of a copy, and back-off."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError

from registry_control.common.errors import InvalidArgument
from registry_control.common.globs import is_glob
from registry_data.client.connection import parse_base
from registry_data.oci.reference import NAME_LIMIT

MAX_REPOSITORIES: Final = 100  # names or globs of one rule
GLOB_LENGTH: Final = 255
MAX_IMAGES: Final = 1_000_000  # tags of one execution, so that a hostile source cannot fill the database
MAX_ERRORS: Final = 20  # sentences that an execution keeps
GIVE_UP: Final = timedelta(hours=1)
"""How long an image or blob is tried again after its first failure in a row."""

_FIRST_RETRY: Final = 1.0  # seconds
_LONGEST_RETRY: Final = 300.0
LONGEST_RETRY_AFTER: Final = 3600.0
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_GLOB: Final = re.compile(r"[A-Za-z0-9._/*?-]+")
_TAG_GLOB: Final = re.compile(r"[A-Za-z0-9._*?-]+")
_PLACEHOLDER: Final = re.compile(r"\{(\w*)\}")
_PLACEHOLDERS: Final = frozenset({"namespace", "image"})
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)


def check_url(url: str) -> None:
    """Accept the address of a registry.

    Raises:
        InvalidArgument: it is not `http[s]://HOST[:PORT]`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        parse_base(url.rstrip("/"))
    except ValueError:
        parts, port = urlsplit(""), None
    is_plain = f"{parts.scheme}://{parts.netloc}" == url.rstrip("/")
    if (
        parts.scheme not in ("http", "https")
        or not is_plain
        or not _HOST.fullmatch(parts.netloc)
        or port == 0
    ):
        raise InvalidArgument("url", "write it as https://HOST[:PORT] or http://HOST[:PORT], without a path")


def check_repositories(repositories: Sequence[str]) -> None:
    """Accept names of repositories and globs of them.

    Raises:
        InvalidArgument: there is none, there are more than 100, or one is malformed.
    """
    if not 1 <= len(repositories) <= MAX_REPOSITORIES:
        raise InvalidArgument(
            "repositories", f"name 1 to {MAX_REPOSITORIES} repositories or globs", reason="constraint"
        )
    for name in repositories:
        is_valid = _GLOB.fullmatch(name) if is_glob(name) else _REPOSITORY.fullmatch(name)
        if len(name) > GLOB_LENGTH or not is_valid:
            raise InvalidArgument(
                "repositories",
                f"{name[:80]!r} is neither the name of a repository nor a glob of * and ?, without a host",
            )


def check_tags(glob: str) -> None:
    """Accept a glob of tags.

    Raises:
        InvalidArgument: it has a character that no tag has.
    """
    if len(glob) > GLOB_LENGTH or not _TAG_GLOB.fullmatch(glob):
        raise InvalidArgument("tags", "write a tag or a glob of * and ?, such as v1.*")


def check_destination(template: str) -> None:
    """Accept a template of repository names.

    Raises:
        InvalidArgument: it has another placeholder than {namespace} and {image}, or yields no valid name.
    """
    unknown = [name for name in _PLACEHOLDER.findall(template) if name not in _PLACEHOLDERS]
    example = render(template, "namespace/image")
    if unknown or example is None:
        raise InvalidArgument(
            "destination",
            "write the name of a repository without a host; only {namespace} and {image} are replaced",
        )


def render(template: str, source: str) -> str | None:
    """The repository at the destination for one at the source; None if that is no valid name.

    `{namespace}` is the first component of the source's name, `{image}` the rest. A name of one component has
    no namespace: `{namespace}/` is left out.
    """
    namespace, slash, image = source.partition("/")
    if not slash:
        namespace, image = "", source
        template = template.replace("{namespace}/", "")
    name = template.replace("{namespace}", namespace).replace("{image}", image)
    return name if len(name) <= NAME_LIMIT and _REPOSITORY.fullmatch(name) else None


def check_cron(expression: str) -> None:
    """Accept a schedule of five fields.

    Raises:
        InvalidArgument: it is malformed, or never due.
    """
    try:
        if len(expression.split()) != 5:
            raise CronSimError("five fields are needed")
        next_time(expression, after=datetime.now(UTC))
    except CronSimError as error:
        raise InvalidArgument(
            "cron", f"write five fields, minute hour day month weekday, in UTC, such as 30 2 * * *: {error}"
        ) from error
    except StopIteration as error:
        raise InvalidArgument("cron", "no date matches this schedule", reason="constraint") from error


def next_time(expression: str, *, after: datetime) -> datetime:
    """When a schedule is due next.

    Raises:
        CronSimError: it is malformed.
        StopIteration: never.
    """
    return next(CronSim(expression, after.astimezone(UTC)))


@dataclass(frozen=True, slots=True)
class Node:
    """A manifest in the graph of a copy: the digests of its children and of its subject."""

    digest: str
    children: tuple[str, ...] = ()
    subject: str = ""


def copy_order(nodes: Mapping[str, Node]) -> list[str]:
    """The digests such that each comes after its children and its subject, as far as they are in the graph.

    Deterministic. A cycle, which digests rule out unless a registry lies, is cut and not followed for ever.
    """
    ordered: dict[str, None] = {}
    for root in nodes:
        path = [(root, iter(_before(nodes[root])))]
        open_: set[str] = {root}
        while path:
            digest, rest = path[-1]
            following = next(
                (one for one in rest if one in nodes and one not in open_ and one not in ordered), None
            )
            if following is None:
                ordered.setdefault(digest)
                open_.discard(digest)
                path.pop()
            else:
                open_.add(following)
                path.append((following, iter(_before(nodes[following]))))
    return list(ordered)


def _before(node: Node) -> tuple[str, ...]:
    return (*node.children, *((node.subject,) if node.subject else ()))


def retry_delay(failures: int, *, retry_after: float | None) -> timedelta:
    """How long to wait after a number of failures in a row; what the target asks for holds, up to an hour.

    Exponential with jitter, so that workers do not all return at the same moment.
    """
    longest = min(_LONGEST_RETRY, _FIRST_RETRY * 2 ** min(max(failures - 1, 0), 16))
    own = longest * random.uniform(0.5, 1)  # noqa: S311 - jitter
    return timedelta(seconds=max(own, min(retry_after or 0.0, LONGEST_RETRY_AFTER)))


def with_error(errors: Sequence[str], sentence: str) -> list[str]:
    """A bounded list of errors with another one, each once; the first ones stay, the last one is a count."""
    if sentence in errors:
        return list(errors)
    if len(errors) < MAX_ERRORS:
        return [*errors, sentence]
    match = re.fullmatch(r"and (\d+) more errors?", errors[-1])
    number = int(match[1]) + 1 if match else 2
    kept = errors[: MAX_ERRORS - 1]
    return [*kept, f"and {number} more errors"]
