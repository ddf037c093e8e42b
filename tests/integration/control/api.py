"""Calls of the management API inside this process, through all of Django."""

import json
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from django.test import Client

from tests.factories import TestKey

REGION: Final = "/registry/v1/regions/fr-par"
NOBODYS: Final = "0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29"
"""The id of nothing."""


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Api:
    """The API as the holder of a key sees it, or nobody."""

    key: TestKey | None = None
    # What a view raises is answered as in production, and not raised in the test.
    _client: Client = field(default_factory=lambda: Client(raise_request_exception=False))

    def get(self, path: str, **query: object) -> Answer:
        return self.call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, **body: object) -> Answer:
        return self.call("POST", path, body)

    def patch(self, path: str, **body: object) -> Answer:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> Answer:
        return self.call("DELETE", path)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        **headers: str,
    ) -> Answer:
        """Send bytes and text as they are, anything else as JSON. Paths begin after the region."""
        own = {"X-Auth-Token": self.key.secret} if self.key else {}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes | str) else b"" if body is None else json.dumps(body)
        whole = REGION + path if path.startswith(("/namespaces", "/images", "/tags")) else path
        response = self._client.generic(method, whole, raw, content_type, headers={**own, **sent})
        parsed = json.loads(response.content) if response.content else None
        return Answer(response.status_code, dict(response.headers), parsed)


def details(answer: Answer) -> dict[str, str]:
    """Argument to reason, of an answer that must be `invalid_arguments`."""
    assert (answer.status, answer.body["type"]) == (400, "invalid_arguments"), answer
    assert answer.body["message"] == "invalid argument(s)"
    assert all(isinstance(detail["help_message"], str) for detail in answer.body["details"])
    return {detail["argument_name"]: detail["reason"] for detail in answer.body["details"]}
