from collections.abc import Sequence
from uuid import UUID

from django.apps import AppConfig
from django.db.models import Model

from registry_control.common.signals import (
    clock_set_back,
    content_pushed,
    deletion_started,
    execution_started,
)


class ReplicationConfig(AppConfig):
    name = "registry_control.replication"
    label = "replication"

    def ready(self) -> None:
        clock_set_back.connect(_repair_times, dispatch_uid="replication")
        content_pushed.connect(_record_push, dispatch_uid="replication")
        execution_started.connect(_enqueue_advance, dispatch_uid="replication")
        deletion_started.connect(_enqueue_clean_up, dispatch_uid="replication")


def _record_push(image_id: UUID, digest: str, tags: Sequence[str], **_: object) -> None:
    from registry_control.replication.services.events import record_push

    record_push(image_id, digest, tags)


def _enqueue_advance(**_: object) -> None:
    # Imported late: Celery is loaded only by processes that start an execution.
    from registry_control.common.background import enqueue_on_commit
    from registry_control.replication.tasks import advance

    enqueue_on_commit(advance)


def _enqueue_clean_up(sender: type[Model], **_: object) -> None:
    """The rules of a namespace end with it."""
    if sender._meta.model_name == "namespace":
        from registry_control.common.background import enqueue_on_commit
        from registry_control.replication.tasks import clean_up

        enqueue_on_commit(clean_up)


def _repair_times(**_: object) -> None:
    from registry_control.replication.engine import clock_repair

    clock_repair.repair()
