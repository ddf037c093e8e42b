"""`manage.py delete_key`: revokes an API key immediately."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from registry_control.audit.services import SYSTEM
from registry_control.identity import services
from registry_control.identity.models import ApiKey


class Command(BaseCommand):
    """Also revokes the tokens that were issued for the key."""

    help = "Delete an API key by its access key; it and its tokens are invalid immediately."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("access_key", help="SCW and 17 letters or digits")

    def handle(self, *_: Any, **options: Any) -> None:
        """Delete the key."""
        api_key = ApiKey.objects.select_related("default_project").filter(pk=options["access_key"]).first()
        if api_key is None:
            raise CommandError(f"there is no API key {options['access_key']}")
        services.delete_api_key(actor=SYSTEM, api_key=api_key)
        self.stdout.write(f"deleted {api_key}")
