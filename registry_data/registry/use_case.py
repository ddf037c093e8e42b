"""The context of every use case: replaces broken connections, converts errors to protocol errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from itertools import starmap
from sqlite3 import SQLITE_FULL
from typing import Final

from django.db import DEFAULT_DB_ALIAS, InterfaceError, connections
from django.db.utils import OperationalError
from psycopg.errors import DiskFull, LockNotAvailable, ReadOnlySqlTransaction

from registry_control.catalog import errors as catalog
from registry_data.oci.errors import ErrorCode, ErrorItem, ProtocolError
from registry_data.storage import base as storage

# A use case in the event loop reads at most this much; longer content is read in a thread (ADR 41).
INLINE_LIMIT: Final = 64 * 1024  # bytes
RETRY_AFTER: Final = {"Retry-After": "5"}

_CATALOG: Final[dict[type[catalog.CatalogError], tuple[ErrorCode, str | None]]] = {
    catalog.NamespaceNotFound: (ErrorCode.NAME_UNKNOWN, "the namespace has just been deleted"),
    catalog.ImageNotFound: (
        ErrorCode.NAME_UNKNOWN,
        "the repository has just been deleted: push everything again to create a new one",
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
    """Run a use case in this thread.

    Raises:
        ProtocolError: instead of every error of the catalogue, the database and the storage.
    """
    # Closes the connection if the previous use case had an error on it. There is one database, so this is
    # close_old_connections() without its search, which costs a noticeable part of a read.
    connections[DEFAULT_DB_ALIAS].close_if_unusable_or_obsolete()
    try:
        yield
    except catalog.MissingContent as error:
        raise ProtocolError.several(starmap(_missing_content, error.platforms.items())) from error
    except catalog.DigestMismatch as error:
        raise ProtocolError(
            ErrorCode.DIGEST_INVALID, str(error), expected=error.expected, got=error.actual
        ) from error
    except catalog.ConditionUnmet as error:
        # The code must not be one after which clients retry (OCI 143).
        raise ProtocolError(ErrorCode.DENIED, str(error), status=HTTPStatus.PRECONDITION_FAILED) from error
    except catalog.CatalogError as error:
        raise _catalog_error(error) from error
    except (OperationalError, InterfaceError) as error:
        raise _database_error(error) from error
    except storage.StorageError as error:
        raise _storage_error(error) from error


def _catalog_error(error: catalog.CatalogError) -> ProtocolError:
    match error:
        case catalog.ImageReadOnly():
            return read_only_error(error.name)
        case catalog.TagProtected():
            # Clients show the message of this code and do not retry.
            return ProtocolError(ErrorCode.DENIED, str(error), tag=error.tag, rule=error.rule)
        case catalog.StoredAsAnotherType():
            return _stored_as_another_type(error.media_type)
        case catalog.TooManyUploads():
            return _too_many_uploads(error.limit)
        case _:
            code, message = _CATALOG[type(error)]
            headers = {"Allow": "GET, HEAD"} if isinstance(error, catalog.BlobInUse) else None
            return ProtocolError(code, message, headers=headers)


def unavailable(message: str) -> ProtocolError:
    """Create the error for a dependency that does not respond: 503, the client may retry."""
    return ProtocolError(ErrorCode.UNAVAILABLE, message, headers=RETRY_AFTER)


def read_only_error(repository: str) -> ProtocolError:
    """Create the error for a change of a repository that an administrator has locked."""
    message = f"an administrator has locked {repository}: pulls work, pushes and deletions do not"
    return ProtocolError(ErrorCode.DENIED, message, name=repository)


def _database_error(error: OperationalError | InterfaceError) -> ProtocolError:
    if _is_full(error):
        return _insufficient_storage("database")
    match error.__cause__:
        case ReadOnlySqlTransaction():
            return unavailable("the database of the registry is read-only at present; try again later")
        case LockNotAvailable():
            return unavailable(
                "another request has locked the same rows in the database for too long; try again"
            )
        case _:
            return unavailable("the database of the registry did not respond; try again")


def _insufficient_storage(what: str) -> ProtocolError:
    return ProtocolError(
        ErrorCode.UNAVAILABLE,
        f"the {what} of the registry is full: ask its administrator to free space, then push again",
        status=HTTPStatus.INSUFFICIENT_STORAGE,
        headers=RETRY_AFTER,
    )


def _is_full(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(cause, DiskFull) or getattr(cause, "sqlite_errorcode", None) == SQLITE_FULL


def _too_many_uploads(limit: int) -> ProtocolError:
    return ProtocolError(
        ErrorCode.TOOMANYREQUESTS,
        f"you have {limit} open uploads, the maximum for one user or application: finish or cancel some; "
        "idle uploads expire",
        headers={"Retry-After": "60"},
    )


def _stored_as_another_type(media_type: str) -> ProtocolError:
    return ProtocolError(
        ErrorCode.MANIFEST_INVALID,
        f"this digest is stored with the media type {media_type}: push it with that Content-Type, or set the "
        "desired type as mediaType in the manifest",
    )


def _missing_content(digest: str, platform: str) -> ErrorItem:
    named = f"{digest} ({platform})" if platform else digest
    message = f"the manifest refers to {named}, which this repository does not have: push it first"
    detail = {"digest": digest, "platform": platform} if platform else {"digest": digest}
    return ErrorItem(ErrorCode.MANIFEST_BLOB_UNKNOWN, message, detail)


def _storage_error(error: storage.StorageError) -> ProtocolError:
    match error:
        case storage.NotStored():
            return ProtocolError(ErrorCode.BLOB_UPLOAD_UNKNOWN)
        case storage.InsufficientStorage():
            return _insufficient_storage("storage")
        case _:
            return unavailable("the storage of the registry did not respond; try again")
