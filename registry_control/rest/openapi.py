"""How operations are described (drf-spectacular)."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, TypeVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.serializers import Serializer

from registry_control.rest.serializers import ErrorSerializer

View = TypeVar("View", bound=Callable[..., Any])

_REGION: Final = OpenApiParameter(
    "region", str, OpenApiParameter.PATH, description="The region that this registry serves."
)
_ERRORS: Final = {
    HTTPStatus.BAD_REQUEST: "`invalid_arguments`: an argument is missing or wrong.",
    HTTPStatus.UNAUTHORIZED: "`denied_authentication`: the secret key is missing, unknown or expired.",
    HTTPStatus.FORBIDDEN: "`permissions_denied`: the API key may see it, and not do this.",
    HTTPStatus.NOT_FOUND: "`not_found`: there is none, or none that the API key may know of.",
    HTTPStatus.CONFLICT: "`already_exists`: the name is taken; or `transient_state`: it is being deleted.",
    HTTPStatus.LOCKED: "`locked`: an administrator has locked it.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer; the same request may succeed later.",
}
_ALWAYS: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE)


class SecretKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The header that clients send."""

    target_class = "registry_control.access.authentication.SecretKeyAuthentication"
    name = "SecretKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:  # noqa: ARG002
        """Describe it."""
        return {
            "type": "apiKey",
            "in": "header",
            "name": "X-Auth-Token",
            "description": "The secret key of an API key.",
        }


def id_parameter(name: str) -> OpenApiParameter:
    """An id in the path."""
    return OpenApiParameter(name, OpenApiTypes.UUID, OpenApiParameter.PATH)


def operation(
    operation_id: str,
    *,
    tag: str,
    answer: type[Serializer[Any]],
    errors: Iterable[HTTPStatus] = (),
    body: type[Serializer[Any]] | None = None,
    parameters: Iterable[OpenApiParameter | type[Serializer[Any]]] = (),
) -> Callable[[View], View]:
    """Describe one operation: 200 with `answer`, or one of `errors`, or what any operation may answer."""
    decorate: Callable[[View], View] = extend_schema(
        operation_id=operation_id,
        tags=[tag],
        request=body,
        parameters=[_REGION, *parameters],
        responses={
            HTTPStatus.OK: answer,
            **{
                status: OpenApiResponse(ErrorSerializer, description=_ERRORS[status])
                for status in sorted({*_ALWAYS, *errors})
            },
        },
    )
    return decorate
