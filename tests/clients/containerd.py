"""A separate containerd, independent of any that the machine runs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import Signals

from tests.services.child import Child
from tests.services.tools import missing, require_tool

_SETTINGS = """version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/socket"
[ttrpc]
  address = "{folder}/ttrpc"
"""


@contextmanager
def running_containerd() -> Iterator[Path]:
    """Start one and yield the path of its socket; stop it at the end.

    Skips the test where there is none or no right to start it.
    """
    program = require_tool("containerd")
    if os.geteuid() != 0:
        missing("containerd and root")
    # Short, and so not a folder of pytest's: the paths of sockets are limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="stowage-containerd-"))
    (folder / "config.toml").write_text(_SETTINGS.format(folder=folder), encoding="utf-8")
    child = Child(
        [str(program), "--config", str(folder / "config.toml")],
        log=folder / "containerd.log",
        stop_signal=Signals.SIGTERM,
    )
    try:
        child.wait_until((folder / "socket").exists, timeout=60)
        yield folder / "socket"
    finally:
        child.stop(timeout=30)
        shutil.rmtree(folder)
