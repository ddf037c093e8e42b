"""Storage of this registry, or another registry, that accepts requests and never answers during replication.

A piece of work ends with the time-outs of the clients, holds no transaction meanwhile, and is tried again;
once there are answers, the execution succeeds.
"""

import os
from datetime import timedelta
from typing import Any, Final

import pytest
from urllib3 import Retry, Timeout

from registry_control.catalog.models import Tag
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import run
from registry_control.replication.models import Direction, Execution, ExecutionStatus
from registry_control.replication.services import rules
from registry_data.client.registry import RemoteRegistry
from registry_data.client.sending import Sender
from registry_data.storage.factory import open_store
from registry_data.storage.s3 import bucket, lease
from tests.factories import TestKey, push_image, unique
from tests.integration.replication.content import image_manifest, push_remote
from tests.integration.replication.scene import end_waiting, make_rule, make_target, work_off
from tests.services.hanging import Proxy, run_beside_others
from tests.services.minio import S3Server
from tests.services.scripted import running_script

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.only_on("sqlite"),  # which has one writer: a transaction that is open would stop all others
    pytest.mark.clients,
]

_TIMEOUT: Final = 0.4  # seconds of waiting for an answer, instead of 12 and 60


@pytest.fixture
def url(minio: S3Server) -> str:
    return minio.url()


@pytest.mark.parametrize("hanging", ["storage", "registry"])
@pytest.mark.parametrize("direction", list(Direction))
def test_replication_waits_for_nothing_for_ever(
    owner: TestKey,
    namespace: Namespace,
    peer: str,
    remote: RemoteRegistry,
    minio: S3Server,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    direction: Direction,
    hanging: str,
) -> None:
    direct, number, has_hung = open_store(url), 0, True
    direct.check()
    while has_hung:
        # given an image to copy, and a storage or a registry that never answers from some request on
        name, layer = unique("image"), os.urandom(1000)
        destination = f"{namespace.name}/{name}"
        if direction is Direction.PUSH:
            push_image(owner, namespace, name, layers=[layer], store=direct)
            fields: dict[str, Any] = {"repositories": [name]}
        else:
            push_remote(remote, destination, image_manifest(layer), layer, tag="latest")
            fields = {"repositories": [destination], "destination": name}
        with running_script() as script:
            upstream = minio.endpoint if hanging == "storage" else peer
            proxy = Proxy(script, upstream, hangs_from=number)
            target = make_target(owner, f"http://{script.host if hanging == 'registry' else peer}")
            rule = make_rule(owner, namespace, target, direction, **fields)
            execution = rules.run(principal=owner.principal, rule_id=rule.pk)

            # when the worker does what is due, then it ends
            with monkeypatch.context() as patch:
                _shorten_timeouts(patch)
                store = proxy.store(url) if hanging == "storage" else direct
                patch.setattr(run, "blob_store", lambda: store)  # noqa: B023 - called in this pass
                assert run_beside_others(work_off, proxy) is None
            has_hung = proxy.hangs.is_set()
            execution.refresh_from_db()
            if has_hung:
                assert execution.status == ExecutionStatus.RUNNING
                failed = "the storage of the registry failed" if hanging == "storage" else "read timeout"
                assert all(failed in sentence for sentence in execution.shown_errors)

            # and with answers, the execution succeeds
            proxy.hangs_from = None
            with monkeypatch.context() as patch:
                patch.setattr(lease, "LEASE", timedelta(0))  # that of the call that was given up is over
                patch.setattr(run, "blob_store", lambda: direct)
                _finish(execution)
        assert execution.status == ExecutionStatus.SUCCEEDED, execution.shown_errors
        if direction is Direction.PUSH:
            assert remote.get_manifest(destination, "latest") is not None
        else:
            assert Tag.objects.filter(image__name=name, name="latest").exists()
        number += 1 + number  # later requests are more of the same
    assert number > 1


def _shorten_timeouts(patch: pytest.MonkeyPatch) -> None:
    send = Sender.send

    def send_briefly(*arguments: Any, **options: Any) -> Any:
        return send(*arguments, **{**options, "timeout": _TIMEOUT})

    patch.setattr(Sender, "send", send_briefly)
    patch.setattr(bucket, "_TIMEOUT", Timeout(connect=3, read=_TIMEOUT))
    patch.setattr(bucket, "_RETRIES", Retry(total=1, connect=1, read=0))


def _finish(execution: Execution) -> None:
    for _ in range(5):
        end_waiting()
        work_off()
        execution.refresh_from_db()
        if execution.status != ExecutionStatus.RUNNING:
            return
