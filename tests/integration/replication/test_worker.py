"""Executions in a running product: cancellation, and a stop of the worker, during a slow transfer."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.replication.slow import running_slow_registry
from tests.integration.standalone.product import api
from tests.oci_client import OciClient
from tests.services.plugin import Backing
from tests.services.stack import STATE, Stack
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.only_on("postgresql")]

BASE = "/replication/v1beta1/regions/fr-par"
LAYER = 60_000_000  # bytes


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, backing: Backing) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("replication")
    environment = backing.migrated_environment(folder / STATE)
    with Stack(folder, environment=environment | {"REGISTRY_EGRESS_ALLOW": "127.0.0.0/8"}) as stack:
        yield stack


def make_rule(stack: Stack, namespace: str, url: str, **fields: object) -> str:
    target = api(stack, "POST", "/targets", base=BASE, name="peer", url=url)
    namespace_id = api(stack, "GET", f"/namespaces?name={namespace}")["namespaces"][0]["id"]
    rule: dict[str, object] = {
        "name": "rule",
        "direction": "push",
        "target_id": target["id"],
        "namespace_id": namespace_id,
        "repositories": ["*"],
        **fields,
    }
    return str(api(stack, "POST", "/rules", base=BASE, **rule)["id"])


def push(stack: Stack, repository: str, *layers: bytes) -> str:
    credentials = stack.credentials
    api(stack, "POST", "/namespaces", name=repository.split("/")[0])
    with OciClient(credentials.registry_host, credentials.secret_key) as client:
        return client.push_image(repository, "v1", *layers)


def test_a_cancelled_execution_stops_sending_within_a_second(product: Stack) -> None:
    # given an execution that sends a large layer to a slow target
    push(product, "cancelled/app", os.urandom(LAYER))
    with running_slow_registry(rate=4_000_000) as slow:
        rule = make_rule(product, "cancelled", f"http://{slow.host}")
        execution = api(product, "POST", f"/rules/{rule}/run", base=BASE)["id"]
        wait_until(lambda: slow.received > 8_000_000, timeout=30)

        # when it is cancelled, then its connection ends within a second, and it is shown as cancelled
        began = time.monotonic()
        assert api(product, "POST", f"/executions/{execution}/cancel", base=BASE)["status"] == "cancelled"
        wait_until(lambda: slow.open == 0, timeout=20)
        assert time.monotonic() - began < 3  # one, and what is in the buffers of the connection
        received = slow.received
        time.sleep(2)
        assert slow.received == received
    assert api(product, "GET", f"/executions/{execution}", base=BASE)["status"] == "cancelled"


def test_a_stop_of_the_worker_does_not_wait_for_a_target(make_stack: Callable[..., Stack]) -> None:
    # given an execution that sends a large layer to a target that hangs
    stack = make_stack(REGISTRY_EGRESS_ALLOW="127.0.0.0/8").start()
    push(stack, "stopped/app", os.urandom(LAYER))
    with running_slow_registry(rate=0) as slow:
        rule = make_rule(stack, "stopped", f"http://{slow.host}")
        execution = api(stack, "POST", f"/rules/{rule}/run", base=BASE)["id"]
        wait_until(lambda: slow.open > 0, timeout=30)

        # when the product is stopped, then it ends soon
        began = time.monotonic()
        stack.stop()
        assert time.monotonic() - began < 10

        # and the next start continues the execution at once
        slow.set_rate(100_000_000)
        stack.start()
        began = time.monotonic()
        wait_until(
            lambda: api(stack, "GET", f"/executions/{execution}", base=BASE)["status"] == "succeeded",
            timeout=20,
        )
    stack.stop()
