"""The Helm chart is valid, renders with every file of ci/, and meets the restricted Pod Security standard."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.services.stack import ROOT
from tests.services.tools import require_tool

pytestmark = pytest.mark.clients

CHART = ROOT / "deploy" / "helm" / "stowage"
# The oldest and the newest release that the chart is meant for, and some between.
KUBERNETES = ("1.27.0", "1.29.0", "1.31.0", "1.33.0", "1.35.0")
VALUES = [None, *sorted(path.name for path in (CHART / "ci").glob("*.yaml"))]
every_values = pytest.mark.parametrize("values", VALUES, ids=str)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(require_tool("helm")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def values_arguments(values: str | None) -> list[str]:
    return ["--values", str(CHART / "ci" / values)] if values else []


def render(values: str | None) -> list[dict[str, Any]]:
    done = helm("template", "release", str(CHART), *values_arguments(values))
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for found in objects:
        if found["kind"] in ("Deployment", "Job"):
            yield found["spec"]["template"]["spec"]


@every_values
def test_helm_finds_no_mistake(values: str | None) -> None:
    done = helm("lint", "--strict", str(CHART), *values_arguments(values))
    assert done.returncode == 0, done.stdout + done.stderr


@every_values
def test_kubernetes_accepts_every_object(values: str | None) -> None:
    objects = render(values)
    for version in KUBERNETES:
        for found in objects:
            kubernetes_validate.validate(found, version, strict=True)
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(names) == len(set(names))


def test_the_default_installs_every_component_and_the_jobs() -> None:
    objects = render(None)
    names = {(found["kind"], found["metadata"]["name"]) for found in objects}
    assert names >= {
        ("Deployment", "release-stowage-control"),
        ("Deployment", "release-stowage-data"),
        ("Deployment", "release-stowage-worker"),
        ("Job", "release-stowage-migrate"),
        ("Job", "release-stowage-bootstrap"),
        ("Service", "release-stowage-control"),
        ("Service", "release-stowage-data"),
        ("Ingress", "release-stowage"),
        ("ServiceAccount", "release-stowage"),
        ("ConfigMap", "release-stowage"),
    }
    # and no secret is one of its objects: they exist before, under names that the values give
    assert "Secret" not in {kind for kind, _ in names}


def test_autoscaling_leaves_the_number_of_pods_alone() -> None:
    objects = {(found["kind"], found["metadata"]["name"]): found for found in render("autoscaling.yaml")}
    assert "replicas" not in objects["Deployment", "release-stowage-data"]["spec"]
    scaler = objects["HorizontalPodAutoscaler", "release-stowage-data"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 20)


@every_values
def test_pods_meet_the_restricted_pod_security_standard(values: str | None) -> None:
    for pod in pods(render(values)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {
            "secret",
            "emptyDir",
        }
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert re.fullmatch(r"[a-z0-9./-]+:[0-9]+\.[0-9]+\.[0-9]+", container["image"])
            assert {"limits", "requests"} <= set(container["resources"])


@every_values
def test_the_selectors_of_each_object_find_pods(values: str | None) -> None:
    objects = render(values)
    templates = [found["spec"]["template"] for found in objects if found["kind"] == "Deployment"]
    labels = [template["metadata"]["labels"] for template in templates]
    for found in objects:
        if found["kind"] in ("Service", "PodDisruptionBudget"):
            selector = found["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert sum(selector.items() <= those.items() for those in labels) == 1, found["metadata"]["name"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("image.tag=latest", "/image/tag"),
        ("hosts.registry=https://registry.example.com", "/hosts/registry"),
        ("data.replica=3", "replica"),
        ("settings.REGISTRY_DATABASE_URL=postgres://user:password@host/name", "REGISTRY_DATABASE_URL"),
        ("settings.REGION=fr-par", "REGION"),
    ],
)
def test_wrong_values_are_refused(wrong: str, message: str) -> None:
    done = helm("template", "release", str(CHART), "--set", wrong)
    assert done.returncode != 0
    assert message in done.stderr


def test_the_chart_installs_this_release() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["appVersion"]}"' in project
    assert f"ARG VERSION={chart['appVersion']}" in (ROOT / "deploy" / "Dockerfile").read_text(
        encoding="utf-8"
    )


def test_the_package_has_no_files_of_the_tests(tmp_path: Path) -> None:
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        ["tar", "-tf", *map(str, tmp_path.glob("*.tgz"))], capture_output=True, text=True, check=True
    )
    assert not [name for name in listed.stdout.split() if "/ci/" in name]
