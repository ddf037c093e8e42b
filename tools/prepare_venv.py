#!/usr/bin/env python3
"""Install a requirements file into .venv. Does nothing if it is installed already.

    python3 tools/prepare_venv.py requirements.txt

It runs before anything is installed, with any `python3`. So it uses only the standard library, and no syntax
that would keep an old Python from reporting that it is too old.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def main() -> None:
    """Check the Python version, and install if the requirements or the Python changed."""
    check_python()
    requirements = ROOT / sys.argv[1]
    lock = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # another make may be installing; released at exit
    stamp = VENV / (".installed-" + requirements.stem)
    wanted = fingerprint(requirements)
    if not (PYTHON.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == wanted):
        print("Installing " + requirements.name + " into .venv ...", flush=True)
        install(requirements)
        stamp.write_text(wanted, encoding="ascii")


def check_python() -> None:
    """Exit with a one-line message if this Python cannot run the product."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit("Python 3.11 or later is needed, and python3 is " + found + ": try make PYTHON=python3.11")
    if find_spec("ensurepip") is None:  # Debian packages it separately.
        sys.exit("python3 cannot make virtual environments: on Debian, apt-get install python3-venv")


def fingerprint(requirements: Path) -> str:
    """A hash of the requirements file and of the Python version."""
    return hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()


def install(requirements: Path) -> None:
    """Run pip, in a new environment if the existing one is unusable."""
    if not works():
        need(sys.executable, "-m", "venv", "--clear", str(VENV))
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]
    need(str(PYTHON), *pip, "--require-hashes", "--requirement", str(requirements))


def works() -> bool:
    """Whether .venv is complete and was made by this Python version."""
    probe = "import pip, sys; sys.exit(sys.version != " + repr(sys.version) + ")"
    return PYTHON.exists() and run(str(PYTHON), "-c", probe) == 0


def need(*command: str) -> None:
    """Run a command; exit with its exit code if it fails. It has printed the reason."""
    code = run(*command)
    if code:
        sys.exit(code)


def run(*command: str) -> int:
    """Run a command with its output shown; return its exit code."""
    return subprocess.call(command)  # noqa: S603  (only commands of this file)


if __name__ == "__main__":
    main()
