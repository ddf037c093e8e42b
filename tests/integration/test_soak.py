"""Short versions of `make soak`."""

from collections.abc import Callable

import pytest

from bench.soak.collector import SETTINGS, Goal, soak_collector
from bench.soak.run import soak
from tests.services.stack import Stack


@pytest.mark.slow
@pytest.mark.timeout(600)  # On a busy machine the verification may take longer than the load.
def test_acknowledged_changes_survive_cut_connections_and_killed_processes(
    make_stack: Callable[..., Stack],
) -> None:
    # given a running product
    stack = make_stack().start()

    # when clients push, pull and delete while connections are cut and processes killed
    record = soak(stack, clients=16, seconds=20, seed=1, pauses=(0.5, 2.5))

    # then acknowledged content is there, deleted content is not, and nothing else is left
    assert record.failures == []
    # and the run had something to verify
    for what in ("blobs verified", "manifests verified", "deletions verified", "kills of a data process"):
        assert record.counts[what] > 0, record.counts


@pytest.mark.slow
@pytest.mark.only_on("sqlite")  # tests/production has more of it, on PostgreSQL and MinIO
@pytest.mark.timeout(600)
def test_nothing_promised_is_collected_while_shared_layers_are_deleted_and_workers_killed(
    make_stack: Callable[..., Stack],
) -> None:
    # given a running product with grace and leases of seconds
    stack = make_stack(**SETTINGS).start()

    # when clients push and delete images that share layers, while workers are killed
    record = soak_collector([stack], clients=8, goal=Goal(15), seed=1, between_kills=2)

    # then every promise held, and the database and the store agree
    assert record.failures == []
    # and blobs were collected meanwhile
    for what in ("manifests verified", "deletions verified", "kills of a worker process", "blobs collected"):
        assert record.counts[what] > 0, record.counts
