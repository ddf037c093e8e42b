"""Where the worker writes its process id, for the supervisor."""

from pathlib import Path


def worker_pid_file(state_dir: Path) -> Path:
    """The file with the process id of a worker that consumes messages."""
    return state_dir / "run" / "worker.pid"
