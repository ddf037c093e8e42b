"""`manage.py replace_secret_key`: accept another REGISTRY_SECRET_KEY for this database."""

from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from registry_control.audit.services import SYSTEM, Target, record
from registry_control.serving.secret_key import replace_secret_key

_INSTALLATION: Final = Target(kind="installation", id=1, name="", organization_id=None)


class Command(BaseCommand):
    """Run once, on one node, after the old key was lost or leaked."""

    help = (
        "Accept the current REGISTRY_SECRET_KEY for this database, which was set up with another one."
        " Every API key, token and session that exists becomes invalid, and the passwords of replication"
        " targets cannot be read any more."
    )
    requires_system_checks = ()

    def handle(self, *_: Any, **__: Any) -> None:
        """Replace the recorded key.

        Raises:
            CommandError: no node may have this process's key, because it was not configured.
        """
        generated = settings.ENVIRONMENT.generated_key_file
        if generated is not None:
            generated.unlink(missing_ok=True)  # A second run would accept it.
            raise CommandError(
                "REGISTRY_SECRET_KEY: not set, and the state folder has no key: set the key of the nodes"
                " (REGISTRY_SECRET_KEY or REGISTRY_SECRET_KEY_FILE), or set REGISTRY_STATE_DIR to the folder"
                " of the node that generated it"
            )
        _refuse_unconfirmed_file()
        with transaction.atomic():
            replace_secret_key()
            record(actor=SYSTEM, verb="installation.replace_secret_key", target=_INSTALLATION)
        self.stderr.write(
            "replaced; create new API keys with `manage.py create_key`, and enter the passwords of"
            " replication targets again"
        )


def _refuse_unconfirmed_file() -> None:
    """Refuse a key of the state folder for a database that other nodes use too.

    Any command of manage.py generates the file where REGISTRY_SECRET_KEY is not set, in a shell, say, whose
    nodes have it set. A SQLite database is beside its file.
    """
    file = settings.ENVIRONMENT.key_file
    if file is not None and connection.vendor == "postgresql":
        raise CommandError(
            f"REGISTRY_SECRET_KEY: not set, and no node may have the key in {file}: set the key of the nodes;"
            f" if it is that one, set REGISTRY_SECRET_KEY_FILE={file}"
        )
