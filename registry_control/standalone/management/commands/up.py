"""`manage.py up`: prepares and runs the whole registry on one machine until SIGTERM."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from django.conf import settings
from django.core.management.base import BaseCommand

from registry_control.serving import broker
from registry_control.serving.addresses import check_addresses, reachable
from registry_control.serving.signals import Signals
from registry_control.settings.environment import ConfigurationError
from registry_control.standalone import bootstrap
from registry_control.standalone.credentials import CredentialsFile
from registry_control.standalone.lockfile import exclusive_state_folder
from registry_control.standalone.preflight import check_broker, check_storage
from registry_control.standalone.quickstart import quickstart
from registry_control.standalone.supervisor import run_all_roles


class Command(BaseCommand):
    """Prepares the registry and supervises its processes. Standard output gets only the `ready` text."""

    help = "Prepare the database and the first credentials, then run all three processes until SIGTERM."
    requires_system_checks = ()

    def handle(self, *_: Any, **__: Any) -> None:
        """Run until SIGTERM, SIGINT or SIGHUP."""
        os.umask(0o077)  # The database contains password hashes; no file is readable for other users.
        try:
            with exclusive_state_folder(settings.STATE_DIR):
                text = _prepare()
                with Signals() as signals:
                    run_all_roles(signals, on_ready=lambda: _print(text, sys.stdout), report=_report)
        except (ConfigurationError, OSError) as error:
            sys.exit(f"stowage: {error}")
        except KeyboardInterrupt:
            sys.exit("stowage: interrupted during the start; the next start continues from there")


def _prepare() -> str:
    """Check all settings and create what is missing; return the text to print when all is ready."""
    check_addresses(
        {"REGISTRY_CONTROL_ADDR": settings.CONTROL_ADDR, "REGISTRY_DATA_ADDR": settings.DATA_ADDR}
    )
    check_storage(settings.STORAGE_URL)
    broker.empty_folder()
    check_broker()
    with bootstrap.prepared_database(_report):
        return _first_start()


def _first_start() -> str:
    control_url = f"http://{reachable(settings.CONTROL_ADDR)}"
    file = CredentialsFile(settings.STATE_DIR)
    found = bootstrap.first_start(file, control_url=control_url, registry_host=settings.PUBLIC_HOST)
    if found is None:
        _report("this database already has its first credentials: this node did not write credentials.json")
    return quickstart(
        control_url=control_url,
        registry_host=settings.PUBLIC_HOST,
        region=settings.REGION,
        file=file.path,
        credentials=found if found and bootstrap.works(found) else None,
    )


def _report(line: str) -> None:
    _print(f"stowage: {line}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    # Ignore a closed output: the registry must continue to serve.
    with suppress(OSError):
        print(text, file=stream, flush=True)
