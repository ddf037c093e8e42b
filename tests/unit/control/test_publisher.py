"""The publisher thread: callers never wait and never fail, even if the broker does."""

import os
import threading
import time
from collections.abc import Callable

import pytest

from registry_control.common.publisher import Publisher


def wait_until(condition: Callable[[], bool], *, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_names_are_sent_and_deduplicated_while_the_broker_hangs() -> None:
    # given a broker that hangs at the first message
    sent, may_go_on = list[str](), threading.Event()

    def send(name: str) -> None:
        may_go_on.wait(10)
        sent.append(name)

    publisher = Publisher(send)
    publisher.enqueue("first")

    # when many more are enqueued meanwhile, then no caller waits
    began = time.monotonic()
    for _ in range(10_000):
        publisher.enqueue("second")
    assert time.monotonic() - began < 5

    # and each name is sent once when the broker continues
    may_go_on.set()
    wait_until(lambda: "second" in sent)
    time.sleep(0.2)
    assert sorted(sent) in (["first", "second"], ["second"])


def test_a_failure_is_retried_until_it_succeeds() -> None:
    # given a broker that fails in several ways
    failures: list[Exception] = [OSError("no space"), ValueError("odd"), ModuleNotFoundError("packaging")]
    sent = list[str]()

    def send(name: str) -> None:
        if failures:
            raise failures.pop()
        sent.append(name)

    # when a name is enqueued, then it is sent after retries
    Publisher(send).enqueue("task")
    wait_until(lambda: sent == ["task"])


def test_a_forked_process_has_its_own_thread() -> None:
    # given a publisher that has been used
    sent = list[str]()
    publisher = Publisher(sent.append)
    publisher.enqueue("parent")
    wait_until(lambda: sent == ["parent"])

    # when a fork of its process enqueues a name, then it is sent there
    child = os.fork()
    if child == 0:
        publisher.enqueue("child")
        deadline = time.monotonic() + 10
        while "child" not in sent and time.monotonic() < deadline:
            time.sleep(0.01)
        os._exit(0 if "child" in sent else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sent == ["parent"]


def test_a_thread_that_could_not_be_started_is_started_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a process that cannot start a thread, as at a limit of its number
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sent = list[str]()
    publisher = Publisher(sent.append)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            publisher.enqueue("first")

    # when it can again, then both names are sent
    publisher.enqueue("second")
    wait_until(lambda: sent == ["first", "second"])
