"""An organization as a user of Scaleway's Python SDK sees it."""

import json
from dataclasses import dataclass
from uuid import uuid4

from scaleway import Client
from scaleway.registry.v1 import Namespace, RegistryV1API

from tests.oci_client import OciClient
from tests.services.stack import Stack

LAYER = b"a layer"


@dataclass
class Tenant:
    """A separate organization on the shared product, whose lists contain only what the test created."""

    api: RegistryV1API
    oci: OciClient
    access_key: str
    secret_key: str
    organization_id: str

    def namespace(self, **options: object) -> Namespace:
        name = f"t-{uuid4().hex[:12]}"
        return self.api.create_namespace(name=name, **{"description": "d", "is_public": False, **options})

    def push(self, namespace: Namespace, name: str, *tags: str) -> str:
        """Push one manifest with each tag; return its digest."""
        repository = f"{namespace.name}/{name}"
        return {self.oci.push_image(repository, tag, LAYER) for tag in tags}.pop()


def client_of(stack: Stack, key: dict[str, str], **options: str) -> Client:
    return Client(
        **{
            "access_key": key["access_key"],
            "secret_key": key["secret_key"],
            "api_url": stack.credentials.control_url,
            "default_organization_id": key["organization_id"],
            "default_project_id": key["project_id"],
            "default_region": "fr-par",
            **options,
        }
    )


def make_tenant(stack: Stack) -> Tenant:
    made = stack.manage(
        "create_key", f"sdk-{uuid4().hex[:8]}", "robot", "--permission-set", "ContainerRegistryFullAccess"
    )
    key = json.loads(made.stdout)
    return Tenant(
        api=RegistryV1API(client_of(stack, key)),
        oci=OciClient(stack.credentials.registry_host, key["secret_key"]),
        access_key=key["access_key"],
        secret_key=key["secret_key"],
        organization_id=key["organization_id"],
    )
