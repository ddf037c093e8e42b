from django.apps import AppConfig

from registry_control.common.signals import collection_requested, manifests_removed


class GarbageCollectionConfig(AppConfig):
    name = "registry_control.gc"
    label = "gc"
    verbose_name = "Garbage collection"

    def ready(self) -> None:
        manifests_removed.connect(_count_manifests, dispatch_uid="gc")
        collection_requested.connect(_enqueue_runs, dispatch_uid="gc")


def _enqueue_runs(**_: object) -> None:
    # Imported late: Celery is loaded only by processes that request a run.
    from registry_control.common.background import enqueue_on_commit
    from registry_control.gc.tasks import advance_runs

    enqueue_on_commit(advance_runs)


def _count_manifests(*, count: int, **_: object) -> None:
    from registry_control.gc.services import runs  # Imported late: models need all apps to be loaded.

    runs.count(manifests=count)
