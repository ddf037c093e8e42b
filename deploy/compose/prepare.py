"""Generates what the services of compose.yaml need: secrets and a certificate, each into its own volume.

It runs before all other services, at every `docker compose up`, and changes nothing that exists. A start that
was killed is continued by the next one: every file is written whole, by a rename, and files that contain a
secret of another file are derived from it again.

The certificate is `tls/tls.crt` with the key `tls/tls.key` if the operator has put them there, and otherwise
one that this script signs itself, and replaces 30 days before it ends.
"""

import os
import secrets
import ssl
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SECRETS: Final = Path("/secrets")
SUPPLIED: Final = Path("/tls")
MINIO_DATA: Final = Path("/data/minio")

# The users of the containers in compose.yaml.
STOWAGE: Final = 10001
POSTGRES: Final = 999
REDIS: Final = 999
MINIO: Final = 1000
NGINX: Final = 101

_OWN: Final = "self-signed"  # marks the folder of a certificate that this script made
_VALIDITY: Final = timedelta(days=398)  # the longest that browsers accept
_RENEWAL: Final = timedelta(days=30)


def main() -> None:
    """Create what is missing."""
    postgres = _secret("postgres/password", POSTGRES, _password())
    redis = _secret("redis/password", REDIS, _password())
    minio = _secret("minio/password", MINIO, _password())
    _write("minio/user", "stowage", MINIO)
    _write("redis/redis.conf", _redis_configuration(redis), REDIS)
    _secret("stowage/secret_key", STOWAGE, _password())
    _secret("bootstrap/admin_password", STOWAGE, _password())
    _secret("bootstrap/secret_key", STOWAGE, str(uuid4()))  # API keys have this form
    _write("stowage/database_url", f"postgres://stowage:{postgres}@postgres:5432/stowage", STOWAGE)
    _write("stowage/redis_url", f"redis://:{redis}@redis:6379/0", STOWAGE)
    _write("stowage/storage_url", f"s3://stowage:{minio}@minio:9000/stowage?secure=0", STOWAGE)
    _certificate()
    os.chown(MINIO_DATA, MINIO, MINIO)


def _redis_configuration(password: str) -> str:
    # Without `noeviction`, a full Redis would drop messages in silence.
    return f'requirepass {password}\nsave ""\nappendonly no\nmaxmemory 192mb\nmaxmemory-policy noeviction\n'


def _password() -> str:
    return secrets.token_urlsafe(36)


def _secret(name: str, owner: int, new: str) -> str:
    """The secret in a file, which is `new` if the file does not exist."""
    path = SECRETS / name
    if not path.exists():
        _write(name, new, owner)
    return path.read_text(encoding="ascii")


def _write(name: str, text: str, owner: int) -> None:
    """Write a file that only its owner can read, unless it has this content already."""
    path = SECRETS / name
    if path.exists() and path.read_text(encoding="ascii") == text:
        return
    os.chown(path.parent, owner, owner)
    path.parent.chmod(0o500)
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        os.fchown(file.fileno(), owner, owner)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _certificate() -> None:
    supplied = SUPPLIED / "tls.crt", SUPPLIED / "tls.key"
    if all(path.exists() for path in supplied):
        _use_supplied(*supplied)
    elif any(path.exists() for path in supplied):
        sys.exit("prepare: tls/ needs both tls.crt and tls.key, but has only one of them")
    elif not _own_certificate_is_valid():
        _make_certificate()


def _use_supplied(certificate: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        sys.exit(f"prepare: tls/tls.crt and tls/tls.key cannot be used: {error}")
    _write("nginx/tls.crt", certificate.read_text(encoding="ascii"), NGINX)
    _write("nginx/tls.key", key.read_text(encoding="ascii"), NGINX)
    (SECRETS / "nginx" / _OWN).unlink(missing_ok=True)


def _names() -> list[str]:
    registry = os.environ["STOWAGE_REGISTRY"].rpartition(":")[0] or os.environ["STOWAGE_REGISTRY"]
    named = [registry, os.environ["STOWAGE_REGISTRY_NAME"], os.environ["STOWAGE_CONTROL_NAME"], "127.0.0.1"]
    return list(dict.fromkeys(named))


def _own_certificate_is_valid() -> bool:
    """Whether there is one of this script, for the present names, that does not end soon."""
    folder = SECRETS / "nginx"
    try:
        if (folder / _OWN).read_text(encoding="ascii") != " ".join(_names()):
            return False
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "tls.crt", folder / "tls.key")
        certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc > datetime.now(UTC) + _RENEWAL


def _make_certificate() -> None:
    key, names, now = ec.generate_private_key(ec.SECP256R1()), _names(), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    _write("nginx/tls.key", private.decode("ascii"), NGINX)
    _write("nginx/tls.crt", public.decode("ascii"), NGINX)
    _write(f"nginx/{_OWN}", " ".join(names), NGINX)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


if __name__ == "__main__":
    main()
