"""`manage.py migrate`: Django's, one at a time per database, however many nodes run it at once."""

from typing import Any

from django.core.management.commands import migrate

from registry_control.standalone.startup_lock import startup_lock


class Command(migrate.Command):
    """Waits for the lock that `up` holds while it prepares the database."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate."""
        with startup_lock(self.stderr.write):
            super().handle(*args, **options)
