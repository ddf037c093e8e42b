"""The configurations of nginx in deploy/ are valid for nginx itself."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.services.certificates import make_certificates
from tests.services.stack import ROOT
from tests.services.tools import require_tool

pytestmark = pytest.mark.clients

FOLDER = ROOT / "deploy" / "nginx"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.conf")))
def test_nginx_accepts_the_configuration_without_a_warning(name: str, tmp_path: Path) -> None:
    nginx = require_tool("nginx")
    # given the file with a certificate, and with paths that this user may write to
    certificates = make_certificates(tmp_path / "certificates")
    text = (FOLDER / name).read_text(encoding="utf-8")
    text = re.sub(r" /(?:var/log/nginx|run|tmp)/", f" {tmp_path}/", text)
    text = re.sub(r"(ssl_certificate_key) \S+;", rf"\1 {certificates.server_key};", text)
    text = re.sub(r"(ssl_certificate) \S+;", rf"\1 {certificates.server};", text)
    text = re.sub(r"^user .*;$", "", text, flags=re.MULTILINE)
    text = text.replace("${STOWAGE_REGISTRY_NAME}", "registry.example.com")
    text = text.replace("${STOWAGE_CONTROL_NAME}", "console.example.com")
    text = text.replace("${STOWAGE_HTTPS_PORT}", "443")
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(text, encoding="utf-8")
    # then nginx accepts it
    command = [str(nginx), "-t", "-q", "-c", str(configuration), "-p", str(tmp_path), "-e", "stderr"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
