"""Use cases that concern no repository: login, tokens, signing keys, health."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.db import connection

from registry_control.access.docker_token import (
    UNSUPPORTED_GRANT,
    UnsupportedGrant,
    error_body,
    respond_to_get,
    respond_to_post,
)
from registry_control.access.errors import BadCredentials
from registry_control.access.policy import Action
from registry_control.access.services import published_keys
from registry_control.catalog.selectors import resolve
from registry_data.oci.reference import Repository
from registry_data.registry.authorization import (
    AccessDenied,
    Credentials,
    identify,
    require,
    scope_of,
    unknown_repository,
)
from registry_data.registry.use_case import use_case
from registry_data.storage.base import BlobStore


def check_login(credentials: Credentials) -> None:
    """Authenticate the caller; a login needs no rights (OCI 29).

    Raises:
        AccessDenied: the credentials are invalid.
    """
    with use_case():
        identify(credentials)


def name_of_caller(credentials: Credentials) -> str:
    """Return a unique name of the principal; empty for an anonymous caller or invalid credentials.

    Raises:
        ProtocolError: the database does not respond.
    """
    with use_case():
        try:
            principal = identify(credentials).principal
        except AccessDenied:
            return ""
        return "" if principal.id is None else principal.reference


def check_readable(credentials: Credentials, repository: Repository) -> None:
    """Require that the repository exists and that the caller may pull.

    Raises:
        AccessDenied: the caller may not pull.
        ProtocolError: NAME_UNKNOWN if there is no such repository.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PULL))
        record = resolve.repository(repository.namespace, repository.image)
        require(caller, Action.PULL, repository, record)
        if record.image_id is None:
            raise unknown_repository(repository)


def token(parameters: Mapping[str, Sequence[str]], password: str) -> tuple[HTTPStatus, dict[str, Any]]:
    """Return status and body for a GET of the token endpoint."""
    with use_case():
        try:
            return HTTPStatus.OK, respond_to_get(
                parameters=parameters, password=password, facts_of=resolve.repository_facts
            )
        except BadCredentials as error:
            return HTTPStatus.UNAUTHORIZED, error_body(error)


def token_by_form(form: Mapping[str, Sequence[str]]) -> tuple[HTTPStatus, dict[str, Any]]:
    """Return status and body for a POST of the token endpoint."""
    with use_case():
        try:
            return HTTPStatus.OK, respond_to_post(form=form, facts_of=resolve.repository_facts)
        except BadCredentials as error:
            return HTTPStatus.UNAUTHORIZED, error_body(error)
        except UnsupportedGrant:
            return HTTPStatus.BAD_REQUEST, UNSUPPORTED_GRANT


def keys() -> list[dict[str, str]]:
    """Return the public keys of all valid token signatures."""
    with use_case():
        return published_keys()


def check_health(store: BlobStore) -> None:
    """Query the database and the storage.

    Raises:
        ProtocolError: one of them does not respond.
    """
    with use_case():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        store.check()
