"""A certificate authority and a server certificate for the tests, valid for one day."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALIDITY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM format. `ca.crt` is the only file in its folder, as docker, skopeo and podman require."""

    ca: Path
    server: Path
    server_key: Path

    @property
    def ca_folder(self) -> Path:
        """The value of `--cert-dir` of skopeo, podman and buildah."""
        return self.ca.parent

    def client_context(self) -> ssl.SSLContext:
        """The value of httpx's `verify`: trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.ca))


def make_certificates(folder: Path, *, host: str = "localhost") -> Certificates:
    """Write an authority and a server certificate for `host` and 127.0.0.1 below `folder`."""
    now = datetime.now(UTC)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("Stowage test authority")
    authority = (
        _builder(authority_name, authority_key, now)
        .issuer_name(authority_name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_authority_key_usage(), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        _builder(_name(host), server_key, now)
        .issuer_name(authority_name)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    made = Certificates(folder / "authority" / "ca.crt", folder / "server.crt", folder / "server.key")
    made.ca.parent.mkdir(parents=True)
    made.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.server.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    made.server_key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALIDITY)  # tolerates a clock that is set back
        .not_valid_after(now + _VALIDITY)
    )


def _authority_key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
