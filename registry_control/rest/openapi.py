"""Decorators that describe operations in the OpenAPI document (drf-spectacular)."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, TypeVar

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)
from rest_framework.serializers import Serializer

from registry_control.rest.serializers import (
    ConflictSerializer,
    DeniedAuthenticationSerializer,
    ErrorSerializer,
    InvalidArgumentsSerializer,
    PermissionsDeniedSerializer,
    ResourceErrorSerializer,
)

View = TypeVar("View", bound=Callable[..., Any])

_REGION: Final = OpenApiParameter(
    "region",
    str,
    OpenApiParameter.PATH,
    default=settings.REGION,
    description="The region that this registry serves.",
)
_ERRORS: Final = {
    HTTPStatus.BAD_REQUEST: "`invalid_arguments`: an argument is missing or wrong.",
    HTTPStatus.UNAUTHORIZED: "`denied_authentication`: the secret key is missing, unknown or expired.",
    HTTPStatus.FORBIDDEN: "`permissions_denied`: the API key may see it, and not do this.",
    HTTPStatus.NOT_FOUND: "`not_found`: there is none, or none that the API key may know of.",
    HTTPStatus.CONFLICT: "`already_exists`: the name is taken; or `transient_state`: it is being deleted.",
    HTTPStatus.LOCKED: "`locked`: an administrator has locked it.",
    HTTPStatus.METHOD_NOT_ALLOWED: "`method_not_allowed`: the path has other methods, which `Allow` lists.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "`unsupported_media_type`: send the body as `application/json`.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer; the same request may succeed later.",
}
# The errors of the usual operations, besides those that any operation may return.
LIST_ERRORS: Final = (HTTPStatus.BAD_REQUEST,)
GET_ERRORS: Final = (HTTPStatus.NOT_FOUND,)
UPDATE_ERRORS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.LOCKED,
)
DELETE_ERRORS: Final = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.LOCKED)
_ALWAYS: Final = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_SCHEMAS: Final[dict[HTTPStatus, type[Serializer[Any]]]] = {
    HTTPStatus.BAD_REQUEST: InvalidArgumentsSerializer,
    HTTPStatus.UNAUTHORIZED: DeniedAuthenticationSerializer,
    HTTPStatus.FORBIDDEN: PermissionsDeniedSerializer,
    HTTPStatus.NOT_FOUND: ResourceErrorSerializer,
    HTTPStatus.CONFLICT: ConflictSerializer,
    HTTPStatus.LOCKED: ResourceErrorSerializer,
}


class SecretKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The security scheme: the secret key in the header X-Auth-Token."""

    target_class = "registry_control.access.authentication.SecretKeyAuthentication"
    name = "SecretKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:  # noqa: ARG002
        """Return the security scheme object."""
        return {
            "type": "apiKey",
            "in": "header",
            "name": "X-Auth-Token",
            "description": "The secret key of an API key.",
        }


def id_parameter(name: str) -> OpenApiParameter:
    """A path parameter with a UUID."""
    return OpenApiParameter(name, OpenApiTypes.UUID, OpenApiParameter.PATH)


def operation(
    operation_id: str,
    *,
    tag: str,
    response: type[Serializer[Any]] | PolymorphicProxySerializer,
    errors: Iterable[HTTPStatus] = (),
    body: type[Serializer[Any]] | None = None,
    parameters: Iterable[OpenApiParameter | type[Serializer[Any]]] = (),
    example: dict[str, Any] | None = None,
) -> Callable[[View], View]:
    """Describe one operation: 200 with `response`, one of `errors`, or an error of any operation.

    The first line of the view's docstring is the summary. `example` is a body that can be sent unchanged.
    """
    with_body = () if body is None else (HTTPStatus.UNSUPPORTED_MEDIA_TYPE,)

    def decorate(view: View) -> View:
        decorated: View = extend_schema(
            operation_id=operation_id,
            summary=(view.__doc__ or "").strip().partition("\n")[0].rstrip("."),
            tags=[tag],
            request=body,
            parameters=[_REGION, *parameters],
            examples=[OpenApiExample("example", example, request_only=True)] if example else [],
            responses={
                HTTPStatus.OK: response,
                **{
                    status: OpenApiResponse(
                        _SCHEMAS.get(status, ErrorSerializer), description=_ERRORS[status]
                    )
                    for status in sorted({*_ALWAYS, *with_body, *errors})
                },
            },
        )(view)
        return decorated

    return decorate
