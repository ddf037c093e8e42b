"""Detects nodes of one installation that have different secret keys.

Such nodes would refuse each other's API keys and tokens, now and then, depending on the node that is asked.
"""

import hmac
from contextlib import suppress
from typing import Final

from django.db import Error as AnyDatabaseError
from django.db import connection

from registry_control.common.secrets import keyed_hash
from registry_control.serving.impatient import impatient_connection
from registry_control.serving.models import Installation
from registry_control.settings.environment import ConfigurationError

_ROW: Final = 1


def check_secret_key() -> None:
    """Compare this node's key with the one of the installation; the first node to start records its own.

    Raises:
        ConfigurationError: they differ.
    """
    recorded = None
    # Without a database or its tables, /readyz reports that, and compares the keys later.
    with suppress(AnyDatabaseError), impatient_connection() as own:
        own.ensure_connection()  # A server that hangs must not delay the start.
        recorded = record_secret_key()
    connection.close()  # A server forks after this.
    if recorded is not None and not is_own(recorded):
        raise ConfigurationError(
            "REGISTRY_SECRET_KEY: this database was set up with another key: set the same one on every node"
            " (a node that generated its own has it in secret_key in its state folder), or replace it with"
            " `manage.py replace_secret_key`, which makes every API key, token and session of the other key"
            " invalid: if this node's key is the right one, it loses nothing"
        )


def is_own(recorded: str) -> bool:
    """Whether the recorded hash is that of this node's key."""
    return hmac.compare_digest(recorded, _hash())


def record_secret_key() -> str:
    """Record the key, unless one is recorded; returns the recorded hash."""
    installation, _ = Installation.objects.get_or_create(pk=_ROW, defaults={"secret_key_hash": _hash()})
    return installation.secret_key_hash


def replace_secret_key() -> None:
    """Record the key in place of another one."""
    Installation.objects.update_or_create(pk=_ROW, defaults={"secret_key_hash": _hash()})


def _hash() -> str:
    return keyed_hash("installation", "secret key")
