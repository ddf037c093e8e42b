"""Requests to the management API in the test process, with all middleware of Django."""

import json
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from django.test import Client

from tests.factories import TestKey

REGION: Final = "/registry/v1/regions/fr-par"
UNKNOWN_ID: Final = "0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29"
"""An id that no object has."""


@dataclass
class Response:
    """A response with its parsed body."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Api:
    """A client of the API with a key, or without one."""

    key: TestKey | None = None
    # An exception in a view becomes a response, as in production.
    _client: Client = field(default_factory=lambda: Client(raise_request_exception=False))

    def get(self, path: str, **query: object) -> Response:
        return self.call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, **body: object) -> Response:
        return self.call("POST", path, body)

    def patch(self, path: str, **body: object) -> Response:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> Response:
        return self.call("DELETE", path)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        **headers: str,
    ) -> Response:
        """Send bytes and text unchanged, anything else as JSON. Paths are relative to the region."""
        own = {"X-Auth-Token": self.key.secret} if self.key else {}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes | str) else b"" if body is None else json.dumps(body)
        whole = REGION + path if path.startswith(("/namespaces", "/images", "/tags")) else path
        received = self._client.generic(method, whole, raw, content_type, headers={**own, **sent})
        content = b"".join(received)  # some are streamed
        parsed = json.loads(content) if content else None
        return Response(received.status_code, dict(received.headers), parsed)


def details(response: Response) -> dict[str, str]:
    """Map arguments to reasons, from a response that must be `invalid_arguments`."""
    assert (response.status, response.body["type"]) == (400, "invalid_arguments"), response
    assert response.body["message"] == "invalid argument(s)"
    assert all(isinstance(detail["help_message"], str) for detail in response.body["details"])
    return {detail["argument_name"]: detail["reason"] for detail in response.body["details"]}
