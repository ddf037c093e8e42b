"""The served API description is that of docs/openapi.yaml, and its pages work without the internet."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from registry_control.rest import api

WRITTEN = Path(__file__).parents[3] / "docs" / "openapi.yaml"
OPERATIONS = {
    "ListNamespaces",
    "CreateNamespace",
    "GetNamespace",
    "UpdateNamespace",
    "DeleteNamespace",
    "ListImages",
    "GetImage",
    "UpdateImage",
    "DeleteImage",
    "ListTags",
    "GetTag",
    "DeleteTag",
    "ListManifests",
    "GetManifest",
    "DeleteManifest",
    *(f"{verb}ReplicationTarget" for verb in ("Create", "Get", "Update", "Delete", "Check")),
    *(f"{verb}ReplicationRule" for verb in ("Create", "Get", "Update", "Delete", "Run")),
    *(f"{verb}ReplicationExecution" for verb in ("Get", "Cancel")),
    *(f"ListReplication{kind}" for kind in ("Targets", "Rules", "Executions")),
    *("GetGarbageQueue", "ListGarbageRuns", "CreateGarbageRun", "GetGarbageRun", "ExplainGarbage"),
    *("ReleaseGarbageBreaker", "GetScrub", "GetGarbageReport"),
    *("GetRetention", "SetRetention", "PreviewRetention"),
    *("ListTagHistory", "GetUsage"),
    *("ListRecycleBin", "GetRecycleBinEntry", "PurgeRecycleBinEntry", "RestoreRecycleBinEntry"),
}
WITHOUT_404 = {
    *("ListNamespaces", "CreateNamespace", "ListImages", "CreateReplicationTarget"),
    *(f"ListReplication{kind}" for kind in ("Targets", "Rules", "Executions")),
    *("GetGarbageQueue", "ListGarbageRuns", "CreateGarbageRun", "ExplainGarbage"),
    *("ListRecycleBin", "GetUsage", "ReleaseGarbageBreaker", "GetScrub", "GetGarbageReport"),
}
WITH_BODY = ("Create", "Update", "Set", "Preview", "Restore")


@pytest.fixture(scope="module")
def operations() -> dict[str, dict[str, Any]]:
    paths = yaml.safe_load(WRITTEN.read_text())["paths"]
    return {found["operationId"]: found for methods in paths.values() for found in methods.values()}


def test_the_committed_description_is_the_generated_one(tmp_path: Path) -> None:
    generated = tmp_path / "openapi.yaml"
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(generated))
    assert generated.read_text() == WRITTEN.read_text(), "run: make openapi"


def test_it_describes_exactly_these_operations(operations: dict[str, dict[str, Any]]) -> None:
    assert operations.keys() == OPERATIONS


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_an_operation_describes_its_security_parameters_and_responses(
    operations: dict[str, dict[str, Any]], operation: str
) -> None:
    described = operations[operation]
    assert described["security"] == [{"SecretKey": []}]
    assert described["description"]
    assert {"200", "401", "503"} <= described["responses"].keys()
    assert ("404" in described["responses"]) == (operation not in WITHOUT_404)
    assert ("requestBody" in described) == operation.startswith(WITH_BODY)


def test_lists_describe_their_parameters(operations: dict[str, dict[str, Any]]) -> None:
    def of(operation: str) -> set[str]:
        return {found["name"] for found in operations[operation]["parameters"] if found["in"] == "query"}

    paging = {"page", "page_size", "order_by", "name"}
    assert of("ListNamespaces") == paging | {"project_id", "organization_id"}
    assert of("ListImages") == paging | {"project_id", "organization_id", "namespace_id"}
    assert of("ListTags") == paging
    assert of("DeleteTag") == {"force"}


@pytest.mark.django_db
def test_the_served_description_needs_no_key() -> None:
    response = Client().get("/api/schema/", headers={"Accept": "application/json"})
    assert response.status_code == 200
    assert response.json()["paths"].keys() == yaml.safe_load(WRITTEN.read_text())["paths"].keys()


@pytest.mark.django_db
def test_the_served_description_does_not_depend_on_the_host_of_the_first_request() -> None:
    api.document.cache_clear()
    for host in ("localhost", "127.0.0.1"):
        response = Client(headers={"Host": host}).get("/api/schema/?version=v7&lang=xx")
        assert response.content.decode() == WRITTEN.read_text()
        assert response.headers["Content-Type"] == "application/vnd.oai.openapi; charset=utf-8"
        assert response.headers["Content-Disposition"] == 'inline; filename="Stowage registry API.yaml"'


@pytest.mark.django_db
def test_the_description_is_generated_once_for_each_format(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a process without any earlier request, and a counter of generated documents
    made: list[object] = []
    make: Any = SchemaGenerator.get_schema

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(None)
        return make(*arguments, **options)

    monkeypatch.setattr(SchemaGenerator, "get_schema", counted)
    api.document.cache_clear()

    # when it is requested with many variants of Accept
    browser = Client()
    forms = ("application/json", "application/yaml", "application/vnd.oai.openapi", "*/*")
    for asked in (f"{form}; indent={number}" for number in range(3) for form in forms):
        response = browser.get(f"/api/schema/?version={len(asked)}", headers={"Accept": asked})
        assert response.status_code == 200
        assert response.headers["Content-Type"].split(";")[0] in asked.replace("*/*", forms[2])

    # then one document was generated for each format
    assert len(made) == 3


@pytest.mark.django_db
def test_the_pages_load_files_of_this_server_only() -> None:
    # given the page as a browser loads it
    browser = Client()
    page = browser.get("/api/docs/", headers={"Accept": "text/html"})
    assert page.status_code == 200
    html = page.content.decode()

    # when the files that it references are requested, then all are on this server and exist
    parts = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(parts) >= 4
    for part in parts:
        assert part.startswith(("/static/", "/api/docs/"))
        response = browser.get(part)
        assert response.status_code == 200
        assert b"".join(response.streaming_content if response.streaming else [response.content])  # type: ignore[attr-defined]
    assert "://" not in html
