"""Child processes that share what their parent has imported already.

A fork is ready in milliseconds where a new interpreter spends a second or more on imports. It demands of
its caller that there are no threads and no open connections.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from registry_control.serving.parent_death import end_with_parent

_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def fork(run: Callable[[], int], *, title: str) -> int:
    """Run something in a child process, which ends with this one, and return the child's id.

    The child leads a process group: so all of it can be ended, and Ctrl-C reaches its parent alone. Its exit
    status is what `run` returns.
    """
    parent = os.getpid()
    # Blocked, or one that comes early would meet the parent's handlers in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        child = os.fork()
        if child == 0:
            _be_child(run, parent=parent, title=title)
        with suppress(OSError):  # The child does the same; whoever is late has nothing to do.
            os.setpgid(child, child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child


class _AtForks:
    """What is done around each fork."""

    def __init__(self) -> None:
        self._before: set[int | signal.Signals] = set()

    def block(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)

    def unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def be_child(self) -> None:
        _forget_handlers()
        self.unblock()


def let_children_end() -> None:
    """From now on children that a library forks end when told, until they have handlers of their own.

    They would have their parent's, which only notes that it is to end, in vain.
    """
    forks = _AtForks()
    os.register_at_fork(before=forks.block, after_in_parent=forks.unblock, after_in_child=forks.be_child)


def _forget_handlers() -> None:
    for number in _HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _be_child(run: Callable[[], int], *, parent: int, title: str) -> None:
    """Does not return: what the parent's code would do next is not for the child."""
    status = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        _forget_handlers()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        end_with_parent(parent)
        retitle(title)
        status = run()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter does with what nobody has caught
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def retitle(title: str) -> None:
    """Let `ps` show what this process is, as far as the room of its first command line goes (Linux)."""
    if sys.platform != "linux":
        return
    # proc(5): arg_start and arg_end are fields 48 and 49, the first after the name is field 3.
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if start:  # 0: this kernel tells nobody.
        room = end - start
        ctypes.memmove(start, title.encode()[: room - 1].ljust(room, b"\0"), room)
