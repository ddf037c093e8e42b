"""Builds the images that deploy/compose needs, on an engine that can pull none.

The root file system that `make tools` makes (Debian with Python, PostgreSQL, Redis and nginx) is the base of
all of them. deploy/Dockerfile builds the product's image; one image with the programs of the other services
gets the names of their official images (tests/deployment/stand_in).
"""

import re
import shutil
from pathlib import Path
from typing import Final

from tests.services.docker import DockerClient
from tests.services.stack import ROOT
from tests.services.tools import missing, require_tool, tools_folder

_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_STAND_IN: Final = ROOT / "tests" / "deployment" / "stand_in"


def build_images(docker: DockerClient, folder: Path) -> None:
    """Build every image that compose.yaml names. Skips the test if a part of them is missing."""
    root = tools_folder().parent / "images" / "bookworm.tar"
    if not root.exists():
        missing("the base of images")
    docker("import", str(root), "stowage-test-root")
    _build_base(docker, folder / "base")
    _build_stand_ins(docker, folder / "stand-in")
    context = str(ROOT)
    dockerfile = str(ROOT / "deploy" / "Dockerfile")
    # Over the machine's network: the engine's own has no way out.
    docker("build", "--network", "host", "--file", dockerfile, "--tag", _product_image(), context)


def _build_base(docker: DockerClient, context: Path) -> None:
    """The base of all images, with the machine's certificate authorities, for pip."""
    context.mkdir()
    shutil.copyfile(_CERTIFICATES, context / "ca-certificates.crt")
    (context / "Dockerfile").write_text(
        f"FROM stowage-test-root\nCOPY ca-certificates.crt {_CERTIFICATES}\nENV PIP_CERT={_CERTIFICATES}\n"
    )
    docker("build", "--tag", "stowage-test-base", "--tag", _base_image(), str(context))


def _build_stand_ins(docker: DockerClient, context: Path) -> None:
    shutil.copytree(_STAND_IN, context)
    shutil.copyfile(require_tool("minio"), context / "minio")
    (context / "minio").chmod(0o755)
    tags = [part for image in _images_of_others() for part in ("--tag", image)]
    docker("build", *tags, str(context))


def _base_image() -> str:
    (found,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", _text("deploy/Dockerfile"), re.MULTILINE)
    return str(found)


def _product_image() -> str:
    (found,) = re.findall(r"\$\{STOWAGE_IMAGE:-([^}]+)\}", _text("deploy/compose/compose.yaml"))
    return str(found)


def _images_of_others() -> list[str]:
    found: list[str] = re.findall(
        r"\$\{(?!STOWAGE)[A-Z]+_IMAGE:-([^}]+)\}", _text("deploy/compose/compose.yaml")
    )
    return found


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
