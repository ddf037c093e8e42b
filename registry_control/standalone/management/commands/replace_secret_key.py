"""`manage.py replace_secret_key`: accept another REGISTRY_SECRET_KEY for this database."""

from typing import Any

from django.core.management.base import BaseCommand

from registry_control.serving.secret_key import replace_secret_key


class Command(BaseCommand):
    """Run once, on one node, after the old key was lost or leaked."""

    help = (
        "Accept the current REGISTRY_SECRET_KEY for this database, which was set up with another one."
        " Every API key, token and session that exists becomes invalid."
    )

    def handle(self, *_: Any, **__: Any) -> None:
        """Replace the recorded key."""
        replace_secret_key()
        self.stderr.write("replaced; create new API keys with `manage.py create_key`")
