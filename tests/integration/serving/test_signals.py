"""Waiting for signals, with real signals."""

import os
import signal
import time

import pytest

from registry_control.serving.signals import Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_ends_the_wait(number: signal.Signals) -> None:
    with Signals() as signals:
        assert signals.stops == 0
        os.kill(os.getpid(), number)
        began = time.monotonic()
        signals.wait(timeout=10)
        assert time.monotonic() - began < 5
        assert signals.stops == 1


def test_several_signals_of_one_stop_count_once() -> None:
    # given a closed terminal, for which both shell and kernel send a signal, and a SIGTERM
    with Signals() as signals:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert signals.stops == 1

        # when another signal is sent later, then this is another stop
        time.sleep(1.1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.stops == 2


def test_the_end_of_a_child_ends_the_wait_and_is_no_stop() -> None:
    with Signals() as signals:
        child = os.posix_spawn("/bin/true", ["true"], {})
        began = time.monotonic()
        signals.wait(timeout=10)
        assert time.monotonic() - began < 5
        assert signals.stops == 0
    os.waitpid(child, 0)


def test_without_a_signal_the_wait_times_out() -> None:
    with Signals() as signals:
        began = time.monotonic()
        signals.wait(timeout=0.05)
        assert time.monotonic() - began >= 0.05


def test_a_signal_that_was_ignored_before_remains_ignored() -> None:
    # given a process that was started with `nohup`
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            # when its terminal is closed, then nothing happens
            os.kill(os.getpid(), signal.SIGHUP)
            signals.wait(timeout=0.05)
            assert signals.stops == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_restored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    with Signals():
        pass
    assert {number: signal.getsignal(number) for number in before} == before
