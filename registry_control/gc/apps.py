from django.apps import AppConfig

from registry_control.common.signals import manifests_removed


class GarbageCollectionConfig(AppConfig):
    name = "registry_control.gc"
    label = "gc"
    verbose_name = "Garbage collection"

    def ready(self) -> None:
        manifests_removed.connect(_count_manifests, dispatch_uid="gc")


def _count_manifests(*, count: int, **_: object) -> None:
    from registry_control.gc.services import runs  # Imported late: models need all apps to be loaded.

    runs.count(None, manifests=count)
