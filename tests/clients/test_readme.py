"""The commands of the README, pasted into a shell beside a running registry and a real docker engine."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.services.docker import DockerEngine
from tests.services.ports import free_port
from tests.services.stack import ROOT, Stack

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(300)]

_README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
_REFUSED: Final = "pull access denied"


def commands(heading: str) -> str:
    """The shell commands below a heading."""
    found = re.search(rf"^## {heading}$.*?^```sh\n(.*?)^```", _README, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the README has no shell commands below {heading!r}"
    return found[1]


def test_the_tour_and_the_mirror(docker: DockerEngine, tmp_path: Path) -> None:
    # given a registry as `make run` starts it, with other ports and folders than the README's
    with Stack(tmp_path / "product", environment={"REGISTRY_RECYCLE_BIN": "604800"}) as stack:
        script = commands("A tour in five minutes") + commands("A mirror in two minutes")
        for printed, used in {
            "/tmp/": f"{tmp_path}/",  # first: the other values contain it
            "${2:-var}": f"${{2:-{stack.state_dir}}}",
            " var/": f" {stack.state_dir}/",
            ".venv/bin/python": sys.executable,
            "127.0.0.1:5000": stack.data_address,
            "127.0.0.1:8000": stack.control_address,
            "127.0.0.1:5001": f"127.0.0.1:{free_port()}",
            "127.0.0.1:8001": f"127.0.0.1:{free_port()}",
        }.items():
            assert printed in script
            script = script.replace(printed, used)

        # when everything is pasted
        environment = {**stack.environment, **docker.client().environment()}
        done = subprocess.run(
            ["bash", "-uc", script],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )

    # then only the pull from the private namespace was refused, and the bytes were deleted
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Login Succeeded") == 3, done.stdout
    assert done.stdout.count(_REFUSED) == done.stdout.count("Error") == 1, done.stdout
    before, after = map(float, re.findall(r"^([0-9.]+)M\t", done.stdout, re.MULTILINE))
    assert before > 28
    assert after < before - 28
    assert "removed 2 blobs" in done.stdout

    # and the mirror has the image
    assert '"status":"succeeded"' in done.stdout
    assert re.search(r"Downloaded newer image for \S+/copies/hello:1", done.stdout), done.stdout
