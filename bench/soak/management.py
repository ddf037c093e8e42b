"""The requests to the management API that the soak tests need."""

import json
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

_TIMEOUT: Final = 60.0  # seconds in which a request is repeated
_V1: Final = "/registry/v1/regions/fr-par"
_BIN: Final = "/registry/v1beta1/regions/fr-par/recycle-bin"
_REPEATED: Final = frozenset({502, 503, 504})


class ManagementApi:
    """The management API with one API key; repeats requests that get no response."""

    def __init__(self, control_url: str, secret: str, *, recycle_bin: float) -> None:
        """`recycle_bin` is `REGISTRY_RECYCLE_BIN` in seconds."""
        self._url = control_url
        self._secret = secret
        self.recycle_bin: Final = recycle_bin

    def create_namespace(self, name: str) -> None:
        """Create a namespace, which must not exist."""
        self._expect(200, "POST", f"{_V1}/namespaces", {"name": name})

    def delete_image(self, repository: str) -> str | None:
        """Delete an image if it exists; return its id."""
        namespace, _, name = repository.partition("/")
        (found,) = self._expect(200, "GET", f"{_V1}/namespaces?name={namespace}")["namespaces"]
        listed = self._expect(200, "GET", f"{_V1}/images?namespace_id={found['id']}&name={name}")["images"]
        for image in listed:
            self._call("DELETE", f"{_V1}/images/{image['id']}")  # 404: an earlier attempt has deleted it
            return str(image["id"])
        return None

    def restore(self, wanted: str, name: str | None) -> int:
        """Restore what had an id or name; return the status, or 404 if the recycle bin has it no more."""
        for _ in range(2):  # others restore, so an entry may move to a page that was read before
            entry_id = self._entry(wanted)
            if entry_id is not None:
                return self._call("POST", f"{_BIN}/{entry_id}/restore", {"name": name})[0]
        return 404

    def _entry(self, wanted: str) -> str | None:
        """The newest entry of an id or name."""
        page = 1
        while entries := self._page(page):
            for entry in entries:
                if wanted in (entry["object_id"], entry["name"]):
                    return str(entry["id"])
            page += 1
        return None

    def _page(self, number: int) -> list[dict[str, Any]]:
        query = f"page={number}&page_size=100&order_by=deleted_at_desc"
        entries: list[dict[str, Any]] = self._expect(200, "GET", f"{_BIN}?{query}")["entries"]
        return entries

    def _expect(self, status: int, method: str, path: str, body: object = None) -> Mapping[str, Any]:
        received, document = self._call(method, path, body)
        if received != status:
            raise OSError(f"{method} {path}: {received} {document}")
        return document

    def _call(self, method: str, path: str, body: object = None) -> tuple[int, Mapping[str, Any]]:
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                return self._once(method, path, body)
            except HTTPError as error:
                if error.code not in _REPEATED or time.monotonic() > deadline:
                    return error.code, {"message": error.read().decode(errors="replace")}
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.3)

    def _once(self, method: str, path: str, body: object) -> tuple[int, Mapping[str, Any]]:
        headers = {"X-Auth-Token": self._secret, "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        with urlopen(Request(self._url + path, data, headers, method=method), timeout=30) as response:
            return response.status, json.loads(response.read())
