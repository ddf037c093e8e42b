"""Documents for tests of pushes and of their content."""

from typing import Any

from tests.oci_client import OCI_INDEX

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


def codes(response: Any) -> list[str]:
    """The codes of an error response."""
    return [item["code"] for item in response.json()["errors"]]


def index_of(*entries: dict[str, Any], media_type: str = OCI_INDEX) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)}
