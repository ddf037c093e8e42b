"""`manage.py bootstrap` on PostgreSQL, as deployments run it: again, at once, without tables."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.services.postgres import running_postgres
from tests.services.stack import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PASSWORD, SECRET = "a long password", "7d444840-9dc0-41d1-b245-5ffdce74fad2"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Settings for an empty database on a server of its own."""
    with running_postgres(tmp_path / "postgres") as postgres:
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")},
            "REGISTRY_STATE_DIR": str(tmp_path / "state"),
            "REGISTRY_DATABASE_URL": postgres.create_database("registry"),
        }


def manage(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def rows(environment: dict[str, str]) -> list[int]:
    tables = ("identity_organization", "identity_user", "identity_apikey")
    with psycopg.connect(environment["REGISTRY_DATABASE_URL"]) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables]
    return [count[0] for count in counts if count]


def test_bootstrap_creates_the_accounts_once_and_prints_no_secret(
    environment: dict[str, str], tmp_path: Path
) -> None:
    # given a database without tables: it says what to do, and so it does where a secret would be lost
    output = tmp_path / "out" / "first.json"
    output.parent.mkdir()
    refused = manage(environment, "bootstrap", "--output", str(output))
    assert refused.returncode == 1
    assert "manage.py migrate" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert manage(environment, "bootstrap").returncode == 2

    # when the migrations and the command run three times at once
    with ThreadPoolExecutor(3) as pool:
        assert {done.returncode for done in pool.map(lambda _: manage(environment, "migrate"), range(3))} == {
            0
        }
        files = [output, tmp_path / "out" / "second.json", tmp_path / "out" / "third.json"]
        done = list(pool.map(lambda file: manage(environment, "bootstrap", "--output", str(file)), files))

    # then one of them has created the accounts, and the others have not
    assert [each.returncode for each in done] == [0, 0, 0], done
    assert rows(environment) == [1, 1, 1]
    (written,) = [file for file in files if file.exists()]
    assert written.stat().st_mode & 0o777 == 0o600
    credentials = json.loads(written.read_text(encoding="utf-8"))
    for each in done:
        assert credentials["secret_key"] not in each.stdout + each.stderr
        assert credentials["admin_password"] not in each.stdout + each.stderr

    # and a later call changes nothing
    before = written.read_bytes()
    again = manage(environment, "bootstrap", "--output", str(written))
    assert (again.returncode, written.read_bytes()) == (0, before)
    assert "nothing was created" in again.stderr


def test_secrets_from_files_are_used_and_written_nowhere(environment: dict[str, str], tmp_path: Path) -> None:
    # given secrets in files
    (tmp_path / "password").write_text(PASSWORD + "\n", encoding="utf-8")
    (tmp_path / "key").write_text(SECRET + "\n", encoding="utf-8")
    given = environment | {
        "REGISTRY_BOOTSTRAP_ORGANIZATION": "acme",
        "REGISTRY_BOOTSTRAP_ADMIN_USERNAME": "root",
        "REGISTRY_BOOTSTRAP_ADMIN_PASSWORD_FILE": str(tmp_path / "password"),
        "REGISTRY_BOOTSTRAP_SECRET_KEY_FILE": str(tmp_path / "key"),
    }
    assert manage(given, "migrate").returncode == 0

    # when a weak password is given, then nothing is created
    weak = {name: value for name, value in given.items() if name != "REGISTRY_BOOTSTRAP_ADMIN_PASSWORD_FILE"}
    refused = manage(weak | {"REGISTRY_BOOTSTRAP_ADMIN_PASSWORD": "12345678"}, "bootstrap")
    assert (refused.returncode, rows(given)) == (1, [0, 0, 0])
    assert "REGISTRY_BOOTSTRAP_ADMIN_PASSWORD" in refused.stderr

    # when both are given, then no output is needed, and the key works
    done = manage(given, "bootstrap")
    assert (done.returncode, done.stdout) == (0, "")
    script = (
        "import django; django.setup()\n"
        "from registry_control.access.selectors import principal_by_secret\n"
        "from django.contrib.auth import authenticate\n"
        f"print(principal_by_secret({SECRET!r}), authenticate(username='root', password={PASSWORD!r}))"
    )
    shell = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=given | {"DJANGO_SETTINGS_MODULE": "registry_control.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "None" not in shell.stdout.rpartition(" ")[2]
    state = tmp_path / "state"
    assert not any(SECRET in path.read_text(errors="replace") for path in state.rglob("*") if path.is_file())
