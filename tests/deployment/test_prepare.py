"""deploy/compose/prepare.py generates secrets and a certificate, and changes nothing that exists."""

import importlib.util
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from cryptography import x509

from tests.services.certificates import make_certificates
from tests.services.stack import ROOT
from tests.services.tools import missing

pytestmark = pytest.mark.clients

NAMES = {
    "STOWAGE_REGISTRY": "localhost:5443",
    "STOWAGE_REGISTRY_NAME": "registry.localhost",
    "STOWAGE_CONTROL_NAME": "localhost",
}


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with folders of the test instead of volumes."""
    if os.geteuid() != 0:
        missing("root, because files get the owners that read them")
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "deploy" / "compose" / "prepare.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for folder in ("stowage", "bootstrap", "postgres", "redis", "minio", "nginx"):
        (tmp_path / "secrets" / folder).mkdir(parents=True)
    for name, folder in (("SECRETS", "secrets"), ("SUPPLIED", "tls"), ("MINIO_DATA", "data")):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.setattr(module, name, tmp_path / folder)
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)
    return module


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def certificate(prepare: ModuleType) -> x509.Certificate:
    return x509.load_pem_x509_certificate((prepare.SECRETS / "nginx" / "tls.crt").read_bytes())


def test_every_file_belongs_to_its_reader_alone(prepare: ModuleType) -> None:
    prepare.main()
    owners = {
        "stowage": 10001,
        "bootstrap": 10001,
        "postgres": 999,
        "redis": 999,
        "minio": 1000,
        "nginx": 101,
    }
    for folder, owner in owners.items():
        files = list((prepare.SECRETS / folder).iterdir())
        assert files
        for path in files:
            status = path.stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (owner, owner, 0o400), path
    assert prepare.MINIO_DATA.stat().st_uid == 1000


def test_a_second_run_changes_nothing(prepare: ModuleType) -> None:
    prepare.main()
    before = contents(prepare.SECRETS)
    prepare.main()
    assert contents(prepare.SECRETS) == before
    assert not [name for name in before if name.endswith(".draft")]


def test_a_run_that_was_killed_is_continued(prepare: ModuleType) -> None:
    # given a run that ended after any number of files, in the middle of the next one
    prepare.main()
    complete = contents(prepare.SECRETS)
    derived = ("stowage/database_url", "stowage/redis_url", "stowage/storage_url", "redis/redis.conf")
    for name in derived:
        path = prepare.SECRETS / name
        path.unlink()
        path.with_suffix(".draft").write_text("half a")
        # then the next one creates the rest from the secrets that exist
        prepare.main()
        assert contents(prepare.SECRETS) == complete


def test_a_deleted_password_is_generated_again_with_what_contains_it(prepare: ModuleType) -> None:
    prepare.main()
    before = contents(prepare.SECRETS)
    (prepare.SECRETS / "redis" / "password").unlink()
    prepare.main()
    after = contents(prepare.SECRETS)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"redis/password", "redis/redis.conf", "stowage/redis_url"}


def test_the_certificate_is_made_for_the_names_and_again_when_they_change(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.main()
    found = certificate(prepare)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "registry.localhost"]
    monkeypatch.setenv("STOWAGE_REGISTRY_NAME", "registry.example.com")
    prepare.main()
    assert certificate(prepare) != found


def test_the_certificate_is_made_again_before_it_ends(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_VALIDITY", timedelta(days=29))
    prepare.main()
    first = certificate(prepare)
    assert first.not_valid_after_utc < datetime.now(UTC) + timedelta(days=30)
    prepare.main()
    assert certificate(prepare) != first


def test_a_certificate_of_the_operator_is_used(prepare: ModuleType, tmp_path: Path) -> None:
    prepare.main()
    supplied = make_certificates(tmp_path / "authority")
    for name, source in (("tls.crt", supplied.server), ("tls.key", supplied.server_key)):
        (prepare.SUPPLIED / name).write_bytes(source.read_bytes())
    prepare.main()
    assert (prepare.SECRETS / "nginx" / "tls.crt").read_bytes() == supplied.server.read_bytes()
    # and without it a new one is made
    for path in prepare.SUPPLIED.iterdir():
        path.unlink()
    prepare.main()
    assert (prepare.SECRETS / "nginx" / "tls.crt").read_bytes() != supplied.server.read_bytes()


@pytest.mark.parametrize("files", [["tls.crt"], ["tls.key"], ["tls.crt", "tls.key"]], ids=str)
def test_half_a_certificate_or_a_wrong_key_stops_the_start(
    prepare: ModuleType, tmp_path: Path, files: list[str]
) -> None:
    certificates = [make_certificates(tmp_path / name) for name in ("one", "two")]
    sources = {"tls.crt": certificates[0].server, "tls.key": certificates[1].server_key}
    for name in files:
        (prepare.SUPPLIED / name).write_bytes(sources[name].read_bytes())
    with pytest.raises(SystemExit, match=r"^prepare: tls/"):
        prepare.main()
