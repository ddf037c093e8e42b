"""The lease: at most one of several processes, each with its own database connection, has it."""

import threading
import time
from collections.abc import Callable

import pytest
from django.db import connections

from registry_control.serving.lease import Lease
from registry_control.serving.models import LeaderLease

pytestmark = pytest.mark.django_db(transaction=True)


def test_one_of_several_concurrent_candidates_acquires_the_lease() -> None:
    # given eight candidates, each with its own connection
    barrier, results = threading.Barrier(8), list[bool]()

    def acquire() -> None:
        lease = Lease("test", duration=60)
        barrier.wait()
        try:
            results.append(lease.hold())
        finally:
            connections.close_all()

    # when all of them try to acquire a new lease
    run_together(acquire, count=8)

    # then one has it
    assert sorted(results) == [False] * 7 + [True]
    assert LeaderLease.objects.count() == 1


def test_the_holder_renews_and_others_acquire_it_when_it_expires() -> None:
    # given a holder
    first, second = Lease("test", duration=1), Lease("test", duration=1)
    assert first.hold()
    assert not second.hold()

    # when it renews the lease, then it remains the holder for longer than the duration
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert first.hold()
        assert not second.hold()
        time.sleep(0.05)

    # and when it stops, then the other one acquires it, and the renewal of the first one fails
    time.sleep(1.1)
    assert second.hold()
    assert not first.hold()


def test_a_released_lease_is_free_at_once() -> None:
    first, second = Lease("test", duration=60), Lease("test", duration=60)
    assert first.hold()
    second.release()  # no effect: it is not the holder
    assert not second.hold()
    first.release()
    assert second.hold()
    assert not first.hold()


def test_leases_of_different_names_are_independent() -> None:
    assert Lease("one", duration=60).hold()
    assert Lease("two", duration=60).hold()


def run_together(run: Callable[[], None], *, count: int) -> None:
    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
