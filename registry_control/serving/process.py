"""Forked child processes.

A fork shares the modules that its parent has imported, so it is ready in milliseconds, where a new
interpreter needs a second or more. The caller must have no threads and no open connections (ADR 12).
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from registry_control.serving.parent_death import end_with_parent

_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def fork(run: Callable[[], int], *, title: str) -> int:
    """Run a function in a child process and return its process id. The child ends when this process ends.

    The child is a process group leader: a signal to the group ends all of its processes, and Ctrl-C reaches
    only the parent. Its exit status is the return value of `run`.
    """
    parent = os.getpid()
    # Blocked, because an early signal would run the parent's handlers in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        child = os.fork()
        if child == 0:
            _run_child(run, parent=parent, title=title)
        with suppress(OSError):  # The child does the same; the second call fails or has no effect.
            os.setpgid(child, child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child


def reap_orphans(own: Collection[int | None]) -> None:
    """Reap ended children other than `own`: in a container, process 1 becomes the parent of every orphan."""
    with suppress(ChildProcessError):  # there are no children
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in own:
                return  # its supervisor reaps it next, and orphans behind it come with the next call
            os.waitpid(ended.si_pid, 0)


class _ForkHooks:
    """The callbacks of os.register_at_fork."""

    def __init__(self) -> None:
        self._before: set[int | signal.Signals] = set()

    def block_signals(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)

    def unblock_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def reset_child(self) -> None:
        _reset_handlers()
        self.unblock_signals()


def reset_signals_after_fork() -> None:
    """Restore the default signal handlers in processes that a library forks later, so that SIGTERM ends them.

    Otherwise they inherit the handlers of this process, which only set a flag that no child reads.
    """
    hooks = _ForkHooks()
    os.register_at_fork(
        before=hooks.block_signals,
        after_in_parent=hooks.unblock_signals,
        after_in_child=hooks.reset_child,
    )


def _reset_handlers() -> None:
    for number in _HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _run_child(run: Callable[[], int], *, parent: int, title: str) -> None:
    """Does not return: the child must not run the code after the fork."""
    status = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        _reset_handlers()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        end_with_parent(parent)
        retitle(title)
        status = run()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - like the interpreter for an uncaught exception
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def retitle(title: str) -> None:
    """Show `title` as this process's command line in `ps`, cut to the length of the first one (Linux)."""
    if sys.platform != "linux":
        return
    # proc(5): arg_start and arg_end are fields 48 and 49, the first after the name is field 3.
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if start:  # 0 where the kernel does not permit to read it
        room = end - start
        ctypes.memmove(start, title.encode()[: room - 1].ljust(room, b"\0"), room)
