"""The token endpoint on the control plane, and the public keys of token signatures.

The data plane serves both on the registry's host, to which its challenges refer (OCI 163). Scripts for
Scaleway's registry use the path on the control plane.
"""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.http import QueryDict
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import FormParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry_control.access.docker_token import (
    UNSUPPORTED_GRANT,
    UnsupportedGrant,
    error_body,
    is_anonymous,
    respond_to_get,
    respond_to_post,
)
from registry_control.access.errors import BadCredentials
from registry_control.access.rates import count_anonymous
from registry_control.access.services import FactsSource, RepositoryFacts, published_keys
from registry_data.oci.basic_auth import basic_password


def _no_repository(_repository: str) -> RepositoryFacts:
    return RepositoryFacts(None, None)


@extend_schema(exclude=True)
class Tokens(APIView):
    """Issues tokens by the Docker token protocol (OCI 150-157).

    The function that finds a repository belongs to an app above this one: `as_view(facts_of=...)`.
    """

    authentication_classes = ()
    permission_classes = (AllowAny,)
    parser_classes = (FormParser,)
    facts_of: FactsSource = staticmethod(_no_repository)

    def get(self, request: Request, region: str) -> Response:
        """Issue a token for the secret key in a Basic header, or for an anonymous caller without one."""
        parameters = _values_by_name(request.query_params)
        password = basic_password(request.headers.get("Authorization", ""))
        if not password:
            count_anonymous(request)
        return _respond(
            request, lambda: respond_to_get(parameters=parameters, password=password, facts_of=self.facts_of)
        )

    def post(self, request: Request, region: str) -> Response:
        """Issue a token for an OAuth2 form."""
        form = _values_by_name(request.data) if isinstance(request.data, QueryDict) else {}
        if is_anonymous(form):
            count_anonymous(request)
        return _respond(request, lambda: respond_to_post(form=form, facts_of=self.facts_of))


@extend_schema(exclude=True)
class Keys(APIView):
    """The public keys of token signatures as a JWK set (RFC 7517)."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        """Return the keys."""
        return Response({"keys": published_keys()}, headers={"Cache-Control": "public, max-age=300"})


def _respond(request: Request, issue: Callable[[], dict[str, Any]]) -> Response:
    headers = {"Cache-Control": "no-store"}
    try:
        return Response(issue(), headers=headers)
    except BadCredentials as error:
        count_anonymous(request)
        headers["WWW-Authenticate"] = 'Basic realm="stowage"'
        return Response(error_body(error), status=HTTPStatus.UNAUTHORIZED, headers=headers)
    except UnsupportedGrant:
        return Response(UNSUPPORTED_GRANT, status=HTTPStatus.BAD_REQUEST, headers=headers)


def _values_by_name(values: QueryDict) -> Mapping[str, Sequence[str]]:
    return {name: [str(value) for value in found] for name, found in values.lists()}
