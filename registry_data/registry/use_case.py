"""One use case against the database: connections kept healthy, failures put in the protocol's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from itertools import starmap
from sqlite3 import SQLITE_FULL
from typing import Final

from django.db import InterfaceError, close_old_connections
from django.db.utils import OperationalError
from psycopg.errors import DiskFull, LockNotAvailable, ReadOnlySqlTransaction

from registry_control.catalog import errors as catalog
from registry_data.oci.errors import ErrorCode, ErrorItem, ProtocolError
from registry_data.storage import base as storage

# A use case that runs in the event loop reads no more than this; more is read in a thread.
INLINE_LIMIT: Final = 64 * 1024  # bytes
RETRY_AFTER: Final = {"Retry-After": "5"}

_CATALOG: Final[dict[type[catalog.CatalogError], tuple[ErrorCode, str | None]]] = {
    catalog.NamespaceNotFound: (ErrorCode.NAME_UNKNOWN, "the namespace has just been deleted"),
    catalog.ImageNotFound: (
        ErrorCode.NAME_UNKNOWN,
        "the repository has just been deleted: push everything again to make a new one",
    ),
    catalog.UploadNotFound: (ErrorCode.BLOB_UPLOAD_UNKNOWN, None),
    catalog.ManifestNotFound: (ErrorCode.MANIFEST_UNKNOWN, "the manifest has just been deleted"),
    catalog.TagNotFound: (ErrorCode.MANIFEST_UNKNOWN, "the tag has just been deleted"),
    catalog.BlobNotFound: (ErrorCode.BLOB_UNKNOWN, "the blob has just been deleted: push it again"),
    catalog.BlobInUse: (
        ErrorCode.UNSUPPORTED,
        "a manifest of this repository needs the blob: delete the manifest first",
    ),
}


@contextmanager
def use_case() -> Iterator[None]:
    """Run one use case in the present thread.

    Raises:
        ProtocolError: for every way in which the catalogue, the database or the storage can refuse.
    """
    # Drops a connection that the last use case found broken; free when it is sound.
    close_old_connections()
    try:
        yield
    except catalog.MissingContent as error:
        raise ProtocolError.several(starmap(_missing_content, error.platforms.items())) from error
    except catalog.ConditionUnmet as error:
        # Refused for good as it stands, so none of the codes after which clients try again (checklist 143).
        raise ProtocolError(ErrorCode.DENIED, str(error), status=HTTPStatus.PRECONDITION_FAILED) from error
    except catalog.ImageReadOnly as error:
        raise read_only_error(error.name) from error
    except catalog.StoredAsAnotherType as error:
        raise _stored_as_another_type(error.media_type) from error
    except catalog.TooManyUploads as error:
        raise _too_many_uploads(error.limit) from error
    except catalog.CatalogError as error:
        code, message = _CATALOG[type(error)]
        headers = {"Allow": "GET, HEAD"} if isinstance(error, catalog.BlobInUse) else None
        raise ProtocolError(code, message, headers=headers) from error
    except (OperationalError, InterfaceError) as error:
        raise _database_error(error) from error
    except storage.StorageError as error:
        raise _storage_error(error) from error


def unavailable(message: str) -> ProtocolError:
    """Build the answer to a dependency that is away: the same request may succeed later."""
    return ProtocolError(ErrorCode.UNAVAILABLE, message, headers=RETRY_AFTER)


def read_only_error(repository: str) -> ProtocolError:
    """Build the answer to a change of what an administrator has locked."""
    message = f"an administrator has locked {repository}: pulls work, pushes and deletions do not"
    return ProtocolError(ErrorCode.DENIED, message, name=repository)


def _database_error(error: OperationalError | InterfaceError) -> ProtocolError:
    if _is_full(error):
        return _insufficient_storage("database")
    match error.__cause__:
        case ReadOnlySqlTransaction():
            return unavailable("the registry's database takes no changes at present; try again")
        case LockNotAvailable():
            return unavailable("another request holds what this one needs in the database; try again")
        case _:
            return unavailable("the database did not answer; try again")


def _insufficient_storage(what: str) -> ProtocolError:
    return ProtocolError(
        ErrorCode.UNAVAILABLE,
        f"the registry's {what} is full: ask its administrator to make room, then push again",
        status=HTTPStatus.INSUFFICIENT_STORAGE,
        headers=RETRY_AFTER,
    )


def _is_full(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(cause, DiskFull) or getattr(cause, "sqlite_errorcode", None) == SQLITE_FULL


def _too_many_uploads(limit: int) -> ProtocolError:
    return ProtocolError(
        ErrorCode.TOOMANYREQUESTS,
        f"you have {limit} uploads under way, which is as many as one may have: finish or cancel some; "
        "those that rest are removed by and by",
        headers={"Retry-After": "60"},
    )


def _stored_as_another_type(media_type: str) -> ProtocolError:
    return ProtocolError(
        ErrorCode.MANIFEST_INVALID,
        f"this digest is stored as {media_type}: push it with that Content-Type, or write the type that it "
        "shall have into the manifest as its mediaType",
    )


def _missing_content(digest: str, platform: str) -> ErrorItem:
    named = f"{digest} ({platform})" if platform else digest
    message = f"the manifest names {named}, which this repository lacks: push it first"
    detail = {"digest": digest, "platform": platform} if platform else {"digest": digest}
    return ErrorItem(ErrorCode.MANIFEST_BLOB_UNKNOWN, message, detail)


def _storage_error(error: storage.StorageError) -> ProtocolError:
    match error:
        case storage.NotStored():
            return ProtocolError(ErrorCode.BLOB_UPLOAD_UNKNOWN)
        case storage.InsufficientStorage():
            return _insufficient_storage("storage")
        case _:
            return unavailable("the registry's storage did not answer; try again")
