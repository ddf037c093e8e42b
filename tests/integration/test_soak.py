"""A short one of what `make soak` does for longer."""

from collections.abc import Callable

import pytest

from bench.soak.run import soak
from tests.services.stack import Stack


@pytest.mark.slow
@pytest.mark.timeout(600)  # The work takes half a minute; on a busy machine the reckoning may take longer.
def test_promises_are_kept_while_connections_are_cut_and_processes_killed(
    make_stack: Callable[..., Stack],
) -> None:
    # given a running product
    stack = make_stack().start()

    # when clients push, pull and delete while everything around them breaks
    record = soak(stack, clients=16, seconds=30, seed=1)

    # then what was acknowledged is there, what was deleted is gone, and nothing is left behind
    assert record.failures == []
    # and there was something to look at
    for what in ("blobs verified", "manifests verified", "deletions verified", "kills of a data process"):
        assert record.counts[what] > 0, record.counts
