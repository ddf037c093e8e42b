"""The names in a path, read as strictly as the verb demands."""

from http import HTTPStatus

from registry_data.http.routes import Route
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import Tag, parse_reference


def reference_to_read(route: Route) -> Digest | Tag:
    """What a manifest is read by; what could be no tag is a tag that is unknown (checklist 21).

    Raises:
        ProtocolError: MANIFEST_UNKNOWN with 404, DIGEST_INVALID with 400 (checklist 22).
    """
    try:
        return parse_reference(route.reference)
    except ProtocolError as error:
        if error.code is not ErrorCode.TAG_INVALID:
            raise
        message = error.message
        raise ProtocolError(ErrorCode.MANIFEST_UNKNOWN, message, status=HTTPStatus.NOT_FOUND) from error
