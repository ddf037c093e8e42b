"""The principal of an API key with its present rights, read in one query per request (invariant 5)."""

from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from registry_control.access.errors import BadCredentials, Reason
from registry_control.access.policy import Kind, Principal, Right, may_operate
from registry_control.common.changes import organization_scope
from registry_control.common.clock import now
from registry_control.common.errors import PermissionsDenied
from registry_control.db.sql import Rows, id_parameter, optional_time, optional_uuid, row, rows
from registry_control.identity.credentials import secret_hmac

_KEY: Final = """
SELECT k.access_key, k.expires_at, k.default_project_id,
       u.id, u.username, u.organization_id, u.is_active,
       a.id, a.name, a.organization_id, a.is_active,
       r.permission_set, r.project_id
FROM identity_apikey k
LEFT JOIN identity_user u ON u.id = k.user_id
LEFT JOIN identity_application a ON a.id = k.application_id
LEFT JOIN identity_policy p
       ON (p.user_id = k.user_id OR p.application_id = k.application_id)
      AND p.organization_id = COALESCE(u.organization_id, a.organization_id)
LEFT JOIN identity_policyrule r ON r.policy_id = p.id
"""
_BY_SECRET: Final = _KEY + "WHERE k.secret_hmac = %s"
_STORED_HASH: Final = "SELECT secret_hmac FROM identity_apikey WHERE access_key = %s"
_BY_ACCESS_KEY: Final = _KEY + "WHERE k.access_key = %s"


class _KeyRow(NamedTuple):
    """A row of `_KEY`: an API key, its holder and one right of the holder, as the database returns them."""

    access_key: str
    expires_at: datetime | str | None
    default_project_id: UUID | str | None
    user_id: UUID | str | None
    username: str
    user_organization_id: UUID | str | None
    user_is_active: bool | None
    application_id: UUID | str | None
    application_name: str
    application_organization_id: UUID | str | None
    application_is_active: bool | None
    permission_set: str | None
    project_id: UUID | str | None

    @property
    def organization_id(self) -> UUID | str | None:
        """The organization of the holder; None for a user without one."""
        return self.user_organization_id or self.application_organization_id


def principal_by_secret(secret: str) -> Principal:
    """The principal of a secret key.

    Raises:
        BadCredentials: the text is not a UUID, the key is unknown or expired, or its holder is disabled.
    """
    if not _is_uuid(secret):
        raise BadCredentials(Reason.INVALID_ARGUMENT)
    return _principal(_BY_SECRET, secret_hmac(secret.lower()))


def principal_by_access_key(access_key: str) -> Principal:
    """The principal of the key that a token was issued for.

    Raises:
        BadCredentials: the key has been deleted or has expired since, or its holder has been disabled.
    """
    return _principal(_BY_ACCESS_KEY, access_key)


def stored_hash_of(access_key: str) -> str | None:
    """The stored HMAC of a key's secret; None if there is no such key."""
    found = row(_STORED_HASH, [access_key])
    if found is None:
        return None
    (stored,) = found
    return str(stored)


_OPERATES: Final = """
SELECT 1 FROM identity_organization WHERE id = %s AND operates_installation
"""


def operates(principal: Principal) -> bool:
    """Whether the principal may see and start work that concerns the whole installation."""
    if principal.organization_id is None:
        return False
    found = row(_OPERATES, [id_parameter(principal.organization_id)])
    return may_operate(principal, organization_operates=found is not None)


def require_operator(principal: Principal, action: str, resource: str) -> None:
    """Check that a principal may operate the installation.

    Raises:
        PermissionsDenied: it may not.
    """
    if not operates(principal):
        raise PermissionsDenied(action, resource)


def _principal(sql: str, parameter: str) -> Principal:
    found = rows(sql, [parameter], depends_on=_scopes)
    if not found:
        raise BadCredentials(Reason.NOT_FOUND)
    convert = _convert_cached if len(found) <= _CACHED_ROWS else _convert
    principal, is_active = convert(tuple(found))
    if not is_active:
        raise BadCredentials(Reason.NOT_FOUND)
    if principal.ends_at is not None and principal.ends_at <= now():
        raise BadCredentials(Reason.EXPIRED)
    return principal


def _scopes(found: Rows) -> tuple[str, ...] | None:
    """The scopes of a key's rows; None for an unknown key, because creating one records no change."""
    organization_id = _KeyRow(*found[0]).organization_id if found else None
    return None if organization_id is None else (organization_scope(organization_id),)


def _convert(found: tuple[tuple[Any, ...], ...]) -> tuple[Principal, bool]:
    """A key's holder, and whether it is active; the result depends on nothing but the rows."""
    key_rows = [_KeyRow(*each) for each in found]
    key = key_rows[0]
    is_user = key.user_id is not None
    principal = Principal(
        kind=Kind.USER if is_user else Kind.APPLICATION,
        id=optional_uuid(key.user_id if is_user else key.application_id),
        name=key.username if is_user else key.application_name,
        organization_id=optional_uuid(key.organization_id),
        default_project_id=optional_uuid(key.default_project_id),
        access_key=key.access_key,
        rights=tuple(
            Right(permission_set=each.permission_set, project_id=optional_uuid(each.project_id))
            for each in key_rows
            if each.permission_set is not None
        ),
        ends_at=optional_time(key.expires_at),
    )
    return principal, bool(key.user_is_active if is_user else key.application_is_active)


_CACHED_ROWS: Final = 20  # rows, one for each rule of the holder's policies
_convert_cached: Final = lru_cache(maxsize=1000)(_convert)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
