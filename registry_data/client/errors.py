"""The ways in which a request to another registry fails.

Each message is one plain sentence for the owner of a replication target. It contains no credentials, no query
strings (those of redirects are signatures) and no addresses of the internal network.
"""


class RemoteError(Exception):
    """A request to another registry failed.

    `status` is the HTTP status, None if there was no response; `code` is the first error code of an OCI error
    response, such as MANIFEST_BLOB_UNKNOWN, None if there was none.
    """

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RemoteDenied(RemoteError):
    """The registry or its token server refused the credentials (401, 403). A retry does not help."""


class RemoteUnavailable(RemoteError):
    """A network failure, a time-out, 429 or 5xx. The same request may succeed later.

    `retry_after` is the number of seconds that the registry asked to wait, None if it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class UploadLost(RemoteUnavailable):
    """The registry no longer knows the upload, or expects another offset. A new upload may succeed."""


class RemoteRefused(RemoteError):
    """The registry refused the request for another reason, or its response violates the protocol."""


class ContentMismatch(RemoteError):
    """The content does not match its digest or size."""


class EgressRefused(RemoteError):
    """The address must not be connected to (REGISTRY_EGRESS_ALLOW). A retry does not help."""
