"""`manage.py bootstrap`: the first organization, project, administrator and API key of an installation.

`up` does the same by itself. This command is for installations whose processes run one by one: run it after
`manage.py migrate`, as often as you like, also on several nodes at once.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from registry_control.serving.addresses import reachable
from registry_control.settings.environment import ConfigurationError
from registry_control.standalone.bootstrap import (
    create_accounts,
    first_start,
    is_empty,
    migrated_database,
)
from registry_control.standalone.credentials import Credentials, CredentialsFile

_USAGE: Final = 2  # exit status


class Command(BaseCommand):
    """Exit status 0: the accounts exist, new or old. 1: they could not be created. 2: wrong arguments."""

    help = (
        "Create the first organization, project, administrator and API key, unless the database has an"
        " organization or a user. Secrets come from REGISTRY_BOOTSTRAP_ADMIN_PASSWORD and"
        " REGISTRY_BOOTSTRAP_SECRET_KEY (or the files that X_FILE names), or are generated."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--output",
            type=Path,
            metavar="FILE",
            help="write the credentials, secrets included, to this file (mode 0600, JSON)",
        )
        parser.add_argument(
            "--print", action="store_true", help="print the credentials, secrets included, as JSON"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Create what is missing.

        Raises:
            CommandError: the database cannot be used, or nobody would learn a generated secret.
        """
        first, output = settings.FIRST_ACCOUNTS, options["output"]
        is_lost = first.admin_password is None or first.secret_key is None
        if is_lost and output is None and not options["print"]:
            raise CommandError(
                "a password or key would be generated and shown to nobody: give --output FILE, --print, or"
                " both REGISTRY_BOOTSTRAP_ADMIN_PASSWORD and REGISTRY_BOOTSTRAP_SECRET_KEY",
                returncode=_USAGE,
            )
        try:
            created = _bootstrap(output, self._report)
        except (ConfigurationError, OSError) as error:
            raise CommandError(str(error)) from error
        if created is None:
            self._report("the database has an organization or a user already: nothing was created")
            return
        self._report(f"created organization {first.organization} and administrator {first.admin_username}")
        if options["print"]:
            self.stdout.write(json.dumps(asdict(created), indent=2))

    def _report(self, line: str) -> None:
        print(f"stowage: {line}", file=sys.stderr, flush=True)


def _bootstrap(output: Path | None, report: Callable[[str], None]) -> Credentials | None:
    """The credentials, if this call has created them."""
    control_url, registry_host = f"http://{reachable(settings.CONTROL_ADDR)}", settings.PUBLIC_HOST
    with migrated_database(report):
        is_first = is_empty()
        if output is None:
            if not is_first:
                return None
            return create_accounts(control_url=control_url, registry_host=registry_host)
        # Also if it is not the first call: an earlier one may have been killed before it renamed the file.
        file = CredentialsFile(output.parent, output.name)
        credentials = first_start(file, control_url=control_url, registry_host=registry_host)
        return credentials if is_first else None
