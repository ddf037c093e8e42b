"""The product, started with `manage.py up` as a user does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.services.child import Child, ServiceError
from tests.services.ports import free_port
from tests.services.processes import descendants, wait_until_gone

ROOT: Final = Path(__file__).parents[2]
STATE: Final = "state"  # the state folder inside a product's folder
_START_TIMEOUT: Final = 60.0  # seconds
_STOP_TIMEOUT: Final = 30.0  # seconds; the documents promise 10 on a machine that is not overloaded


@dataclass(frozen=True, slots=True)
class Credentials:
    """credentials.json: exactly these keys."""

    control_url: str
    registry_host: str
    organization_id: str
    project_id: str
    access_key: str
    secret_key: str
    admin_username: str
    admin_password: str


class Stack:
    """A product with its own folder and ports, which stay the same over a restart.

    with Stack(tmp_path / "product") as stack:
        httpx.get(f"{stack.credentials.control_url}/api/schema/")
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        python: Path | str = sys.executable,
    ) -> None:
        """Define a product, which is not started yet.

        Args:
            folder: for its state folder and its output.
            environment: added to the variables of the product.
            python: the interpreter, and so the installed packages.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._python: Final = str(python)
        self.state_dir: Final = folder / STATE
        self.environment: Final = {
            **{name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")},
            "REGISTRY_STATE_DIR": str(self.state_dir),
            "REGISTRY_CONTROL_ADDR": f"127.0.0.1:{free_port()}",
            "REGISTRY_DATA_ADDR": f"127.0.0.1:{free_port()}",
            "REGISTRY_RECYCLE_BIN": "0",  # tests of the recycle bin switch it on
            **(environment or {}),
        }
        self._printed = folder / "up.out"
        self._errors = folder / "up.err"
        self._printed_before = 0  # bytes of output of earlier starts
        self._child: Child | None = None

    def start(self) -> Self:
        """Start it and wait for the `ready` line.

        Raises:
            ServiceError: it ended or took more than 60 s; the text has its output.
        """
        return self.launch().wait_until_ready()

    def launch(self) -> Self:
        """Start it and return at once: `wait_until_ready` must follow.

        Raises:
            ServiceError: it runs already.
        """
        if self.is_running:
            raise ServiceError("the product runs already")
        self._printed.touch()
        self._printed_before = self._printed.stat().st_size
        self._child = Child(
            [self._python, "manage.py", "up"],
            cwd=ROOT,
            env=self.environment,
            log=self._errors,
            output=self._printed,
            stop_signal=signal.SIGTERM,
        )
        return self

    def wait_until_ready(self) -> Self:
        """Wait for the `ready` line of a product that was launched; kill the product if there is none.

        Raises:
            ServiceError: it ended or took more than 60 s; the text has its output.
        """
        try:
            self._running().wait_until(self._is_ready, timeout=_START_TIMEOUT)
        except BaseException:  # Ctrl-C too: the caller does not get the product, so it cannot stop it.
            if self.is_running:
                self.kill()
            raise
        return self

    def stop(self) -> int:
        """Stop it with SIGTERM; return the exit code.

        Raises:
            ServiceError: it, or a process that it started, still ran after 30 s.
        """
        child, started = self._running(), self.processes()
        try:
            code = child.stop(timeout=_STOP_TIMEOUT)
        finally:
            left = _kill_all(started)
        if left:
            raise ServiceError(f"the product ended without stopping its processes: {left}\n{self.log}")
        return code

    def kill(self) -> None:
        """Kill all of its processes at once, like a power failure that loses no written data."""
        child, started = self._running(), self.processes()
        child.kill()
        _kill_all(started)

    def restart(self) -> Self:
        """Stop it if it runs, and start it again on the same folder and ports."""
        if self.is_running:
            self.stop()
        return self.start()

    def processes(self) -> dict[int, str]:
        """All processes that it has started, as process id to command line, without the supervisor itself."""
        return descendants(self.pid)

    def manage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of manage.py with the same settings.

        Raises:
            ServiceError: the command failed, unless `check` is false.
        """
        done = subprocess.run(
            [self._python, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode != 0:
            raise ServiceError(f"manage.py {' '.join(arguments)} ended with {done.returncode}\n{done.stderr}")
        return done

    @property
    def control_address(self) -> str:
        """HOST:PORT on which the control plane listens, whatever its public URL is."""
        return self.environment["REGISTRY_CONTROL_ADDR"]

    @property
    def data_address(self) -> str:
        """HOST:PORT on which the data plane listens, whatever its public host is."""
        return self.environment["REGISTRY_DATA_ADDR"]

    @property
    def pid(self) -> int:
        """The supervisor, `manage.py up`."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the last start; None while it runs and before the first start."""
        return self._child.exit_code if self._child else None

    @property
    def credentials(self) -> Credentials:
        return Credentials(**json.loads((self.state_dir / "credentials.json").read_text(encoding="utf-8")))

    @property
    def log(self) -> str:
        """Its output of all starts: standard output, then standard error."""
        return _read(self._printed) + _read(self._errors)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_running:
            self.stop()

    def _running(self) -> Child:
        if self._child is None or self._child.exit_code is not None:
            raise ServiceError(f"the product does not run\n{self.log}")
        return self._child

    def _is_ready(self) -> bool:
        with self._printed.open("rb") as printed:
            printed.seek(self._printed_before)
            return any(line.startswith(b"ready") and line.endswith(b"\n") for line in printed)


def _kill_all(processes: Mapping[int, str]) -> dict[int, str]:
    """Kill those that still run; return them."""
    left = {pid: processes[pid] for pid in wait_until_gone(processes, timeout=0)}
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it has just ended
    if survivors := wait_until_gone(left, timeout=5):
        raise ServiceError(f"cannot be killed: {survivors}")
    return left


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
