from django.apps import AppConfig

from registry_control.common.signals import recycled


class RecyclingConfig(AppConfig):
    name = "registry_control.recycling"
    label = "recycling"
    verbose_name = "Recycle bin"

    def ready(self) -> None:
        recycled.connect(_enqueue_settling, dispatch_uid="recycling")


def _enqueue_settling(**_: object) -> None:
    # Imported late: Celery is loaded only by processes that delete something.
    from registry_control.common.background import enqueue_on_commit
    from registry_control.recycling.tasks import settle

    enqueue_on_commit(settle)
