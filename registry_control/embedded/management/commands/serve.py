"""`manage.py serve control|data|worker`: one process of the registry, for containers and services.

`up` starts the same three on one machine.
"""

import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

from registry_control.embedded.lifeline import end_with_parent
from registry_control.settings.environment import ConfigurationError

# Imported only when chosen: each needs what the others do without.
_PROCESSES: Final = {
    "control": "registry_control.embedded.servers.serve_control",
    "data": "registry_control.embedded.servers.serve_data",
    "worker": "registry_control.embedded.worker.run_worker",
}


class Command(BaseCommand):
    """Runs until SIGTERM, which lets open transfers and the task at hand finish."""

    help = "Run one of the registry's three processes until SIGTERM."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what may be said."""
        parser.add_argument("process", choices=_PROCESSES)
        parser.add_argument("--parent", type=int, help="end with the process of this id (`up` sets it)")

    def handle(self, *_: Any, **options: Any) -> None:
        """Serve."""
        if options["parent"]:
            end_with_parent(options["parent"])
        try:
            sys.exit(import_string(_PROCESSES[options["process"]])())
        except ConfigurationError as error:
            sys.exit(f"stowage: {error}")
