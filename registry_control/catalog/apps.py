from typing import TYPE_CHECKING

from django.apps import AppConfig

from registry_control.common.signals import (
    deletion_started,
    namespace_deletion_requested,
    storage_prepared,
)

if TYPE_CHECKING:
    from registry_control.namespaces.models import Namespace
    from registry_data.storage.base import BlobStore


class CatalogConfig(AppConfig):
    name = "registry_control.catalog"
    label = "catalog"

    def ready(self) -> None:
        deletion_started.connect(_enqueue_deletions, dispatch_uid="catalog")
        namespace_deletion_requested.connect(_check_protected_tags, dispatch_uid="catalog")
        storage_prepared.connect(_check_storage, dispatch_uid="catalog")


def _enqueue_deletions(**_: object) -> None:
    # Imported late: Celery is loaded only by processes that delete something.
    from registry_control.catalog.tasks import finish_deletions
    from registry_control.common.background import enqueue_on_commit

    enqueue_on_commit(finish_deletions)


def _check_protected_tags(*, namespace: "Namespace", **_: object) -> None:
    # Imported late: models need all apps to be loaded.
    from registry_control.catalog.services.protection import check_tags_of_namespace

    check_tags_of_namespace(namespace)


def _check_storage(*, store: "BlobStore", **_: object) -> None:
    from registry_control.catalog.services.plausibility import require_plausible

    require_plausible(store)
