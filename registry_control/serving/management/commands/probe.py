"""`manage.py probe control|data|worker`. `manage.py` itself runs it without Django, which takes a second."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from registry_control.serving import probe


class Command(BaseCommand):
    """Lists the command in the help of `manage.py`."""

    help = "Check a process of this node: exit status 0 or 1."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        probe.add_arguments(parser)

    def handle(self, *_: Any, **options: Any) -> None:
        """Probe."""
        sys.exit(probe.run(options["role"], live=options["live"]))
