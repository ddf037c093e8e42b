"""The lock of the state folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry_control.settings.environment import ConfigurationError


@contextmanager
def exclusive_state_folder(state_dir: Path) -> Iterator[None]:
    """Create the folder and lock it, so that no other `up` uses it while this process lives.

    Raises:
        ConfigurationError: another `up` has the lock, or the folder cannot be used.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"REGISTRY_STATE_DIR: cannot use {state_dir}: {error}") from error
    try:
        _lock(descriptor, state_dir)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, state_dir: Path) -> None:
    try:
        # The kernel releases it when this process and all that it has forked have ended.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        raise ConfigurationError(
            f"REGISTRY_STATE_DIR: {state_dir} is in use by another `up` (process {holder}):"
            " stop that one, or set REGISTRY_STATE_DIR to another folder"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
