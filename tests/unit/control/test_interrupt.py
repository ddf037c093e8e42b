"""A signal handler may wake the main process of a server at any moment."""

import os
import signal
import threading
import time
from random import Random

from registry_control.serving.granian_server import Interrupt

_SIGNALS = 1_000


def test_a_signal_handler_may_set_it_at_any_moment_of_wait() -> None:
    # given a handler that wakes the thread that it interrupts
    interrupt, received, random = Interrupt(), 0, Random(1)

    def handle(*_: object) -> None:
        nonlocal received
        received += 1
        interrupt.set()

    def send() -> None:
        for _ in range(_SIGNALS):
            before = received
            for _ in range(random.randrange(200)):
                pass
            os.kill(os.getpid(), signal.SIGUSR1)
            while received == before:
                time.sleep(0)

    # when signals arrive all the time, then each ends one wait, and none waits for ever
    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(_SIGNALS):
            interrupt.wait()
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert received == _SIGNALS
