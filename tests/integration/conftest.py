"""Two organizations on the running product."""

import json
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.oci_client import OciClient
from tests.services.stack import Stack
from tests.tenants import Tenants


@pytest.fixture(scope="session")
def tenants(stack: Stack) -> Iterator[Tenants]:
    """An owner with the credentials of the first start, a stranger from elsewhere, and nobody."""
    credentials = stack.credentials
    created = stack.manage(
        "create_key", f"other-{uuid4().hex[:8]}", "robot", "--permission-set", "ContainerRegistryFullAccess"
    )
    host = credentials.registry_host
    with (
        httpx.Client(
            base_url=credentials.control_url, headers={"X-Auth-Token": credentials.secret_key}, timeout=30
        ) as control,
        OciClient(host, credentials.secret_key) as owner,
        OciClient(host, json.loads(created.stdout)["secret_key"]) as stranger,
        OciClient(host, None) as anonymous,
    ):
        yield Tenants(
            control=control,
            owner=owner,
            stranger=stranger,
            anonymous=anonymous,
            manage=lambda *arguments: stack.manage(*arguments).stdout,
            organization="default",
            organization_id=credentials.organization_id,
        )
