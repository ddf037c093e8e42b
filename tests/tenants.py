"""Two organizations on a running registry, and the API calls that tests need of it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from tests.oci_client import OciClient, digest_of
from tests.services.stack import Stack

LAYER = b"the layer of every test image"
REGION = "/registry/v1/regions/fr-par"


@dataclass
class Tenants:
    """An owner with everything in one organization, a stranger with everything in another, and nobody."""

    control: httpx.Client
    owner: OciClient
    stranger: OciClient
    anonymous: OciClient
    manage: Callable[..., str]
    organization: str
    organization_id: str
    layer_digest: str = digest_of(LAYER)

    def api(self, method: str, path: str, **json_body: Any) -> dict[str, Any]:
        answer = self.control.request(method, REGION + path, json=json_body or None)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def namespace(self, *, is_public: bool = False) -> dict[str, Any]:
        return self.api("POST", "/namespaces", name=f"ns-{uuid4().hex[:12]}", is_public=is_public)

    def repository(self, *, is_public: bool = False) -> str:
        """A name in a new namespace; nothing is pushed yet."""
        return f"{self.namespace(is_public=is_public)['name']}/app"

    def strangers_repository(self) -> str:
        """A name in a new namespace of the other organization."""
        name = f"ns-{uuid4().hex[:12]}"
        answer = self.control.post(
            f"{REGION}/namespaces", json={"name": name}, headers={"X-Auth-Token": self.stranger.secret or ""}
        )
        assert answer.status_code == 200, answer.text
        return f"{name}/app"

    def image_with_policies(self, *, is_public: bool, visibility: str) -> str:
        repository = self.repository(is_public=is_public)
        self.owner.push_image(repository, "latest", LAYER)
        if visibility != "inherit":
            self.set_image(repository, visibility=visibility)
        return repository

    def namespace_id(self, repository: str) -> str:
        found = self.api("GET", f"/namespaces?name={repository.split('/')[0]}")
        return str(found["namespaces"][0]["id"])

    def image_id(self, repository: str) -> str:
        found = self.api("GET", f"/images?namespace_id={self.namespace_id(repository)}")
        name = repository.split("/", 1)[1]
        return next(str(image["id"]) for image in found["images"] if image["name"] == name)

    def set_namespace(self, repository: str, *, is_public: bool) -> None:
        self.api("PATCH", f"/namespaces/{self.namespace_id(repository)}", is_public=is_public)

    def set_image(self, repository: str, *, visibility: str) -> None:
        self.api("PATCH", f"/images/{self.image_id(repository)}", visibility=visibility)

    def set_retention(self, repository: str, **body: Any) -> None:
        path = f"/registry/v1beta1/regions/fr-par/namespaces/{self.namespace_id(repository)}/retention"
        answer = self.control.put(path, json=body)
        assert answer.status_code == 200, answer.text

    def new_key(self, *permission_sets: str) -> dict[str, str]:
        """A robot of the owner's organization with these rights on all of its projects."""
        return self.create_key(self.organization, *permission_sets)

    def create_key(self, organization: str, *permission_sets: str) -> dict[str, str]:
        arguments = [part for name in permission_sets for part in ("--permission-set", name)]
        output = self.manage("create_key", organization, f"robot-{uuid4().hex[:8]}", *arguments)
        result: dict[str, str] = json.loads(output)
        return result

    def revoke(self, access_key: str) -> None:
        self.manage("delete_key", access_key)


@contextmanager
def pushing(stack: Stack) -> Iterator[tuple[OciClient, str]]:
    """The owner by the first credentials of a product, and a repository to push to."""
    credentials, namespace = stack.credentials, f"ns-{uuid4().hex[:12]}"
    created = httpx.post(
        f"{credentials.control_url}{REGION}/namespaces",
        json={"name": namespace},
        headers={"X-Auth-Token": credentials.secret_key},
    )
    assert created.status_code == 200, created.text
    with OciClient(credentials.registry_host, credentials.secret_key) as client:
        yield client, f"{namespace}/app"
