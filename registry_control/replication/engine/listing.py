"""Lists the images of an execution: the tags at the source that its rule matches."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from registry_control.catalog.models import Image, Tag
from registry_control.common.globs import is_glob, matches, matches_any
from registry_control.common.models import NOT_DELETING
from registry_control.db.functions import DatabaseNow
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import outcomes
from registry_control.replication.engine.work import CannotReplicate, Context
from registry_control.replication.models import Direction, Execution, ExecutionImage, Rule
from registry_control.replication.policy import MAX_IMAGES, render
from registry_data.client.referrers import is_fallback_tag
from registry_data.oci.errors import ProtocolError
from registry_data.oci.reference import check_writable_with, parse_repository

_BATCH: Final = 500  # rows of one transaction
_Named = TypeVar("_Named", Image, Tag)


def list_images(context: Context) -> None:
    """Insert a row for each tag to copy. May be repeated: rows that exist stay.

    Raises:
        CannotReplicate: there are more than a million.
        RemoteError: the target does not list its repositories or tags.
    """
    source = _pushed(context) if context.rule.direction == Direction.PUSH else _pulled(context)
    execution = context.work.execution
    number = 0
    while batch := list(islice(source, _BATCH)):
        context.check()
        number += len(batch)
        if number > MAX_IMAGES:
            raise CannotReplicate(f"more than {MAX_IMAGES} tags match the rule; select fewer")
        with transaction.atomic():
            outcomes.require_claim(context.work)
            ExecutionImage.objects.bulk_create(batch, ignore_conflicts=True)
    outcomes.planned(context.work, images=ExecutionImage.objects.filter(execution=execution).count())


def destination_of(rule: Rule, namespace: Namespace, source: str) -> str | None:
    """The repository or image at the destination for one at the source; None if it is no valid name."""
    name = render(rule.destination, source)
    if name is None or rule.direction == Direction.PUSH:
        return name
    try:
        check_writable_with(parse_repository(f"{namespace.name}/{name}"), settings.PUBLIC_HOST)
    except ProtocolError:
        return None
    return name


def _pushed(context: Context) -> Iterator[ExecutionImage]:
    rule, namespace = context.rule, context.namespace
    own = Image.objects.filter(NOT_DELETING, namespace=namespace, pushed_at__isnull=False)
    for image in _by_name(own.only("id", "name")):
        if matches_any(rule.repositories, image.name):
            # Fallback tags are not copied: the client maintains those of targets that need them, and a copy
            # would replace a list of all referrers by the one of the client that set the tag here.
            tags = _by_name(Tag.objects.filter(NOT_DELETING, image=image).only("name"))
            kept = (tag.name for tag in tags if not is_fallback_tag(tag.name))
            yield from _images(context, f"{namespace.name}/{image.name}", kept)


def _by_name(found: QuerySet[_Named]) -> Iterator[_Named]:
    """Rows in the order of their names, page by page.

    A cursor that stays open while rows are inserted would keep SQLite from writing.
    """
    after = ""
    while page := list(found.filter(name__gt=after).order_by("name")[:_BATCH]):
        yield from page
        after = page[-1].name


def _pulled(context: Context) -> Iterator[ExecutionImage]:
    for repository in _repositories(context):
        context.check()
        yield from _images(context, repository, context.registry.tags(repository))


def _repositories(context: Context) -> Iterator[str]:
    """The repositories of the target, whose catalogue is read only if the rule has globs."""
    names = context.rule.repositories
    yield from (name for name in names if not is_glob(name))
    globs = [name for name in names if is_glob(name)]
    if globs:
        for repository in context.registry.catalog():
            if matches_any(globs, repository) and repository not in names:
                yield repository


def _images(context: Context, source: str, tags: Iterable[str]) -> Iterator[ExecutionImage]:
    destination = destination_of(context.rule, context.namespace, source)
    found = False
    for tag in tags:
        found = True
        if not matches(context.rule.tags, tag):
            continue
        if destination is None:
            outcomes.add_error(
                context.work, f"{source}: {context.rule.destination!r} makes no valid name of this repository"
            )
            return
        yield new_image(context.work.execution, source, destination, tag)
    if not found and source in context.rule.repositories:
        outcomes.add_error(context.work, f"{source}: there is no such repository, or it has no tags")


def new_image(execution: Execution, source: str, destination: str, reference: str) -> ExecutionImage:
    """A row for a tag or digest, which is not saved yet."""
    return ExecutionImage(
        execution=execution,
        source=source,
        destination=destination,
        reference=reference,
        next_attempt_at=DatabaseNow(),
    )
