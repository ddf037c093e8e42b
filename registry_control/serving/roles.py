"""The three processes that make a registry.

Each imports its code when it runs, so that a process of one role does not load the others.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Final

from registry_control.serving.secret_key import check_secret_key
from registry_control.settings.environment import ConfigurationError


def _control() -> int:
    from registry_control.serving.servers import serve_control

    serve_control()
    return 0


def _data() -> int:
    from registry_control.serving.servers import serve_data

    serve_data()
    return 0


def _worker() -> int:
    from registry_control.serving.worker import run_worker

    return run_worker()


_RUN: Final[Mapping[str, Callable[[], int]]] = {"control": _control, "data": _data, "worker": _worker}
ROLES: Final = tuple(_RUN)


def run(role: str) -> int:
    """Run the role in this process until SIGTERM; open transfers and running tasks finish first.

    Returns:
        The exit status; 1 after one line about a configuration that cannot work.
    """
    try:
        check_secret_key()
        return _RUN[role]()
    except ConfigurationError as error:
        print(f"stowage: {error}", file=sys.stderr)
        return 1
