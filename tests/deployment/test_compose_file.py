"""What deploy/compose/compose.yaml and deploy/Dockerfile promise about every container."""

import re
from typing import Any

import pytest
import yaml

from registry_control.settings.environment import Environment
from tests.services.stack import ROOT

FOLDER = ROOT / "deploy" / "compose"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
TEXT = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
JOBS = {"prepare", "migrate", "bootstrap"}

every_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_the_installation_has_two_nodes_of_each_kind_that_needs_them() -> None:
    assert set(SERVICES) - JOBS == {
        "control",
        "data-1",
        "data-2",
        "minio",
        "nginx",
        "postgres",
        "redis",
        "worker-1",
        "worker-2",
    }


@every_service
def test_containers_are_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert not service.get("privileged")
    if name == "prepare":  # gives the volumes to the users of the other containers
        assert service["user"] == "0:0"
        assert service["network_mode"] == "none"
    else:
        assert "cap_add" not in service
        assert service.get("user", "10001:10001") != "0:0"


@every_service
def test_images_have_an_exact_version(name: str) -> None:
    default = re.fullmatch(r"\$\{[A-Z_]+:-(.+)\}", SERVICES[name]["image"])
    assert default
    assert re.search(r":(?:RELEASE\.\d{4}-\d\d-\d\dT[\d-]+Z|\d+(?:\.\d+){1,2}(?:-bookworm)?)$", default[1])


@every_service
def test_services_have_a_health_check_and_jobs_have_none(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check == {"disable": True} if name in JOBS else "test" in check


@every_service
def test_no_secret_is_in_the_file_or_in_an_environment(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|_URL", variable):
            assert variable.endswith("_FILE"), variable
            assert str(value).startswith("/run/secrets/")


def test_only_nginx_publishes_ports_and_only_it_and_the_outgoing_calls_leave_the_machine() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]
    inside = {name for name, network in COMPOSE["networks"].items() if (network or {}).get("internal")}
    outside = {name for name, service in SERVICES.items() if set(service.get("networks", ())) - inside}
    assert outside == {"nginx", "control", "worker-1", "worker-2"}


def test_each_variable_is_documented_with_the_value_that_applies_without_it() -> None:
    example = (FOLDER / ".env.example").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^(STOWAGE_[A-Z_]+)=(.*)$", example, re.MULTILINE))
    used = dict(re.findall(r"\$\{(STOWAGE_[A-Z_]+):-([^}]*)\}", TEXT))
    images = {"STOWAGE_IMAGE"}
    assert documented == {name: value for name, value in used.items() if name not in images}


def test_settings_that_the_file_gives_are_accepted() -> None:
    given = {
        name: re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", str(value))
        for name, value in SERVICES["data-1"]["environment"].items()
        if not name.endswith("_FILE")
    }
    settings = Environment.load({**given, "REGISTRY_SECRET_KEY": "k" * 40})
    assert settings.public_origin == "https://localhost:5443"


def test_the_image_has_a_pinned_base_and_no_user_of_its_own() -> None:
    assert re.search(r"^ARG BASE_IMAGE=python:3\.11\.\d+-slim-bookworm$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE_IMAGE}"}
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", DOCKERFILE, re.MULTILINE)
    assert "--require-hashes" in DOCKERFILE


def test_the_build_context_has_the_code_alone() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for rule in rules[1:]:
        assert not rule.startswith("!") or (ROOT / rule[1:]).exists(), rule
