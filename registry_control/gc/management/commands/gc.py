"""`manage.py gc`: runs garbage collection now, in this process."""

import json
from argparse import ArgumentParser
from collections.abc import Collection, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from registry_control.audit.services import SYSTEM
from registry_control.common.store import blob_store
from registry_control.gc.policy import Action, Rules, Stop, Verdict, while_stopped
from registry_control.gc.selectors import planner
from registry_control.gc.selectors.breaker import current_stop
from registry_control.gc.selectors.candidates import Candidate
from registry_control.gc.selectors.explanation import Viewer, explain
from registry_control.gc.selectors.report import report
from registry_control.gc.serializers import ReportSerializer
from registry_control.gc.services import breaker, commands
from registry_control.gc.services.commands import Outcome
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError

_SHOWN: Final = 20  # waiting blobs, without --json


class Command(BaseCommand):
    """Also finishes pending deletions, with expired entries of the recycle bin. Workers may run beside it."""

    help = "Delete the content of blobs that nothing refers to and whose grace period is over."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        # All but one of these only look, and each has an output of its own.
        actions = parser.add_mutually_exclusive_group()
        actions.add_argument("--dry-run", action="store_true", help="show what would be removed")
        parser.add_argument(
            "--now",
            action="store_true",
            help="empty the recycle bin and pass over the grace period;"
            " leases, running uploads and everything reachable stay",
        )
        actions.add_argument(
            "--explain", metavar="DIGEST", help="say why this content is kept, or when it goes"
        )
        actions.add_argument(
            "--release-breaker",
            action="store_true",
            help="first let a collector go on that the circuit breaker has stopped",
        )
        actions.add_argument(
            "--report", action="store_true", help="say why the disk has not shrunk, and remove nothing"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run, and print what was removed and what waits.

        Raises:
            CommandError: for options that have no meaning together, or if not everything was removed.
        """
        if options["report"] and options["now"]:
            raise CommandError("--report tells what is stored at present: use it without --now")
        if options["release_breaker"]:
            breaker.release(actor=SYSTEM)
        ignore_grace = options["now"]
        if options["report"]:
            self._report(as_json=options["json"])
            return
        if options["explain"] is not None:
            self._explain(options["explain"], commands.rules(ignore_grace=ignore_grace), options["json"])
            return
        if options["dry_run"]:
            outcome = commands.dry_run(ignore_grace=ignore_grace)
        else:
            outcome = commands.collect(store=blob_store(), ignore_grace=ignore_grace)
        if ignore_grace:
            self._announce(self.stderr if options["json"] else self.stdout)
        now = commands.rules(ignore_grace=ignore_grace)
        stop = current_stop(ignore_grace=ignore_grace)
        left = planner.waiting(now, also=_not_removed(stop, dry_run=options["dry_run"]))
        waiting = ((blob, while_stopped(verdict, stop)) for blob, verdict in left)
        if options["json"]:
            self._print_json(outcome, waiting, dry_run=options["dry_run"])
        else:
            self._print_text(outcome, waiting, options)
        if outcome.errors:
            raise CommandError("not everything was removed: " + "; ".join(outcome.errors))

    def _explain(self, digest: str, rules: Rules, as_json: bool) -> None:
        try:
            Digest.parse(digest)
        except ProtocolError as error:
            raise CommandError(error.message) from error
        found = explain(digest, viewer=Viewer(None), rules=rules)
        if as_json:
            self.stdout.write(json.dumps({**asdict(found), "goes_at": _time(found.goes_at)}))
            return
        self.stdout.write(f"{found.digest}: {found.state}: {found.reason}")
        for reference in found.kept_by:
            self.stdout.write(f"kept by {reference}")
        if found.goes_at is not None:
            self.stdout.write(f"goes at {_time(found.goes_at)}")

    def _report(self, *, as_json: bool) -> None:
        found = report(grace=settings.GC_GRACE)
        if as_json:
            self.stdout.write(json.dumps(ReportSerializer(found).data))
            return
        if found.stopped:
            self.stdout.write(f"stopped: {found.stopped}")
        if found.held:
            self.stdout.write(f"waits: {found.held}")
        self.stdout.write(f"counted at {_time(found.counted_at)}" if found.counted_at else "not counted yet")
        for line in found.lines:
            self.stdout.write(f"{line.title}: {line.blobs} blobs of {line.bytes} bytes. {line.advice}")
        waiting, due_at = found.queue, _time(found.queue.oldest_due_at)
        due = f", the oldest due at {due_at}" if due_at else ""
        self.stdout.write(f"review queue: {waiting.entries} blobs of {waiting.bytes} bytes{due}")
        for failure in found.failures:
            self.stdout.write(f"the storage does not delete {failure.blobs} blobs: {failure.error}")
        for finding in found.findings:
            self.stdout.write(finding.text)

    def _announce(self, output: OutputWrapper) -> None:
        """Say what `--now` passes over; standard output is for the document alone if there is one."""
        grace = int(settings.GC_GRACE.total_seconds())
        output.write(
            f"--now empties the recycle bin and passes over the grace period of {grace} s;"
            " it keeps leased blobs, running uploads and everything that a manifest lists"
        )

    def _print_json(
        self, outcome: Outcome, waiting: Iterator[tuple[Candidate, Verdict]], *, dry_run: bool
    ) -> None:
        """Print entry by entry: there may be millions of waiting blobs."""
        head = {
            "dry_run": dry_run,
            "blobs": outcome.blobs,
            "bytes": outcome.bytes,
            "manifests": outcome.manifests,
            "stopped_by_breaker": outcome.stop is not None and outcome.stop.by_breaker,
            "reason": outcome.stop.reason if outcome.stop is not None else "",
        }
        self.stdout.write(json.dumps(head)[:-1] + ', "waiting": [', ending="")
        for number, (candidate, verdict) in enumerate(waiting):
            separator = ", " if number else ""
            self.stdout.write(separator + json.dumps(_waiting(candidate, verdict)), ending="")
        self.stdout.write("]}")

    def _print_text(
        self, outcome: Outcome, waiting: Iterator[tuple[Candidate, Verdict]], options: dict[str, Any]
    ) -> None:
        verb = "would remove" if options["dry_run"] else "removed"
        self.stdout.write(
            f"{verb} {outcome.blobs} blobs of {outcome.bytes} bytes and {outcome.manifests} manifests"
        )
        if outcome.stop is not None:
            who = "the circuit breaker" if outcome.stop.by_breaker else "waits"
            self.stdout.write(f"{who}: {outcome.stop.reason}")
        number = 0
        for number, (candidate, verdict) in enumerate(waiting, start=1):
            if number <= _SHOWN:
                self.stdout.write(f"waiting: {candidate.digest} ({candidate.size} bytes): {verdict.reason}")
        if number > _SHOWN:
            self.stdout.write(f"waiting: {number - _SHOWN} more blobs")


def _not_removed(stop: Stop | None, *, dry_run: bool) -> Collection[Action]:
    """What a run has left, or leaves, of the blobs that are due."""
    if not dry_run:
        return (Action.COLLECT, Action.DELETE)
    return (Action.COLLECT,) if stop is not None else ()


def _waiting(candidate: Candidate, verdict: Verdict) -> dict[str, object]:
    return {
        "digest": candidate.digest,
        "bytes": candidate.size,
        "until": _time(verdict.goes_at),
        "reason": verdict.reason,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
