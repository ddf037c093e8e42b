"""Garbage collection by the workers of two nodes, on PostgreSQL, Redis and MinIO: a minute of `make soak`."""

from collections.abc import Callable

import pytest

from bench.soak.collector import SETTINGS, Goal, soak_collector
from tests.production.conftest import Installation
from tests.services.stack import Stack

pytestmark = [
    pytest.mark.production,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


def test_nothing_promised_is_lost_while_clients_push_and_delete_and_workers_are_killed(
    installation: Installation, make_node: Callable[[], Stack]
) -> None:
    # given two nodes with grace and leases of seconds
    installation.environment.update(SETTINGS)
    nodes = [make_node().start() for _ in range(2)]

    # when clients push and delete images that share layers, while a process is killed every 10 seconds
    record = soak_collector(nodes, clients=8, goal=Goal(75), seed=1)

    # then every promise held, and the database and the store agree
    assert record.failures == []
    for what in (
        "manifests verified",
        "deletions verified",
        "kills of a worker process",
        "kills of a data process",
        "blobs collected",
        "events: mount",
        "events: re-tag",
        "events: push a referrer",
        "events: restore an image",
        "events: restore a manifest",
    ):
        assert record.counts[what] > 0, record.counts
