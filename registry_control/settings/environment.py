"""Reads and validates the environment variables.

This is the only module that reads them; all others import `registry_control.settings`. An invalid value ends
the start with one line that names the variable, the problem and the valid values.
"""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeAlias
from urllib.parse import quote, urlsplit

from registry_control.common.files import write_private
from registry_data.client.egress import EgressPolicy

Network: TypeAlias = IPv4Network | IPv6Network

PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]
PREFIX: Final = "REGISTRY_"

# The format that Scaleway's clients require of a default region.
_REGION = re.compile(r"[a-z]{2}-[a-z]{3}")
_ADDRESS = re.compile(r"(?:(?P<name>[A-Za-z0-9.\-]+)|\[(?P<ipv6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})")
# A value of ALLOWED_HOSTS: Django compares it with the Host header without its port.
_HOST_NAME = re.compile(r"\*|\.?[A-Za-z0-9_.\-]+|\[[0-9A-Fa-f:.]+\]")
_SHARE = re.compile(r"0|1|0?\.[0-9]{1,6}|1\.0{1,6}", re.ASCII)
_USER_NAME = re.compile(r"[\w.@+-]{1,150}")
# The form that Scaleway's clients require of secret keys: UUIDv4.
_API_SECRET = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
# The published keys of token signatures are derived from the secret key, so a short one could be found by an
# offline brute-force attack.
_MIN_KEY_LENGTH: Final = 32
_CENTURY: Final = 100 * 365 * 86_400  # seconds


class ConfigurationError(Exception):
    """A setting is invalid; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address on which a server listens."""

    host: str
    port: int

    @property
    def url_host(self) -> str:
        """The host as in URLs and Host headers: IPv6 addresses in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.url_host}:{self.port}"


@dataclass(frozen=True, slots=True)
class FirstAccounts:
    """What the first start or `bootstrap` creates in an empty database."""

    organization: str
    admin_username: str
    admin_password: str | None = field(repr=False)  # None: generated
    secret_key: str | None = field(repr=False)  # of the administrator's API key; None: generated


def host_without_port(host: str) -> str:
    """The value of a Host header without its port."""
    return re.sub(r":[0-9]*$", "", host) if host.count(":") == 1 or host.startswith("[") else host


@dataclass(frozen=True, slots=True)
class Environment:
    """The validated configuration. The table in the README lists the same names."""

    state_dir: Path
    control_addr: Address
    data_addr: Address
    public_host: str
    public_scheme: str
    public_origin: str | None  # scheme and host of all URLs; None: taken from the request
    region: str
    database_url: str
    redis_url: str | None
    storage_url: str
    secret_key: str
    key_file: Path | None  # the file in the state folder that has `secret_key`; None if it is configured
    generated_key_file: Path | None  # the same, if this process has just generated it
    allowed_hosts: tuple[str, ...]
    data_workers: int
    worker_fast: int  # concurrent tasks
    worker_bulk: int
    read_only: bool
    challenge: str
    access_log: str  # text, json or off
    disk_reserve: int | None  # MiB
    max_uploads: int
    idle_timeout: int  # seconds
    rate_limit: int  # requests per minute, 0 means no limit
    rate_limit_anonymous: int
    trusted_proxies: tuple[Network, ...]
    egress: EgressPolicy  # for calls to other registries
    connections_per_address: int  # per plane
    keepalive: int  # seconds
    control_threads: int
    database_threads: int
    storage_threads: int
    first_accounts: FirstAccounts
    gc_grace: int  # seconds
    recycle_bin: int  # seconds, 0 means off
    gc_breaker: float  # share of all bytes in a day; 0: off
    lease: int  # seconds
    scrub_period: int  # seconds, 0 means never
    reconcile_period: int  # seconds, 0 means never

    @classmethod
    def load(cls, variables: Mapping[str, str]) -> Self:
        """Read and validate all variables.

        Raises:
            ConfigurationError: a value is invalid, or the file of a `_FILE` variable cannot be read.
        """
        read = _Reader(variables)
        state_dir = Path(read("STATE_DIR", str(PROJECT_ROOT / "var"))).absolute()
        quoted_state_dir = quote(str(state_dir))  # for URLs
        data_addr = read.address("DATA_ADDR", "127.0.0.1:5000")
        public_host = read.host("PUBLIC_HOST", str(data_addr))
        public_scheme = read.one_of("PUBLIC_SCHEME", "http", ("http", "https"))
        return cls(
            state_dir=state_dir,
            control_addr=read.address("CONTROL_ADDR", "127.0.0.1:8000"),
            data_addr=data_addr,
            public_host=public_host,
            public_scheme=public_scheme,
            public_origin=f"{public_scheme}://{public_host}" if read("PUBLIC_HOST", "") else None,
            region=read.matching("REGION", "fr-par", _REGION, "two letters, a dash, three letters"),
            database_url=read.url(
                "DATABASE_URL", f"sqlite:///{quoted_state_dir}/registry.sqlite3", _DATABASES
            ),
            redis_url=read.url("REDIS_URL", "", ("redis", "rediss")) or None,
            storage_url=read.url("STORAGE_URL", f"file://{quoted_state_dir}/storage", ("file", "s3")),
            allowed_hosts=read.host_names("ALLOWED_HOSTS"),
            data_workers=read.number("DATA_WORKERS", max(2, os.cpu_count() or 1), at_least=1),
            worker_fast=read.number("WORKER_FAST", 4, at_least=1),
            worker_bulk=read.number("WORKER_BULK", 2, at_least=1),
            read_only=read.one_of("READ_ONLY", "off", ("off", "on")) == "on",
            challenge=read.one_of("CHALLENGE", "bearer", ("bearer", "basic")),
            access_log=read.one_of("ACCESS_LOG", "text", ("text", "json", "off")),
            disk_reserve=read.number("DISK_RESERVE", 0, at_least=0) if read("DISK_RESERVE", "") else None,
            max_uploads=read.number("MAX_UPLOADS", 10_000, at_least=1),
            idle_timeout=read.number("IDLE_TIMEOUT", 60, at_least=1),
            rate_limit=read.number("RATE_LIMIT", 0, at_least=0),
            rate_limit_anonymous=read.number("RATE_LIMIT_ANONYMOUS", 0, at_least=0),
            trusted_proxies=read.networks("TRUSTED_PROXIES"),
            egress=read.egress("EGRESS_ALLOW"),
            connections_per_address=read.number("CONNECTIONS_PER_ADDRESS", 512, at_least=1),
            keepalive=read.number("KEEPALIVE", 75, at_least=1),
            control_threads=read.number("CONTROL_THREADS", 8, at_least=1),
            database_threads=read.number("DATABASE_THREADS", 8, at_least=1),
            storage_threads=read.number("STORAGE_THREADS", 8, at_least=1),
            first_accounts=_first_accounts(read),
            gc_grace=read.seconds("GC_GRACE", 86_400, at_least=0),
            gc_breaker=read.share("GC_BREAKER", 0.5),
            lease=read.seconds("LEASE", 86_400, at_least=1),
            recycle_bin=read.seconds("RECYCLE_BIN", 604_800, at_least=0),
            scrub_period=read.seconds("SCRUB_PERIOD", 2_592_000, at_least=0),
            reconcile_period=read.seconds("RECONCILE_PERIOD", 604_800, at_least=0),
            # Last, so that no key is generated if a value is invalid.
            secret_key=(key := _secret_key(read, state_dir)).text,
            key_file=key.file,
            generated_key_file=key.file if key.is_new else None,
        )


def _first_accounts(read: "_Reader") -> FirstAccounts:
    return FirstAccounts(
        organization=read("BOOTSTRAP_ORGANIZATION", "default"),
        admin_username=read.matching(
            "BOOTSTRAP_ADMIN_USERNAME", "admin", _USER_NAME, "at most 150 letters, digits and @.+-_"
        ),
        admin_password=read("BOOTSTRAP_ADMIN_PASSWORD", "") or None,
        secret_key=read.secret(
            "BOOTSTRAP_SECRET_KEY", _API_SECRET, "a random UUID in lower case: uuidgen --random"
        ),
    )


_DATABASES: Final = ("sqlite", "postgres", "postgresql")


class _Reader:
    """Reads a variable, or the file that `<name>_FILE` names, and validates its format."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __call__(self, name: str, default: str) -> str:
        name = PREFIX + name
        path = self._variables.get(f"{name}_FILE")
        if path is None:
            return self._variables.get(name) or default
        if name in self._variables:
            raise ConfigurationError(f"{name} and {name}_FILE are both set: keep one of them")
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{name}_FILE: cannot read {path}: {error}") from error
        if not value:
            raise ConfigurationError(f"{name}_FILE: {path} is empty")
        return value

    def address(self, name: str, default: str) -> Address:
        value = self(name, default)
        found = _ADDRESS.fullmatch(value)
        if found is None or not 1 <= int(found["port"]) <= 65535:
            raise _invalid(name, value, "host:port, such as 127.0.0.1:5000")
        return Address(found["name"] or found["ipv6"], int(found["port"]))

    def host(self, name: str, default: str) -> str:
        value = self(name, default)
        if not re.fullmatch(r"[A-Za-z0-9.\-\[\]:]+", value):
            raise _invalid(name, value, "host or host:port, without a scheme or a path")
        return value

    def host_names(self, name: str) -> tuple[str, ...]:
        values = tuple(filter(None, re.split(r"[,\s]+", self(name, ""))))
        for value in values:
            if not _HOST_NAME.fullmatch(value):
                raise _invalid(
                    name, value, "host names without ports, such as registry.example, separated by commas"
                )
        return values

    def secret_key(self, name: str) -> str:
        value = self(name, "")
        if value and len(value) < _MIN_KEY_LENGTH:
            # The message must not contain the value.
            raise ConfigurationError(
                f"{PREFIX}{name} has {len(value)} characters, but must have at least {_MIN_KEY_LENGTH},"
                " chosen at random: openssl rand -base64 48"
            )
        return value

    def secret(self, name: str, pattern: re.Pattern[str], expected: str) -> str | None:
        value = self(name, "")
        if value and not pattern.fullmatch(value):
            # The message must not contain the value.
            raise ConfigurationError(f"{PREFIX}{name} must be {expected}")
        return value or None

    def one_of(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self(name, default)
        if value not in choices:
            raise _invalid(name, value, " or ".join(choices))
        return value

    def matching(self, name: str, default: str, pattern: re.Pattern[str], expected: str) -> str:
        value = self(name, default)
        if not pattern.fullmatch(value):
            raise _invalid(name, value, expected)
        return value

    def url(self, name: str, default: str, schemes: tuple[str, ...]) -> str:
        value = self(name, default)
        if not value and not default:
            return ""
        scheme, separator, rest = value.partition("://")
        if scheme not in schemes or not separator or not rest:
            # The message must not contain the value, which may include a password.
            raise ConfigurationError(f"{PREFIX}{name} must be a URL that begins with {_either(schemes)}")
        try:
            _ = urlsplit(value).port
        except ValueError:
            # Nor the text of the exception: what urlsplit parses as the port may be part of a password.
            raise ConfigurationError(
                f"{PREFIX}{name} has an invalid host or port (in a password, %2F stands for /, %23 for #)"
            ) from None
        if scheme == "file" and not rest.startswith("/"):
            raise ConfigurationError(f"{PREFIX}{name} must be file:// and an absolute path")
        return value

    def networks(self, name: str) -> tuple[Network, ...]:
        values = filter(None, re.split(r"[,\s]+", self(name, "")))
        try:
            return tuple(ip_network(value) for value in values)
        except ValueError as error:
            raise _invalid(
                name, self(name, ""), "addresses or networks such as 10.0.0.0/8, separated by commas"
            ) from error

    def egress(self, name: str) -> EgressPolicy:
        value = self(name, "")
        try:
            return EgressPolicy.parse(value)
        except ValueError as error:
            raise _invalid(
                name, value, "hosts, host:port, addresses or networks such as 10.0.0.0/8, separated by commas"
            ) from error

    def number(self, name: str, default: int, *, at_least: int) -> int:
        value = self(name, str(default))
        if not (value.isascii() and value.isdigit()) or int(value) < at_least:
            raise _invalid(name, value, f"an integer of at least {at_least}")
        return int(value)

    def seconds(self, name: str, default: int, *, at_least: int) -> int:
        """A period of a century at most, so that every time that is computed with it exists."""
        value = self(name, str(default))
        if len(value) > len(str(_CENTURY)) or self.number(name, default, at_least=at_least) > _CENTURY:
            raise _invalid(name, value, f"an integer from {at_least} to {_CENTURY} (a century)")
        return int(value)

    def share(self, name: str, default: float) -> float:
        value = self(name, str(default))
        if not _SHARE.fullmatch(value):
            raise _invalid(name, value, "a number from 0 to 1, like 0.5")
        return float(value)


def _invalid(name: str, value: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{PREFIX}{name} is {value!r}, but must be {expected}")


def _either(schemes: tuple[str, ...]) -> str:
    return " or ".join(f"{scheme}://" for scheme in schemes)


class _SecretKey(NamedTuple):
    text: str
    file: Path | None = None  # None: it is configured
    is_new: bool = False  # whether this process generated it


def _secret_key(read: _Reader, state_dir: Path) -> _SecretKey:
    """The configured key, or the one that the first start generated.

    If several processes start at once, all use the same one.
    """
    if configured := read.secret_key("SECRET_KEY"):
        return _SecretKey(configured)
    path = state_dir / "secret_key"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        is_new = not path.exists() and _write_once(path, secrets.token_urlsafe(48))
        return _SecretKey(path.read_text(encoding="ascii").strip(), path, is_new)
    except OSError as error:
        raise ConfigurationError(f"{PREFIX}STATE_DIR: cannot use {state_dir}: {error}") from error


def _write_once(path: Path, text: str) -> bool:
    """Write a private file atomically, unless it exists. Returns whether this process wrote it."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        write_private(draft, text)
        os.link(draft, path)
    except FileExistsError:
        return False  # Another process was faster; its key is used.
    finally:
        draft.unlink(missing_ok=True)
    return True
