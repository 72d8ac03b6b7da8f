"""Certificates for the tests: an issuer, and those that it signs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Issuer:
    """An authority of its own, whose certificate is `self.own.certificate`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.own = self._written(name, self._key, name, ca=True, days=1)

    def issue(self, name: str, *, days: int = 1) -> Issued:
        """A certificate for a name, and for this machine; one of days below 0 has ended."""
        return self._written(name, ec.generate_private_key(ec.SECP256R1()), name, ca=False, days=days)

    def _written(self, name: str, key: ec.EllipticCurvePrivateKey, file: str, *, ca: bool, days: int) -> Issued:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.now(UTC)
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        found = Issued(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        found.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
        found.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return found
