from collections.abc import Sequence
from uuid import UUID

from django.apps import AppConfig

from registry_control.common.signals import content_pushed, execution_started


class ReplicationConfig(AppConfig):
    name = "registry_control.replication"
    label = "replication"

    def ready(self) -> None:
        content_pushed.connect(_record_push, dispatch_uid="replication")
        execution_started.connect(_enqueue_advance, dispatch_uid="replication")


def _record_push(image_id: UUID, digest: str, tags: Sequence[str], **_: object) -> None:
    from registry_control.replication.services.events import record_push

    record_push(image_id, digest, tags)


def _enqueue_advance(**_: object) -> None:
    # Imported late: Celery is loaded only by processes that start an execution.
    from registry_control.common.background import enqueue_on_commit
    from registry_control.replication.tasks import advance

    enqueue_on_commit(advance)
