"""The requests that are measured on both sides. A work creates a new request for each round."""

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

from bench.growth.rows import repository_name, shared_layer
from bench.growth.side import Call, Side
from bench.growth.tables import GIANT, giant_tag

Work: TypeAlias = Callable[[Side, random.Random], Call]

_GIANT: Final = "/v2/" + "/".join(GIANT)
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_API: Final = "/registry/v1/regions/fr-par"
_CONFIG: Final = b"{}"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _some_repository(side: Side, chance: random.Random) -> tuple[str, str]:
    return repository_name(chance.randrange((side.size.manifests - side.size.giant_tags) // 10))


def _path(side: Side, chance: random.Random) -> str:
    return "/v2/" + "/".join(_some_repository(side, chance))


def _some_tag(side: Side, chance: random.Random) -> str:
    return giant_tag(chance.randrange(side.size.giant_tags))


def _by_tag(method: str) -> Work:
    return lambda side, chance: Call(method, f"{_GIANT}/manifests/{_some_tag(side, chance)}")


def _by_digest(method: str) -> Work:
    def work(side: Side, chance: random.Random) -> Call:
        path = _path(side, chance)
        found = side.call(Call("HEAD", f"{path}/manifests/v1"))
        return Call(method, f"{path}/manifests/{found.headers['docker-content-digest']}")

    return work


def _blob(side: Side, chance: random.Random) -> Call:
    namespace, name = _some_repository(side, chance)
    return Call("HEAD", f"/v2/{namespace}/{name}/blobs/{digest_of(shared_layer(namespace, name))}")


def _tags(part: float) -> Work:
    def work(side: Side, chance: random.Random) -> Call:
        first = max(0, int(part * side.size.giant_tags) - 100 - chance.randrange(20))
        last = giant_tag(first) if part else ""
        return Call("GET", f"{_GIANT}/tags/list?n=100&last={last}")

    return work


def _referrers(side: Side, chance: random.Random) -> Call:
    path = _path(side, chance)
    subject = side.call(Call("HEAD", f"{path}/manifests/latest")).headers["docker-content-digest"]
    return Call("GET", f"{path}/referrers/{subject}")


def _catalog(side: Side, chance: random.Random) -> Call:
    return Call("GET", f"/v2/_catalog?n=100&last={'/'.join(_some_repository(side, chance))}")


def _token(side: Side, chance: random.Random) -> Call:
    scope = f"repository:{'/'.join(_some_repository(side, chance))}:pull,push"
    return Call("GET", "/token?" + urlencode({"service": "registry", "scope": scope}))


def _push(side: Side, path: str, content: bytes) -> str:
    digest = digest_of(content)
    side.call(Call("POST", f"{path}/blobs/uploads/?digest={digest}", content, expected=201))
    return digest


def _upload(side: Side, chance: random.Random) -> Call:
    content = chance.randbytes(1000)
    path = _path(side, chance)
    return Call("POST", f"{path}/blobs/uploads/?digest={digest_of(content)}", content, expected=201)


def _start(side: Side, chance: random.Random) -> Call:
    return Call("POST", f"{_path(side, chance)}/blobs/uploads/", expected=202)


def _get_blob(side: Side, chance: random.Random) -> Call:
    path = _path(side, chance)
    return Call("GET", f"{path}/blobs/{_push(side, path, chance.randbytes(1000))}")


def _pushed(side: Side, path: str, chance: random.Random) -> bytes:
    """A manifest whose blobs have just been uploaded."""
    contents = [chance.randbytes(100) for _ in range(4)]
    config, *layers = (
        {"mediaType": "application/octet-stream", "digest": _push(side, path, content), "size": len(content)}
        for content in contents
    )
    document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
    return json.dumps(document).encode()


def _put_manifest(side: Side, chance: random.Random) -> Call:
    manifest = _pushed(side, _GIANT, chance)
    path = f"{_GIANT}/manifests/new-{chance.getrandbits(60)}"
    return Call("PUT", path, manifest, _MANIFEST, expected=201)


def _delete_manifest(side: Side, chance: random.Random) -> Call:
    put = _put_manifest(side, chance)
    side.call(put)
    return Call("DELETE", f"{_GIANT}/manifests/{digest_of(put.body)}", expected=202)


def _delete_tag(side: Side, chance: random.Random) -> Call:
    put = _put_manifest(side, chance)
    side.call(put)
    return Call("DELETE", put.path, expected=202)


def _mount(side: Side, chance: random.Random) -> Call:
    """Mount the blob that most repositories have, without a source, into a new repository."""
    path = f"/v2/{GIANT[0]}/new-{chance.getrandbits(60)}/blobs/uploads/"
    return Call("POST", f"{path}?mount={digest_of(_CONFIG)}", expected=201)


def _api(path: str) -> Work:
    def work(side: Side, chance: random.Random) -> Call:
        return Call("GET", _API + path)

    return work


def _some_image(suffix: str = "") -> Work:
    """Not the giant, because the response for an image contains all of its tags."""

    def work(side: Side, chance: random.Random) -> Call:
        return _image(side, _some_repository(side, chance)[1], suffix)

    return work


def _tags_by_api(part: float) -> Work:
    def work(side: Side, chance: random.Random) -> Call:
        page = 1 + int(part * (side.size.giant_tags // 100 - 1))
        return _image(side, GIANT[1], f"/tags?page_size=100&page={page}")

    return work


def _image(side: Side, name: str, suffix: str) -> Call:
    found: dict[str, Any] = json.loads(side.call(Call("GET", f"{_API}/images?name={name}")).body)
    return Call("GET", f"{_API}/images/{found['images'][0]['id']}{suffix}")


WORKS: Final[Mapping[str, Work]] = {
    "manifest GET by tag": _by_tag("GET"),
    "manifest GET by digest": _by_digest("GET"),
    "manifest HEAD by tag": _by_tag("HEAD"),
    "manifest HEAD by digest": _by_digest("HEAD"),
    "manifest PUT": _put_manifest,
    "manifest DELETE": _delete_manifest,
    "tag DELETE": _delete_tag,
    "blob HEAD": _blob,
    "blob GET": _get_blob,
    "upload POST": _start,
    "blob POST": _upload,
    "mount from anywhere": _mount,
    "tags, first page of 100": _tags(0),
    "tags, middle page": _tags(0.5),
    "tags, last page": _tags(1),
    "referrers": _referrers,
    "catalog, page of 100": _catalog,
    "token": _token,
    "API: namespaces": _api("/namespaces"),
    "API: images": _api("/images?page=2"),
    "API: one image": _some_image(),
    "API: tags, first page of 100": _tags_by_api(0),
    "API: tags, middle page": _tags_by_api(0.5),
    "API: tags, last page": _tags_by_api(1),
}
