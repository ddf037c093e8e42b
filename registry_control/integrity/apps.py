from typing import TYPE_CHECKING

from django.apps import AppConfig

from registry_control.common.signals import clock_set_back, content_healed, findings_requested

if TYPE_CHECKING:
    from registry_control.common.findings import Finding


class IntegrityConfig(AppConfig):
    name = "registry_control.integrity"
    label = "integrity"
    verbose_name = "Integrity of content"

    def ready(self) -> None:
        content_healed.connect(_heal_fault, dispatch_uid="integrity")
        clock_set_back.connect(_repair_times, dispatch_uid="integrity")
        findings_requested.connect(_findings, dispatch_uid="integrity")


def _heal_fault(*, blob_id: int, **_: object) -> None:
    from registry_control.integrity.services import (
        faults,  # Imported late: models need all apps to be loaded.
    )

    faults.heal(blob_id)


def _repair_times(**_: object) -> None:
    from registry_control.integrity.services import clock_repair

    clock_repair.repair()


def _findings(**_: object) -> "list[Finding]":
    from registry_control.integrity.selectors.findings import findings

    return [*findings()]
