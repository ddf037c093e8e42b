"""Environment variables: parsing, defaults, and errors for invalid values."""

from pathlib import Path

import pytest

from registry_control.settings.environment import Address, ConfigurationError, Environment

PASSWORD = "hunter2-hunter2"


def load(state_dir: Path, **variables: str) -> Environment:
    return Environment.load({"REGISTRY_STATE_DIR": str(state_dir), **variables})


def error_of(state_dir: Path, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(state_dir, **variables)
    return str(caught.value)


def test_every_variable_has_a_default(tmp_path: Path) -> None:
    environment = load(tmp_path)
    assert environment.control_addr == Address("127.0.0.1", 8000)
    assert environment.data_addr == Address("127.0.0.1", 5000)
    assert environment.public_host == "127.0.0.1:5000"
    assert environment.public_scheme == "http"
    assert environment.region == "fr-par"
    assert environment.redis_url is None
    assert environment.database_url == f"sqlite:///{tmp_path}/registry.sqlite3"
    assert environment.storage_url == f"file://{tmp_path}/storage"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    environment = load(tmp_path, REGISTRY_REGION="", REGISTRY_REDIS_URL="", REGISTRY_SECRET_KEY="")
    assert environment.region == "fr-par"
    assert environment.redis_url is None
    assert environment.secret_key


def test_the_public_host_defaults_to_the_data_address(tmp_path: Path) -> None:
    assert load(tmp_path, REGISTRY_DATA_ADDR="10.0.0.7:5443").public_host == "10.0.0.7:5443"


@pytest.mark.parametrize("name", ["GC_GRACE", "LEASE", "RECYCLE_BIN", "SCRUB_PERIOD", "RECONCILE_PERIOD"])
def test_a_period_is_a_century_at_most(tmp_path: Path, name: str) -> None:
    most = 100 * 365 * 86_400
    assert getattr(load(tmp_path, **{f"REGISTRY_{name}": str(most)}), name.lower()) == most
    for value in (str(most + 1), "9" * 5000, "10000000000"):
        with pytest.raises(ConfigurationError, match=f"REGISTRY_{name} is .* to {most} "):
            load(tmp_path, **{f"REGISTRY_{name}": value})


def test_an_ipv6_address_is_written_in_brackets(tmp_path: Path) -> None:
    address = load(tmp_path, REGISTRY_DATA_ADDR="[::1]:5000").data_addr
    assert address == Address("::1", 5000)
    assert str(address) == "[::1]:5000"


def test_a_relative_state_folder_is_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Environment.load({"REGISTRY_STATE_DIR": "here"}).state_dir == tmp_path / "here"


def test_a_state_folder_may_have_any_name(tmp_path: Path) -> None:
    # given a folder whose name contains reserved characters of URLs
    environment = load(tmp_path / "100%20 #1?")

    # then the default URLs contain its name percent-encoded
    assert environment.database_url == f"sqlite:///{tmp_path}/100%2520%20%231%3F/registry.sqlite3"
    assert environment.storage_url == f"file://{tmp_path}/100%2520%20%231%3F/storage"


def test_the_secret_key_is_generated_once_and_is_private(tmp_path: Path) -> None:
    # given a first start
    first = load(tmp_path / "state").secret_key

    # when there is a second one
    second = load(tmp_path / "state").secret_key

    # then the key is the same, long, and only its owner can read it
    assert first == second
    assert len(first) >= 50
    assert (tmp_path / "state" / "secret_key").stat().st_mode & 0o777 == 0o600


def test_the_process_that_generates_the_secret_key_is_distinguished(tmp_path: Path) -> None:
    assert load(tmp_path).generated_key_file == tmp_path / "secret_key"
    assert load(tmp_path).generated_key_file is None
    assert load(tmp_path).key_file == tmp_path / "secret_key"
    assert load(tmp_path / "other", REGISTRY_SECRET_KEY="k" * 32).generated_key_file is None
    assert load(tmp_path / "other", REGISTRY_SECRET_KEY="k" * 32).key_file is None


def test_a_configured_secret_key_is_not_written_to_a_file(tmp_path: Path) -> None:
    assert load(tmp_path, REGISTRY_SECRET_KEY="k" * 32).secret_key == "k" * 32
    assert not (tmp_path / "secret_key").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "a key from a file, of at least 32 characters"),
        ("DATABASE_URL", f"postgresql://stowage:{PASSWORD}@db.example:5432/stowage"),
        ("REDIS_URL", f"redis://:{PASSWORD}@redis.example:6379/0"),
    ],
)
def test_a_secret_may_come_from_a_file(tmp_path: Path, name: str, value: str) -> None:
    # given a file with a final newline, as secret managers write it
    file = tmp_path / "secret"
    file.write_text(f"{value}\n", encoding="utf-8")
    environment = load(tmp_path, **{f"REGISTRY_{name}_FILE": str(file)})
    assert getattr(environment, name.lower()) == value


def test_a_variable_and_its_file_cannot_both_be_set(tmp_path: Path) -> None:
    message = error_of(tmp_path, REGISTRY_SECRET_KEY=PASSWORD, REGISTRY_SECRET_KEY_FILE="/run/secrets/key")
    assert message == "REGISTRY_SECRET_KEY and REGISTRY_SECRET_KEY_FILE are both set: keep one of them"


@pytest.mark.parametrize("key", ["x", "k" * 31])
def test_a_short_secret_key_is_rejected_and_not_in_the_error(tmp_path: Path, key: str) -> None:
    (tmp_path / "key").write_text(f"{key}\n", encoding="utf-8")
    for variables in ({"REGISTRY_SECRET_KEY": key}, {"REGISTRY_SECRET_KEY_FILE": str(tmp_path / "key")}):
        message = error_of(tmp_path, **variables)
        assert message == (
            f"REGISTRY_SECRET_KEY has {len(key)} characters, but must have at least 32, chosen at random:"
            " openssl rand -base64 48"
        )


def test_allowed_hosts_are_names_without_ports(tmp_path: Path) -> None:
    environment = load(tmp_path, REGISTRY_ALLOWED_HOSTS="a.example, .b.example,10.0.0.7 [fe80::1],*")
    assert environment.allowed_hosts == ("a.example", ".b.example", "10.0.0.7", "[fe80::1]", "*")


@pytest.mark.parametrize(
    "value", ["name:8443", "a.example,b.example:443", "[::1]:8443", "https://a.example", "fe80::1", "a/b"]
)
def test_allowed_hosts_that_can_never_match_are_rejected(tmp_path: Path, value: str) -> None:
    message = error_of(tmp_path, REGISTRY_ALLOWED_HOSTS=value)
    assert message.startswith("REGISTRY_ALLOWED_HOSTS is ")
    assert "host names without ports" in message


def test_the_error_for_an_unreadable_file_contains_its_path(tmp_path: Path) -> None:
    message = error_of(tmp_path, REGISTRY_SECRET_KEY_FILE=str(tmp_path / "missing"))
    assert message.startswith("REGISTRY_SECRET_KEY_FILE: cannot read ")
    assert str(tmp_path / "missing") in message


def test_an_empty_secret_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    message = error_of(tmp_path, REGISTRY_SECRET_KEY_FILE=str(tmp_path / "empty"))
    assert message == f"REGISTRY_SECRET_KEY_FILE: {tmp_path}/empty is empty"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATA_ADDR", "5000"),
        ("DATA_ADDR", ":5000"),
        ("DATA_ADDR", "127.0.0.1:"),
        ("DATA_ADDR", "127.0.0.1:0"),
        ("DATA_ADDR", "127.0.0.1:65536"),
        ("DATA_ADDR", "127.0.0.1:\N{ARABIC-INDIC DIGIT FIVE}"),
        ("DATA_ADDR", "[::1:5000"),
        ("DATA_ADDR", "::1:5000"),
        ("CONTROL_ADDR", "http://127.0.0.1:8000"),
        ("CONTROL_ADDR", "127.0.0.1:http"),
        ("PUBLIC_HOST", "https://registry.example"),
        ("PUBLIC_HOST", "registry.example/v2"),
        ("PUBLIC_SCHEME", "HTTPS"),
        ("READ_ONLY", "yes"),
        ("REGION", "FR-PAR"),
        ("REGION", "paris"),
        ("DATA_WORKERS", "0"),
        ("DATA_WORKERS", "two"),
        ("DATA_WORKERS", "-1"),
        ("WORKER_FAST", "0"),
        ("WORKER_BULK", "many"),
    ],
)
def test_an_invalid_value_is_rejected_with_the_valid_ones(tmp_path: Path, name: str, value: str) -> None:
    message = error_of(tmp_path, **{f"REGISTRY_{name}": value})
    assert message.startswith(f"REGISTRY_{name} is {value!r}, but must be ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", f"mysql://stowage:{PASSWORD}@db.example/stowage"),
        ("DATABASE_URL", f"stowage:{PASSWORD}@db.example"),
        ("DATABASE_URL", f"postgresql://stowage:{PASSWORD}@db.example:port/stowage"),
        ("DATABASE_URL", f"postgresql://stowage:{PASSWORD}@db.example:99999/stowage"),
        ("REDIS_URL", f"http://:{PASSWORD}@redis.example"),
        ("REDIS_URL", f"redis://:{PASSWORD}@redis.example:port"),
        ("STORAGE_URL", f"ftp://stowage:{PASSWORD}@storage.example/blobs"),
        ("STORAGE_URL", f"/var/lib/{PASSWORD}"),
        ("STORAGE_URL", f"file://{PASSWORD}/relative"),
        # The # ends the authority of the URL, so the first part of the password is parsed as a port.
        ("DATABASE_URL", f"postgresql://stowage:{PASSWORD}#2@db.example/stowage"),
        ("DATABASE_URL", f"postgresql://stowage:[{PASSWORD}@db.example/stowage"),
    ],
)
def test_the_error_for_an_invalid_url_has_the_variable_but_not_the_value(
    tmp_path: Path, name: str, value: str
) -> None:
    message = error_of(tmp_path, **{f"REGISTRY_{name}": value})
    assert message.startswith(f"REGISTRY_{name}")
    assert PASSWORD not in message
    assert "\n" not in message


def test_a_state_folder_that_cannot_be_created_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = error_of(tmp_path / "file" / "state")
    assert message.startswith("REGISTRY_STATE_DIR: cannot use ")


def test_limits_have_defaults_and_can_be_set(tmp_path: Path) -> None:
    environment = load(tmp_path)
    assert environment.disk_reserve is None
    assert environment.rate_limit == environment.rate_limit_anonymous == 0
    assert load(tmp_path, REGISTRY_DISK_RESERVE="0").disk_reserve == 0
    networks = load(tmp_path, REGISTRY_TRUSTED_PROXIES="10.0.0.0/8, ::1").trusted_proxies
    assert [str(network) for network in networks] == ["10.0.0.0/8", "::1/128"]


def test_an_invalid_limit_is_rejected(tmp_path: Path) -> None:
    assert "REGISTRY_MAX_UPLOADS" in error_of(tmp_path, REGISTRY_MAX_UPLOADS="0")
    assert "REGISTRY_IDLE_TIMEOUT" in error_of(tmp_path, REGISTRY_IDLE_TIMEOUT="never")
    assert "10.0.0.1/8" in error_of(tmp_path, REGISTRY_TRUSTED_PROXIES="10.0.0.1/8")


@pytest.mark.parametrize("value", ["10.0.0.1/8", "https://registry.example", "registry.example:0", "a, *"])
def test_an_invalid_exception_for_outgoing_calls_is_rejected(tmp_path: Path, value: str) -> None:
    message = error_of(tmp_path, REGISTRY_EGRESS_ALLOW=value)
    assert message.startswith(f"REGISTRY_EGRESS_ALLOW is {value!r}, but must be hosts")
