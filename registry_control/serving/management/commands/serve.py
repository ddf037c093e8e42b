"""`manage.py serve control|data|worker`: one process of the registry, for containers and services.

`up` starts the same three on one machine.
"""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from registry_control.serving.roles import ROLES, run


class Command(BaseCommand):
    """Runs until SIGTERM."""

    help = "Run one of the registry's three processes until SIGTERM."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("role", choices=ROLES)

    def handle(self, *_: Any, **options: Any) -> None:
        """Serve."""
        sys.exit(run(options["role"]))
