"""`manage.py reconcile`: compares database and storage now, in this process."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from registry_control.common.store import blob_store
from registry_control.integrity.selectors.report import full_report, quarantined
from registry_control.integrity.services import commands
from registry_control.integrity.services.commands import Comparison


class Command(BaseCommand):
    """Marks blobs whose content is missing, and removes objects that nothing refers to. Workers may run."""

    help = "Compare the database with the storage, in both directions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--accept-losses",
            action="store_true",
            help="let content be found missing even if it is most of all content",
        )
        parser.add_argument(
            "--remove-unknown",
            action="store_true",
            help="remove unknown objects after their grace period even if they are more than all blobs",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *_: Any, **options: Any) -> None:
        """Compare, and print what was found."""
        found = commands.reconcile_all(
            blob_store(),
            grace=settings.GC_GRACE,
            accept_losses=options["accept_losses"],
            remove_unknown=options["remove_unknown"],
        )
        report = full_report(period=settings.SCRUB_PERIOD)
        broken = [fault.digest for fault in quarantined([*report.damaged, *report.missing])]
        if options["json"]:
            shown = {"quarantined": broken, "quarantined_total": report.quarantined_total}
            self.stdout.write(json.dumps({**asdict(found), **shown}))
        else:
            self._print(found, broken, total=report.quarantined_total)
        if found.errors:
            raise CommandError("not everything was compared: " + "; ".join(found.errors))

    def _print(self, found: Comparison, broken: list[str], *, total: int) -> None:
        self.stdout.write(f"compared {found.rows} blobs and {found.objects} objects of the storage")
        self.stdout.write(f"damaged or missing: {total}")
        for digest in broken:
            self.stdout.write(f"  {digest}")
        if total > len(broken):
            self.stdout.write(f"  and {total - len(broken)} more, which the administration lists")
        self.stdout.write(f"blobs without references added to the review queue: {found.queued}")
        self.stdout.write(f"unknown objects removed: {found.removed}")
        self.stdout.write(
            f"unknown objects that wait for the grace period: {found.unknown} of {found.unknown_bytes} bytes"
        )
        self.stdout.write(f"files of other programs, which stay: {found.foreign}")
        for name in found.foreign_names:
            self.stdout.write(f"  {name}")
