"""`manage.py sparse_indexes`: whether a namespace accepts indexes whose manifests are partly missing."""

from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from registry_control.audit.services import SYSTEM
from registry_control.common.models import NOT_DELETING
from registry_control.namespaces import services
from registry_control.namespaces.models import Namespace

_CHOICES: Final = {"accept": True, "refuse": False}


class Command(BaseCommand):
    """For mirrors that copy only some platforms of an image."""

    help = "Accept or refuse (the default) indexes that list manifests which the image does not have."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("namespace", help="its name")
        parser.add_argument("choice", choices=_CHOICES)

    @transaction.atomic
    def handle(self, *_: Any, **options: Any) -> None:
        """Set it; it applies from the next push on."""
        found = Namespace.objects.select_for_update(of=("self",), no_key=True).select_related("project")
        there = found.filter(NOT_DELETING)
        namespace = there.filter(name=options["namespace"]).first()
        if namespace is None:
            raise CommandError(f"there is no namespace {options['namespace']}")
        services.change(namespace, actor=SYSTEM, accepts_sparse_indexes=_CHOICES[options["choice"]])
        self.stdout.write(f"{namespace}: sparse indexes: {options['choice']}")
