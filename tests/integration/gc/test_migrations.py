"""The upgrade of an installation from before there were operators."""

from collections.abc import Callable

from tests.services.stack import Stack

_ORGANIZATIONS = """
from django.core.management import call_command
from registry_control.identity.models import Organization
from tests.factories import OPERATOR, make_key, make_organization
from registry_control.access.selectors import operates

first, second = make_organization("first"), make_organization("second")
keys = [make_key(OPERATOR, organization=organization) for organization in (first, second)]
call_command("migrate", "identity", "0001", verbosity=0)
call_command("migrate", verbosity=0)
assert [found.name for found in Organization.objects.filter(operates_installation=True)] == ["first"]
assert [operates(key.principal) for key in keys] == [True, False]
"""


def test_the_oldest_organization_operates_an_upgraded_installation(make_stack: Callable[..., Stack]) -> None:
    make_stack().manage("shell", "-c", _ORGANIZATIONS)
