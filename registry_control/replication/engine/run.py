"""Does one claimed piece of work, and records what became of it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import InterfaceError, OperationalError

from registry_control.catalog.errors import (
    CatalogError,
    DigestMismatch,
    ImageNotFound,
    ImageReadOnly,
    NamespaceNotFound,
    UploadNotFound,
)
from registry_control.common.models import DELETED
from registry_control.common.store import blob_store
from registry_control.replication.engine import outcomes, pulling, pushing
from registry_control.replication.engine.claims import Work, end_if_done
from registry_control.replication.engine.keeper import Interrupted, keeper
from registry_control.replication.engine.listing import list_images
from registry_control.replication.engine.work import CannotReplicate, Context, LostContent
from registry_control.replication.models import (
    Direction,
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ItemState,
    Rule,
)
from registry_control.replication.remote import CredentialsUnreadable, registries
from registry_control.replication.services.rules import actor_of_rule
from registry_data.client.errors import (
    ContentMismatch,
    EgressRefused,
    RemoteDenied,
    RemoteError,
    RemoteUnavailable,
)
from registry_data.oci.errors import ProtocolError
from registry_data.storage.base import NotStored, StorageError

logger = logging.getLogger(__name__)

_ATTEMPTS: Final = 3  # after content that was not what it should be


def run(work: Work) -> None:
    """Do the work until it is done, fails, is cancelled, or the process is stopped.

    Raises:
        OperationalError, InterfaceError: the database failed; the claim ends by itself.
    """
    try:
        with keeper.holding(work.hold):
            _do(work)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # noqa: BLE001 - an unknown one is logged, and is tried again a few times
        _failed(work, error)
    else:
        _succeeded(work)
    if not isinstance(work.item, ExecutionBlob):
        end_if_done(work.execution.pk)


def _succeeded(work: Work) -> None:
    if isinstance(work.item, ExecutionImage) and work.item.state == ItemState.PENDING:
        outcomes.image_planned(work)
    elif not isinstance(work.item, Execution):
        outcomes.done(work)


def _failed(work: Work, error: Exception) -> None:
    if work.hold.must_stop:  # perhaps the reason of the failure
        outcomes.release(work)
        return
    match error:
        case Interrupted():
            outcomes.release(work)
        case EgressRefused() | RemoteDenied() | CredentialsUnreadable():
            outcomes.fail_execution(work, str(error))
        case RemoteUnavailable():
            outcomes.retry(work, str(error), retry_after=error.retry_after)
        case ContentMismatch() | DigestMismatch() | LostContent() | UploadNotFound():
            outcomes.retry(work, str(error) or "the upload has expired", attempts=_ATTEMPTS)
        case ImageNotFound() if isinstance(work.item, ExecutionBlob):
            # Perhaps because nothing was ever pushed to it (`remove_never_pushed`); it is created again.
            outcomes.retry(work, _sentence(error), attempts=_ATTEMPTS)
        case CannotReplicate() | RemoteError() | CatalogError() | ProtocolError():
            outcomes.fail(work, _sentence(error))
        case NotStored():
            outcomes.fail(work, "its bytes are missing in the storage of the registry")
        case StorageError():
            outcomes.retry(work, f"the storage of the registry failed: {error}")
        case _:
            logger.error("replication of %s failed", work.item, exc_info=error)
            outcomes.retry(work, "an internal error, which the worker has logged", attempts=_ATTEMPTS)


def _do(work: Work) -> None:
    with _context(work) as context:
        context.check()
        _do_in(context, work)


def _do_in(context: Context, work: Work) -> None:
    direction = pushing if context.rule.direction == Direction.PUSH else pulling
    match work.item:
        case Execution():
            list_images(context)
        case ExecutionBlob() as blob:
            direction.copy_blob(context, blob)
        case ExecutionImage() as image if image.state == ItemState.PENDING:
            direction.plan(context, image)
        case ExecutionImage() as image:
            try:
                direction.copy_manifests(context, image)
            except LostContent as error:
                outcomes.again(work, error.digests)
                raise


@contextmanager
def _context(work: Work) -> Iterator[Context]:
    """The rows and connections for a piece of work.

    Raises:
        CannotReplicate: the rule was deleted, or its namespace.
    """
    rule = Rule.objects.select_related("namespace", "target").get(pk=work.execution.rule_id)
    if rule.namespace is None or rule.target is None or rule.namespace.status in DELETED:
        raise CannotReplicate("the rule or its namespace was deleted")
    with registries.of(rule.target) as registry:
        yield Context(
            work=work,
            rule=rule,
            namespace=rule.namespace,
            target=rule.target,
            registry=registry,
            store=blob_store(),
            actor=actor_of_rule(rule),
        )


def _sentence(error: Exception) -> str:
    match error:
        case ImageReadOnly():
            return f"{error.name} is locked by an administrator"
        case ImageNotFound():
            return "the image was deleted while it was replicated"
        case NamespaceNotFound():
            return "the namespace was deleted"
        case ProtocolError():
            return error.message
        case _:
            return str(error)
