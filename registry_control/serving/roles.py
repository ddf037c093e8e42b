"""The three processes that make a registry."""

import sys
from typing import Final

from django.utils.module_loading import import_string

from registry_control.settings.environment import ConfigurationError

# Imported only by the process that needs it.
_RUN: Final = {
    "control": "registry_control.serving.servers.serve_control",
    "data": "registry_control.serving.servers.serve_data",
    "worker": "registry_control.serving.worker.run_worker",
}
ROLES: Final = tuple(_RUN)


def run(role: str) -> int:
    """Be this process until SIGTERM, which lets open transfers and the task at hand finish.

    Returns:
        The exit status. What cannot work has been said in one line.
    """
    try:
        return int(import_string(_RUN[role])() or 0)
    except ConfigurationError as error:
        print(f"stowage: {error}", file=sys.stderr)
        return 1
