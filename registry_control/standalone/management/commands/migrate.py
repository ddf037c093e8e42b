"""`manage.py migrate`: Django's command with a lock, so that several nodes can run it concurrently."""

from typing import Any

from django.core.management.commands import migrate

from registry_control.serving.process_tuning import rare_collections
from registry_control.standalone.startup_lock import startup_lock


class Command(migrate.Command):
    """Waits for the lock that `up` holds while it prepares the database."""

    # Those of Django would import both planes; `make check` runs them.
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """Acquire the lock and migrate."""
        with startup_lock(self.stderr.write), rare_collections():
            super().handle(*args, **options)
