from django.apps import AppConfig

from registry_control.common.signals import deletion_started


class CatalogConfig(AppConfig):
    name = "registry_control.catalog"
    label = "catalog"

    def ready(self) -> None:
        deletion_started.connect(_enqueue_deletions, dispatch_uid="catalog")


def _enqueue_deletions(**_: object) -> None:
    # Imported late: Celery is loaded only by processes that delete something.
    from registry_control.catalog.tasks import finish_deletions
    from registry_control.common.background import enqueue_on_commit

    enqueue_on_commit(finish_deletions)
