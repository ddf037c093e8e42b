"""The token endpoint on the control plane, and the keys that tokens are signed with.

The data plane serves both too, on the registry's own host, where docker looks for them (checklist 163);
this path is the one that scripts for Scaleway's registry have written into them.
"""

import base64
import binascii
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
    answer_get,
    answer_post,
    refusal,
)
from registry_control.access.errors import BadCredentials
from registry_control.access.rates import count_anonymous
from registry_control.access.services import FactsSource, RepositoryFacts, published_keys


def _nothing_is_there(_repository: str) -> RepositoryFacts:
    return RepositoryFacts(None, None)


@extend_schema(exclude=True)
class Tokens(APIView):
    """Issues tokens by the Docker token protocol (checklist 150-157).

    `as_view(facts_of=...)` says how to find a repository: apps above this one know.
    """

    authentication_classes = ()
    permission_classes = (AllowAny,)
    parser_classes = (FormParser,)
    facts_of: FactsSource = staticmethod(_nothing_is_there)

    def get(self, request: Request, region: str) -> Response:
        """Answer whoever sends a secret key as Basic password, or nobody."""
        parameters = _lists(request.query_params)
        basic = _basic(request.headers.get("Authorization", ""))
        if basic is None:
            count_anonymous(request)
        return _answer(
            request, lambda: answer_get(parameters=parameters, basic=basic, facts_of=self.facts_of)
        )

    def post(self, request: Request, region: str) -> Response:
        """Answer the OAuth2 form."""
        form = _lists(request.data) if isinstance(request.data, QueryDict) else {}
        return _answer(request, lambda: answer_post(form=form, facts_of=self.facts_of))


@extend_schema(exclude=True)
class Keys(APIView):
    """The public keys, for whoever wants to check a token (RFC 7517)."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        """List them."""
        return Response({"keys": published_keys()}, headers={"Cache-Control": "public, max-age=300"})


def _answer(request: Request, ask: Callable[[], dict[str, Any]]) -> Response:
    headers = {"Cache-Control": "no-store"}
    try:
        return Response(ask(), headers=headers)
    except BadCredentials as error:
        count_anonymous(request)
        headers["WWW-Authenticate"] = 'Basic realm="stowage"'
        return Response(refusal(error), status=HTTPStatus.UNAUTHORIZED, headers=headers)
    except UnsupportedGrant:
        return Response(UNSUPPORTED_GRANT, status=HTTPStatus.BAD_REQUEST, headers=headers)


def _lists(values: QueryDict) -> Mapping[str, Sequence[str]]:
    return {name: [str(value) for value in found] for name, found in values.lists()}


def _basic(header: str) -> tuple[str, str] | None:
    """User name and password. What is not a Basic header in UTF-8 is a wrong password, not none."""
    if not header:
        return None
    scheme, _, value = header.partition(" ")
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", "malformed"
    return (user, password) if colon and scheme.lower() == "basic" else ("", "malformed")
