"""/livez and /readyz of both planes while what they need is missing, hangs and comes back."""

import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.services.minio import running_minio
from tests.services.ports import free_port
from tests.services.postgres import Postgres, running_postgres
from tests.services.processes import descendants
from tests.services.role import running_role, status_of
from tests.services.stack import ROOT
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 10.0  # a change is seen within two, and tests may share the machine
_READY = {"database": "ok", "migrations": "ok", "secret_key": "ok", "storage": "ok"}


@dataclass(frozen=True)
class Planes:
    """Both planes of one node."""

    environment: dict[str, str]
    folder: Path

    @property
    def addresses(self) -> list[str]:
        return [self.environment["REGISTRY_CONTROL_ADDR"], self.environment["REGISTRY_DATA_ADDR"]]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start both; they answer /livez when this returns."""
        with ExitStack() as roles:
            for role in ("control", "data"):
                log = self.folder / f"{role}.log"
                roles.enter_context(running_role(role, self.environment, log=log))
            wait_until(lambda: all(status_of(address, "/livez") == 200 for address in self.addresses))
            yield

    def migrate(self) -> None:
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=self.environment, check=True
        )

    def are(self, status: int) -> bool:
        return self._all(lambda address: status_of(address, "/readyz") == status)

    def fail(self, check: str) -> bool:
        """Whether both planes name exactly this check as failed, within 10 seconds."""

        def fails(address: str) -> bool:
            response = httpx.get(f"http://{address}/readyz", timeout=10)
            checks = response.json()["checks"]
            failed = [name for name in checks if checks[name] == "failed"]
            return response.status_code == 503 and failed == [check]

        return self._all(fails)

    def _all(self, holds: Callable[[str], bool]) -> bool:
        # At once: a response may take as long as the time-out of a check.
        with ThreadPoolExecutor(2) as pool:
            return all(pool.map(holds, self.addresses))


def make_planes(folder: Path, **settings: str) -> Planes:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")},
        "REGISTRY_STATE_DIR": str(folder / "state"),
        "REGISTRY_CONTROL_ADDR": f"127.0.0.1:{free_port()}",
        "REGISTRY_DATA_ADDR": f"127.0.0.1:{free_port()}",
        "REGISTRY_DATA_WORKERS": "1",
        "REGISTRY_DATABASE_THREADS": "2",
        "REGISTRY_CONTROL_THREADS": "2",
        **settings,
    }
    return Planes(environment, folder)


@dataclass(frozen=True)
class Database:
    """A migrated database on a server that a test may stop, but not kill."""

    url: str
    folder: Path

    @property
    def processes(self) -> list[int]:
        """The main process of the server first."""
        main = int((self.folder / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])
        return [main, *descendants(main)]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Path]]:
    """A server with a migrated database, `template`."""
    folder = tmp_path_factory.mktemp("postgres") / "server"
    with running_postgres(folder) as server:
        make_planes(folder, REGISTRY_DATABASE_URL=server.create_database("template")).migrate()
        yield server, folder


@pytest.fixture
def database(postgres: tuple[Postgres, Path]) -> Database:
    server, folder = postgres
    name = f"registry_{uuid4().hex}"
    return Database(server.create_database(name, template="template"), folder)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def occupy(address: str, path: str, count: int) -> Callable[[], None]:
    """Send requests that wait for the database; the returned function closes them."""
    key = str(uuid4())
    headers = {"X-Auth-Token": key, "Authorization": f"Basic {b64encode(f'x:{key}'.encode()).decode()}"}
    connections = [HTTPConnection(address, timeout=60) for _ in range(count)]
    for connection in connections:
        connection.request("GET", path, headers=headers)

    def close() -> None:
        for connection in connections:
            connection.close()

    return close


def test_missing_migrations_and_a_killed_database_are_reported(tmp_path: Path) -> None:
    with running_postgres(tmp_path / "postgres") as server, ExitStack() as roles:
        # given an empty database: both planes run, and are not ready until it is migrated
        database = Database(server.create_database("registry"), tmp_path / "postgres")
        planes = make_planes(tmp_path, REGISTRY_DATABASE_URL=database.url)
        roles.enter_context(planes.running())
        assert planes.fail("migrations")
        planes.migrate()
        wait_until(lambda: planes.are(200), timeout=SECONDS)
        body = httpx.get(f"http://{planes.addresses[1]}/readyz", headers={"Host": "any host"}).json()
        assert body == {"status": "ok", "checks": _READY}

        # when one migration is missing, then that is reported
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute(
                "DELETE FROM django_migrations WHERE app = 'catalog' AND name = '0001_initial'"
            )
        wait_until(lambda: planes.fail("migrations"), timeout=SECONDS)

        # and when the database is killed, that is
        for pid in database.processes:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: planes.fail("database"), timeout=SECONDS)
        assert all(status_of(address, "/livez") == 200 for address in planes.addresses)


@pytest.mark.parametrize("with_backends", [False, True], ids=["main process", "all processes"])
def test_a_database_that_hangs_makes_both_planes_unready_but_not_dead(
    tmp_path: Path, database: Database, *, with_backends: bool
) -> None:
    # given two planes that are ready
    planes = make_planes(tmp_path, REGISTRY_DATABASE_URL=database.url)
    with planes.running():
        wait_until(lambda: planes.are(200), timeout=SECONDS)

        # when the database hangs, and requests occupy every thread
        processes = database.processes
        with stopped(processes if with_backends else processes[:1]):
            wait_until(lambda: planes.fail("database"), timeout=20)
            close = [occupy(planes.addresses[0], "/registry/v1/regions/fr-par/namespaces", 8)]
            close += [occupy(planes.addresses[1], "/v2/a/b/manifests/c", 8)]
            started = time.monotonic()
            assert all(status_of(address, "/livez") == 200 for address in planes.addresses * 5)
            assert time.monotonic() - started < SECONDS
            assert planes.fail("database")

        # then they are ready again within seconds
        wait_until(lambda: planes.are(200), timeout=SECONDS)
        for each in close:
            each()


@pytest.mark.clients
def test_a_bucket_that_hangs_or_is_gone_makes_both_planes_unready(tmp_path: Path) -> None:
    # given two planes on MinIO, which one of them has created the bucket of
    with running_minio(tmp_path / "minio") as minio:
        planes = make_planes(tmp_path, REGISTRY_STORAGE_URL=minio.url("registry"))
        planes.migrate()
        with planes.running():
            wait_until(lambda: planes.are(200), timeout=SECONDS)

            # when it hangs, then they are not ready; and ready as soon as it goes on
            with stopped([minio.child.pid]):
                wait_until(lambda: planes.fail("storage"), timeout=20)
                assert all(status_of(address, "/livez") == 200 for address in planes.addresses)
            wait_until(lambda: planes.are(200), timeout=SECONDS)

            # and when it is killed and started again
            minio.child.kill()
            wait_until(lambda: planes.fail("storage"), timeout=10)
            with running_minio(tmp_path / "minio", port=minio.port):
                wait_until(lambda: planes.are(200), timeout=SECONDS)


def test_a_storage_folder_that_is_gone_is_not_created_again(tmp_path: Path) -> None:
    planes = make_planes(tmp_path)
    planes.migrate()
    with planes.running():
        wait_until(lambda: planes.are(200), timeout=SECONDS)
        storage = tmp_path / "state" / "storage"
        storage.rename(tmp_path / "elsewhere")
        wait_until(lambda: planes.fail("storage"), timeout=SECONDS)
        assert not storage.exists()
        (tmp_path / "elsewhere").rename(storage)
        wait_until(lambda: planes.are(200), timeout=SECONDS)


def test_a_flood_of_probes_causes_one_query_a_second(tmp_path: Path, database: Database) -> None:
    # given planes that are ready, with limits that the flood exceeds
    planes = make_planes(
        tmp_path,
        REGISTRY_DATABASE_URL=database.url,
        REGISTRY_RATE_LIMIT_ANONYMOUS="1",
        REGISTRY_CONNECTIONS_PER_ADDRESS="2",
    )
    with planes.running(), psycopg.connect(database.url, autocommit=True) as observer:
        wait_until(lambda: planes.are(200), timeout=SECONDS)

        # when 8 threads probe both 15 times each
        sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
        before, started = observer.execute(sessions).fetchone(), time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            probed = list(pool.map(lambda address: status_of(address, "/readyz"), planes.addresses * 8 * 15))

        # then all were answered, from one new connection per second and process
        assert set(probed) == {200}
        after = observer.execute(sessions).fetchone()
        assert before is not None
        assert after is not None
        assert after[0] - before[0] <= 2 * (time.monotonic() - started + 2)
    lines = "".join((tmp_path / f"{role}.log").read_text(encoding="utf-8") for role in ("control", "data"))
    assert "/readyz" not in lines  # not in the access log


def test_a_worker_is_probed_by_its_own_processes(tmp_path: Path) -> None:
    # given a worker that is connected
    planes = make_planes(tmp_path)
    planes.migrate()
    with running_role("worker", planes.environment, log=tmp_path / "worker.log"):
        wait_until(lambda: probe(planes, "worker") == (0, "worker: ok\n"), timeout=20)

        # when one of its processes stops
        pid = int((tmp_path / "state" / "run" / "worker-bulk.pid").read_text(encoding="ascii"))
        with stopped([pid]):
            assert probe(planes, "worker") == (1, "worker: the process for bulk has ended or is stopped\n")
        assert probe(planes, "worker")[0] == 0
    assert probe(planes, "worker")[0] == 1
    assert probe(planes, "data")[0] == 1


def probe(planes: Planes, role: str) -> tuple[int, str]:
    """Exit status and output of `manage.py probe`."""
    command = [sys.executable, "manage.py", "probe", role]
    done = subprocess.run(
        command, cwd=ROOT, env=planes.environment, stdout=subprocess.PIPE, text=True, timeout=15, check=False
    )
    return done.returncode, done.stdout
