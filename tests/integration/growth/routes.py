"""One request to every route of the data plane, each on a separate image."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from uuid import uuid4

from registry_control.access.services import authenticate, issue_token
from registry_control.catalog.selectors.resolve import repository_facts
from registry_control.catalog.services import images
from registry_control.namespaces.models import Namespace
from registry_data.oci.scopes import Scope
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import Pushed, TestKey, push_blob, push_image
from tests.integration.growth.watched import Watched, request
from tests.oci_client import OCI_INDEX, OCI_MANIFEST, descriptor, digest_of, image_manifest

_IMAGE: Final = "scene"
_OTHER: Final = "other"
_ACTIONS: Final = frozenset({"pull", "push", "delete"})


@dataclass(frozen=True)
class Scene:
    """An image with a tag and layers that no other image has, and the key that pushed it."""

    folder: Path
    key: TestKey
    namespace: Namespace
    layers: int
    pushed: Pushed
    token: str

    def send(self, method: str, path: str, **arguments: Any) -> Watched:
        """Send a request to a path below the image's repository, or to an absolute path."""
        headers = {"Authorization": f"Bearer {self.token}", **arguments.pop("headers", {})}
        whole = path if path.startswith("/") else f"/v2/{self.namespace.name}/{_IMAGE}/{path}"
        return request(self.folder, method, whole, headers=headers, **arguments)

    def new_blob(self, data: bytes) -> str:
        """A blob of the image that no manifest references."""
        store = FilesystemStore(self.folder)
        return push_blob(self.key, self.pushed.image_id, data, store=store)

    def new_upload(self, data: bytes = b"") -> str:
        """The path of a new upload session with these bytes."""
        started = self.send("POST", "blobs/uploads/").response
        if data:
            assert self.send("PATCH", started.headers["location"], content=data).response.status_code == 202
        return str(started.headers["location"])


def make_scene(folder: Path, key: TestKey, namespace: Namespace, *, layers: int) -> Scene:
    """Push an image with unique content, and issue a token whose signature is already verified."""
    store = FilesystemStore(folder)
    store.check()
    contents = [uuid4().bytes for _ in range(layers)]
    pushed = push_image(key, namespace, _IMAGE, layers=contents, config=uuid4().bytes, store=store)
    scopes = [Scope("repository", f"{namespace.name}/{name}", _ACTIONS) for name in (_IMAGE, _OTHER)]
    scopes.append(Scope("registry", "catalog", frozenset("*")))
    token = issue_token(authenticate(secret=key.secret), scopes, repository_facts).token
    authenticate(token=token)
    return Scene(folder, key, namespace, layers, pushed, token)


def _put_manifest(scene: Scene) -> Watched:
    contents = [uuid4().bytes for _ in range(scene.layers + 1)]
    for content in contents:
        scene.new_blob(content)
    manifest = image_manifest(contents[0], contents[1:])
    return scene.send("PUT", "manifests/new", json=manifest, headers={"Content-Type": OCI_MANIFEST})


def _put_manifest_again(scene: Scene) -> Watched:
    found = scene.send("GET", "manifests/latest").response
    headers = {"Content-Type": found.headers["content-type"]}
    return scene.send("PUT", "manifests/latest", content=found.content, headers=headers)


def _put_index(scene: Scene) -> Watched:
    """Put an index; its children are as many as the scene has layers, with different annotations."""
    children = []
    for number in range(scene.layers):
        config = uuid4().bytes
        scene.new_blob(config)
        body = json.dumps(image_manifest(config, [], annotations={"number": str(number)})).encode()
        path = f"manifests/{digest_of(body)}"
        watched = scene.send("PUT", path, content=body, headers={"Content-Type": OCI_MANIFEST})
        assert watched.response.status_code == 201, watched.response.text
        children.append(descriptor(body, OCI_MANIFEST))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    return scene.send("PUT", "manifests/index", json=index, headers={"Content-Type": OCI_INDEX})


def _blob(method: str, scene: Scene) -> Watched:
    return scene.send(method, f"blobs/{scene.pushed.blobs[1]}")


def _delete_blob(scene: Scene) -> Watched:
    return scene.send("DELETE", f"blobs/{scene.new_blob(uuid4().bytes)}")


def _whole_upload(scene: Scene) -> Watched:
    data = uuid4().bytes
    return scene.send("POST", "blobs/uploads/", params={"digest": digest_of(data)}, content=data)


def _start_upload(scene: Scene) -> Watched:
    return scene.send("POST", "blobs/uploads/")


def _first_upload(scene: Scene) -> Watched:
    return scene.send("POST", f"/v2/{scene.namespace.name}/{_OTHER}/blobs/uploads/")


def _patch(scene: Scene) -> Watched:
    return scene.send("PATCH", scene.new_upload(), content=uuid4().bytes)


def _close_upload(scene: Scene) -> Watched:
    data = uuid4().bytes
    return scene.send("PUT", scene.new_upload(data), params={"digest": digest_of(data)})


def _close_upload_again(scene: Scene) -> Watched:
    digest = scene.pushed.blobs[1]
    data = scene.send("GET", f"blobs/{digest}").response.content
    return scene.send("PUT", scene.new_upload(data), params={"digest": digest})


def _at_upload(method: str, scene: Scene) -> Watched:
    return scene.send(method, scene.new_upload(uuid4().bytes))


def _mount(source: str | None, scene: Scene) -> Watched:
    images.get_or_create(actor=scene.key.actor, namespace_id=scene.namespace.pk, name=_OTHER)
    params = {"mount": scene.pushed.blobs[1]}
    if source is not None:
        params["from"] = f"{scene.namespace.name}/{source}"
    return scene.send("POST", f"/v2/{scene.namespace.name}/{_OTHER}/blobs/uploads/", params=params)


def _referrers(scene: Scene) -> Watched:
    return scene.send("GET", f"referrers/{scene.pushed.digest}", params={"artifactType": "application/x"})


def _manifest(method: str, reference: str, scene: Scene) -> Watched:
    return scene.send(method, f"manifests/{reference or scene.pushed.digest}")


def _token(scene: Scene) -> Watched:
    params = {"service": "registry", "scope": f"repository:{scene.namespace.name}/{_IMAGE}:pull,push"}
    return request(scene.folder, "GET", "/token", params=params, auth=("anyone", scene.key.secret))


def _token_by_form(scene: Scene) -> Watched:
    scope = f"repository:{scene.namespace.name}/{_IMAGE}:pull,push"
    form = {"grant_type": "password", "service": "registry", "username": "anyone", "scope": scope}
    return request(scene.folder, "POST", "/token", data={**form, "password": scene.key.secret})


def _fixed(path: str, scene: Scene) -> Watched:
    return scene.send("GET", path)


ROUTES: Final[Mapping[str, Callable[[Scene], Watched]]] = MappingProxyType(
    {
        "GET /v2/": partial(_fixed, "/v2/"),
        "GET manifest by tag": partial(_manifest, "GET", "latest"),
        "GET manifest by digest": partial(_manifest, "GET", ""),
        "HEAD manifest by tag": partial(_manifest, "HEAD", "latest"),
        "HEAD manifest by digest": partial(_manifest, "HEAD", ""),
        "PUT manifest": _put_manifest,
        "PUT manifest again": _put_manifest_again,
        "PUT index": _put_index,
        "DELETE tag": partial(_manifest, "DELETE", "latest"),
        "DELETE manifest": partial(_manifest, "DELETE", ""),
        "GET blob": partial(_blob, "GET"),
        "HEAD blob": partial(_blob, "HEAD"),
        "DELETE blob": _delete_blob,
        "POST upload": _start_upload,
        "POST first upload of an image": _first_upload,
        "POST whole blob": _whole_upload,
        "PATCH upload": _patch,
        "PUT upload": _close_upload,
        "PUT upload of what is there": _close_upload_again,
        "GET upload": partial(_at_upload, "GET"),
        "DELETE upload": partial(_at_upload, "DELETE"),
        "POST mount": partial(_mount, _IMAGE),
        "POST mount from anywhere": partial(_mount, None),
        "GET tags": partial(_fixed, "tags/list"),
        "GET referrers": _referrers,
        "GET catalog": partial(_fixed, "/v2/_catalog?n=20"),
        "GET token": _token,
        "POST token": _token_by_form,
        "GET keys": partial(_fixed, "/.well-known/jwks.json"),
        "GET health": partial(_fixed, "/healthz"),
    }
)
