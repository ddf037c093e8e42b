"""`manage.py create_key`: creates an API key for an application."""

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from registry_control.audit.services import SYSTEM
from registry_control.common.clock import now
from registry_control.common.errors import ServiceError
from registry_control.identity import services
from registry_control.identity.models import Application, Organization, Project
from registry_control.identity.permission_sets import PermissionSet


class Command(BaseCommand):
    """Also creates the organization and the application if they do not exist."""

    help = "Create an API key for an application and print it as JSON. The secret key cannot be shown again."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("organization", help="name of the organization; created if it does not exist")
        parser.add_argument("application", help="name of the application; created if it does not exist")
        parser.add_argument(
            "--permission-set",
            action="append",
            default=[],
            choices=PermissionSet.values,
            help="grant this permission set to the application; may be repeated",
        )
        parser.add_argument(
            "--project", help="id of the project to which the grants are limited; by default all projects"
        )
        parser.add_argument(
            "--days", type=int, help="days until the key expires; by default it does not expire"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Create everything in one transaction, and print the key."""
        try:
            with transaction.atomic():
                self.stdout.write(json.dumps(_create(options), indent=2))
        except ServiceError as error:
            raise CommandError(f"{error.message}: {error.fields()}") from error


def _create(options: dict[str, Any]) -> dict[str, str]:
    organization = _organization(options["organization"])
    application = Application.objects.filter(
        organization=organization, name=options["application"]
    ).first() or services.create_application(
        actor=SYSTEM, organization=organization, name=options["application"]
    )
    project = _project(organization, options["project"]) if options["project"] else None
    for permission_set in options["permission_set"]:
        services.grant_policy(
            actor=SYSTEM, holder=application, permission_set=PermissionSet(permission_set), project=project
        )
    expires_at = now() + timedelta(days=options["days"]) if options["days"] is not None else None
    issued = services.create_api_key(
        actor=SYSTEM, holder=application, default_project=project, expires_at=expires_at
    )
    return {
        "organization_id": str(organization.pk),
        "project_id": str(issued.api_key.default_project_id),
        "application_id": str(application.pk),
        "access_key": issued.api_key.access_key,
        "secret_key": issued.secret,
    }


def _organization(name: str) -> Organization:
    found = list(Organization.objects.filter(name=name)[:2])
    if len(found) > 1:
        raise CommandError(f"several organizations have the name {name!r}: use the administration pages")
    return found[0] if found else services.create_organization(actor=SYSTEM, name=name)


def _project(organization: Organization, project_id: str) -> Project:
    try:
        return Project.objects.get(pk=project_id, organization=organization)
    except (Project.DoesNotExist, ValueError) as error:
        raise CommandError(f"{organization} has no project {project_id}") from error
