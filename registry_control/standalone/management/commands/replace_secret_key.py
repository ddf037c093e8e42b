"""`manage.py replace_secret_key`: accept another REGISTRY_SECRET_KEY for this database."""

from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from registry_control.audit.services import SYSTEM, Target, record
from registry_control.serving.secret_key import replace_secret_key

_INSTALLATION: Final = Target(kind="installation", id=1, name="", organization_id=None)


class Command(BaseCommand):
    """Run once, on one node, after the old key was lost or leaked."""

    help = (
        "Accept the current REGISTRY_SECRET_KEY for this database, which was set up with another one."
        " Every API key, token and session that exists becomes invalid."
    )

    def handle(self, *_: Any, **__: Any) -> None:
        """Replace the recorded key.

        Raises:
            CommandError: this process has just generated its key, so no node has it.
        """
        generated = settings.ENVIRONMENT.generated_key_file
        if generated is not None:
            generated.unlink(missing_ok=True)  # A second run would accept it.
            raise CommandError(
                "REGISTRY_SECRET_KEY: not set, and the state folder has no key: set the key of the nodes"
                " (REGISTRY_SECRET_KEY or REGISTRY_SECRET_KEY_FILE), or set REGISTRY_STATE_DIR to the folder"
                " of the node that generated it"
            )
        with transaction.atomic():
            replace_secret_key()
            record(actor=SYSTEM, verb="installation.replace_secret_key", target=_INSTALLATION)
        self.stderr.write("replaced; create new API keys with `manage.py create_key`")
