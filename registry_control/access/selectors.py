"""Who holds a key, with the rights of this moment: one query each time (invariant 5)."""

from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from registry_control.access.errors import BadCredentials, Reason
from registry_control.access.policy import Kind, Principal, Right
from registry_control.common.changes import organization_scope
from registry_control.common.clock import now
from registry_control.db.sql import Rows, optional_time, optional_uuid, rows
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


def principal_by_secret(secret: str) -> Principal:
    """Who holds this secret key.

    Raises:
        BadCredentials: not the form of a secret key, unknown, or expired.
    """
    if not _is_uuid(secret):
        raise BadCredentials(Reason.INVALID_ARGUMENT)
    return _principal(_BY_SECRET, secret_hmac(secret.lower()))


def principal_by_access_key(access_key: str) -> Principal:
    """Who holds the key behind a token, if the key still stands.

    Raises:
        BadCredentials: deleted or expired since.
    """
    return _principal(_BY_ACCESS_KEY, access_key)


def stored_hash_of(access_key: str) -> str | None:
    """What is stored of a key's secret; None when there is no such key."""
    found = rows(_STORED_HASH, [access_key])
    return found[0][0] if found else None


def _principal(sql: str, parameter: str) -> Principal:
    found = rows(sql, [parameter], depends_on=_scopes)
    if not found:
        raise BadCredentials(Reason.NOT_FOUND)
    read = _read_before if len(found) <= _FEW else _read
    principal, is_active = read(tuple(found))
    if not is_active:
        raise BadCredentials(Reason.NOT_FOUND)
    if principal.ends_at is not None and principal.ends_at <= now():
        raise BadCredentials(Reason.EXPIRED)
    return principal


def _scopes(found: Rows) -> tuple[str, ...] | None:
    """What a key's rows depend on; None for an unknown key, since creating one records no change."""
    organization_id = (found[0][5] or found[0][9]) if found else None
    return None if organization_id is None else (organization_scope(organization_id),)


def _read(found: tuple[tuple[Any, ...], ...]) -> tuple[Principal, bool]:
    """A key's holder, and whether they are active, from its rows: the same for the same rows."""
    first = found[0]
    user, application = first[3:7], first[7:11]
    kind, holder = (Kind.USER, user) if user[0] is not None else (Kind.APPLICATION, application)
    principal = Principal(
        kind=kind,
        id=optional_uuid(holder[0]),
        name=holder[1],
        organization_id=optional_uuid(holder[2]),
        default_project_id=optional_uuid(first[2]),
        access_key=first[0],
        rights=tuple(_right(row) for row in found if row[11] is not None),
        ends_at=optional_time(first[1]),
    )
    return principal, bool(holder[3])


_FEW: Final = 20  # rows; one for each rule of the holder's policies
_read_before: Final = lru_cache(maxsize=1000)(_read)


def _right(row: tuple[Any, ...]) -> Right:
    return Right(permission_set=row[11], project_id=optional_uuid(row[12]))


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
