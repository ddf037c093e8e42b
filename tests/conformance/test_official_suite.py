"""The official conformance suite of the OCI distribution specification, unchanged.

It ends with 0 when its own configuration is wrong, so its report is read instead of its exit code.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.clients.programs import Program
from tests.services.minio import S3Server
from tests.services.stack import Stack

pytestmark = pytest.mark.clients

# Checks that a run must have made at least; a suite that could not reach us would make fewer.
LEAST = {"1.1": 600, "dev": 700}


@pytest.mark.oci(164, 190)
@pytest.mark.parametrize(("version", "challenge"), [("1.1", "bearer"), ("dev", "bearer"), ("dev", "basic")])
def test_nothing_fails_on_a_disk_and_what_the_version_has_is_not_skipped(
    version: str, challenge: str, make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    _run(version, challenge, make_stack(REGISTRY_CHALLENGE=challenge).start(), tmp_path)


@pytest.mark.parametrize(("version", "redirects"), [("1.1", True), ("dev", False)])
def test_nothing_fails_on_minio_and_what_the_version_has_is_not_skipped(
    version: str, minio: S3Server, make_stack: Callable[..., Stack], tmp_path: Path, *, redirects: bool
) -> None:
    url = minio.redirecting_url() if redirects else minio.url()
    _run(version, "bearer", make_stack(REGISTRY_STORAGE_URL=url).start(), tmp_path)


def _run(version: str, challenge: str, stack: Stack, folder: Path) -> None:
    credentials = stack.credentials
    answer = httpx.get(f"http://{credentials.registry_host}/v2/")
    assert answer.headers["www-authenticate"].lower().startswith(f"{challenge} ")
    httpx.post(
        f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces",
        headers={"X-Auth-Token": credentials.secret_key},
        json={"name": "conformance"},
    ).raise_for_status()
    suite = Program("conformance", folder / "home")
    suite.environment |= {
        "OCI_REGISTRY": credentials.registry_host,
        "OCI_TLS": "disabled",
        "OCI_REPO1": "conformance/one",
        "OCI_REPO2": "conformance/two",
        "OCI_USERNAME": "anyone",
        "OCI_PASSWORD": credentials.secret_key,
        "OCI_VERSION": version,
        "OCI_RESULTS_DIR": str(folder / "results"),
    }
    done = suite(check=False)
    outcomes, troubles = _report(
        folder / "results" / "junit.xml", lambda case: _may_skip(case, version=version, challenge=challenge)
    )
    assert not troubles, "\n".join(troubles) + done.stderr[-3000:]
    assert outcomes["passed"] >= LEAST[version], outcomes


def _may_skip(case: str, *, version: str, challenge: str) -> bool:
    """Whether the suite may skip a case.

    In 1.1 it skips what came later, such as cancelling an upload. With tokens it skips mounts that are
    answered 202, because it asks for no token with `pull` on the source (ADR 10); with Basic it makes them.
    """
    return version != "dev" or (challenge == "bearer" and "blobs/mount" in case)


def _report(path: Path, may_skip: Callable[[str], bool]) -> tuple[Counter[str], list[str]]:
    cases = [
        (case.get("status", ""), case.get("name", "")) for case in ET.parse(path).getroot().iter("testcase")
    ]
    outcomes = Counter(status for status, _ in cases)
    troubles = [
        f"{status}: {name}"
        for status, name in cases
        if status != "passed" and not (status == "skipped" and may_skip(name))
    ]
    return outcomes, troubles
