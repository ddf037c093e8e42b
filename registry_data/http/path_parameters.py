"""Validates the parameters of a path."""

from http import HTTPStatus

from registry_data.http.routes import Route
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import Tag, parse_reference


def reference_to_read(route: Route) -> Digest | Tag:
    """Parse the reference of a request that reads or deletes a manifest (OCI 21).

    Raises:
        ProtocolError: MANIFEST_UNKNOWN with 404 for a malformed tag; DIGEST_INVALID with 400 for a malformed
            digest (OCI 22).
    """
    try:
        return parse_reference(route.reference)
    except ProtocolError as error:
        if error.code is not ErrorCode.TAG_INVALID:
            raise
        message = error.message
        raise ProtocolError(ErrorCode.MANIFEST_UNKNOWN, message, status=HTTPStatus.NOT_FOUND) from error
