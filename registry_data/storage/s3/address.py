"""Parses the URL of an S3 store (docs/storage.md lists its options)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_FORM: Final = "s3://ACCESS:SECRET@host:port/bucket?secure=0&region=..."
_OPTIONS: Final = frozenset({"secure", "region", "public", "redirect", "spool"})


@dataclass(frozen=True, slots=True)
class Address:
    """A bucket, and the endpoints at which the server and its clients reach it."""

    endpoint: str  # host:port
    secure: bool
    access_key: str
    secret_key: str
    region: str
    bucket: str
    redirect: bool  # whether clients are redirected to it
    public_endpoint: str  # host:port for clients
    public_secure: bool
    spool: Path | None  # folder that buffers parts; None means the system's temporary folder

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse `s3://ACCESS:SECRET@host:port/bucket?secure=0&region=...&redirect=1&public=https://host`.

        Raises:
            ValueError: the URL does not have this form. The message never contains the secret.
        """
        parts = urlsplit(url)
        bucket = parts.path.strip("/")
        if not (parts.hostname and parts.username and parts.password and _BUCKET.fullmatch(bucket)):
            raise ValueError(f"an S3 storage URL has the form {_FORM}")
        options = _options(parts)
        secure = _flag(options, "secure", default=True)
        endpoint = parts.netloc.rpartition("@")[2]
        public_endpoint, public_secure = _public(options.get("public"), endpoint, secure=secure)
        return cls(
            endpoint=endpoint,
            secure=secure,
            access_key=unquote(parts.username),
            secret_key=unquote(parts.password),
            region=options.get("region", "us-east-1"),
            bucket=bucket,
            redirect=_flag(options, "redirect", default=False),
            public_endpoint=public_endpoint,
            public_secure=public_secure,
            spool=Path(options["spool"]) if "spool" in options else None,
        )


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := options.keys() - _OPTIONS:
        raise ValueError(f"unknown options in the S3 storage URL: {', '.join(sorted(unknown))}")
    return options


def _flag(options: dict[str, str], name: str, *, default: bool) -> bool:
    value = options.get(name, "1" if default else "0")
    if value not in ("0", "1"):
        raise ValueError(f"the option {name} of an S3 storage URL must be 0 or 1")
    return value == "1"


def _public(value: str | None, endpoint: str, *, secure: bool) -> tuple[str, bool]:
    if value is None:
        return endpoint, secure
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ValueError("the option public of an S3 storage URL must be http://HOST or https://HOST")
    return parts.netloc, parts.scheme == "https"
