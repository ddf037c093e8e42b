"""`manage.py scrub`: verifies stored content now, in this process."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from registry_control.common.store import blob_store
from registry_control.integrity.policy import MIB
from registry_control.integrity.selectors.report import Fault, Report, full_report, quarantined
from registry_control.integrity.serializers import ScrubSerializer
from registry_control.integrity.services import commands
from registry_control.integrity.services.commands import Outcome
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError


def _rate(text: str) -> int:
    """MiB per second.

    Raises:
        ArgumentTypeError: it is not a positive number.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


class Command(BaseCommand):
    """Damaged and missing blobs get 404 until they are pushed again. Workers may run beside it."""

    help = "Read stored content, compare it with its digest, and quarantine damaged and missing blobs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("digests", nargs="*", metavar="DIGEST", help="only these; by default all content")
        parser.add_argument("--rate", type=_rate, metavar="MIB", help="MiB per second at most")
        parser.add_argument(
            "--accept-losses",
            action="store_true",
            help="let content be found missing even if it is most of all content",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *_: Any, **options: Any) -> None:
        """Read, confirm, and print what is damaged or missing."""
        digests = [self._parse(digest) for digest in options["digests"]]
        rate, accept_losses = options["rate"] and options["rate"] * MIB, options["accept_losses"]
        if digests:
            outcome = commands.scrub_some(
                digests, blob_store(), bytes_per_second=rate, accept_losses=accept_losses
            )
        else:
            outcome = commands.scrub_all(blob_store(), bytes_per_second=rate, accept_losses=accept_losses)
        report = full_report(period=settings.SCRUB_PERIOD)
        if options["json"]:
            errors = list(dict.fromkeys([*outcome.errors, *report.errors]))
            shown = {**asdict(outcome), **ScrubSerializer(report).data, "errors": errors}
            self.stdout.write(json.dumps(shown))
        else:
            self._print(outcome, report)
        if outcome.errors:
            raise CommandError("not all content was verified: " + "; ".join(outcome.errors))

    def _parse(self, digest: str) -> str:
        try:
            return str(Digest.parse(digest))
        except ProtocolError as error:
            raise CommandError(error.message) from error

    def _print(self, outcome: Outcome, report: Report) -> None:
        self.stdout.write(f"read {outcome.blobs} blobs of {outcome.bytes} bytes")
        for kind, faults in (("damaged", report.damaged), ("missing", report.missing)):
            shown, total = quarantined(faults), report.counted[kind].open
            self.stdout.write(f"{kind}: {total}")
            for fault in shown:
                self._print_fault(fault)
            if total > len(shown):
                self.stdout.write(f"  and {total - len(shown)} more, which the administration lists")

    def _print_fault(self, fault: Fault) -> None:
        images = ", ".join(fault.images) or "no image"
        self.stdout.write(f"  {fault.digest}: {fault.detail}; of {images}; push it again to heal it")
