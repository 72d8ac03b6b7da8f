"""A key service as a process of its own on this machine, with a CA, certificates and clients."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from forks import FORKS
from patience import PATIENCE, eventually, reserved_port

from anonymix_keystore import KeyFileUnlock, Keystore
from anonymix_plugin.cli import main
from anonymix_plugin.keyservice import RemoteKeystore, ServiceCredentials
from anonymix_plugin.keyservice.wire import pack

ALL = '["read", "enrol", "rotate", "revoke", "records", "references"]'
ROLES = f"""
[clients.gate-1]
scopes = ["*"]
operations = {ALL}

[clients.gate-2]
scopes = ["*"]
operations = {ALL}

[clients.reader]
scopes = ["staff", "default"]
operations = ["read"]

[clients.clerk]
scopes = ["staff"]
operations = ["records"]

[clients.often]
scopes = ["*"]
operations = ["read"]
rate = 0.001
"""


def _serve(command: list[str], environment: dict[str, str], log: str) -> None:
    """The life of a service: its command line, in a process of its own."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(main(command))


class Authority:
    """A CA in a folder.

    Args:
        folder: Where its files go; made here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA {folder.name}")])
        certificate = self._builder(self.name, self.key.public_key(), -1, 10)
        certificate = certificate.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = folder / "ca.pem"
        self._write(self.certificate, certificate)

    def issue(self, name: str, *, begins: float = -1, ends: float = 10, file: str = "") -> ServiceCredentials:
        """A certificate for a common name, and for this machine's addresses; times in days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        here = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        builder = self._builder(subject, key.public_key(), begins, ends).add_extension(here, critical=False)
        made = ServiceCredentials(
            self.folder / f"{file or name}.pem", self.folder / f"{file or name}.key", self.certificate
        )
        self._write(made.certificate, builder)
        pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        made.key.write_bytes(key.private_bytes(*pem))
        made.key.chmod(0o600)
        return made

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, begins: float, ends: float
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=begins))
            .not_valid_after(now + timedelta(days=ends))
        )

    def _write(self, path: Path, builder: x509.CertificateBuilder) -> None:
        path.write_bytes(builder.sign(self.key, SHA256()).public_bytes(serialization.Encoding.PEM))


@dataclass
class ServiceRig:
    """A store, a CA, and the service as a process that can be started again."""

    folder: Path
    roles: str = ROLES
    options: tuple[str, ...] = ()
    process: BaseProcess | None = None
    opened: list[RemoteKeystore] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store, self.log = self.folder / "keystore.db", self.folder / "log"
        self.unlock = KeyFileUnlock.generate(self.folder / "unlock.key")
        self.second = KeyFileUnlock.generate(self.folder / "second.key")
        self.ca = Authority(self.folder / "ca")
        self.server = self.ca.issue("service")
        self.roles_file = self.folder / "roles.toml"
        self.roles_file.write_text(self.roles)
        self.port = reserved_port()
        with Keystore.create(self.store, self.unlock) as store:
            store.issue("alice", "staff")
        self.environment = os.environ | {
            "ANONYMIX_KEYFILE": str(self.folder / "unlock.key"),
            "ANONYMIX_SECOND_KEYFILE": str(self.folder / "second.key"),
        }

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """The command line, without the program."""
        return [
            *("keys", "serve", str(self.store), "--listen", f"127.0.0.1:{self.port}"),
            *("--certificate", str(self.server.certificate), "--key", str(self.server.key)),
            *("--clients", str(self.ca.certificate), "--roles", str(self.roles_file), *self.options),
        ]

    def start(self) -> None:
        """Start the service, and wait until it is ready."""
        self.process = FORKS.Process(target=_serve, args=(self.command(), self.environment, str(self.log)))
        self.process.start()
        if not eventually(lambda: self._answers() or not self._alive()) or not self._alive():
            raise RuntimeError(self.log.read_text())

    def _alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        except OSError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """End the service; returns its exit status."""
        if self.process is None or self.process.pid is None:
            return None
        os.kill(self.process.pid, how)
        self.process.join(PATIENCE)
        status, self.process = self.process.exitcode, None
        return status

    def signal(self, how: signal.Signals) -> None:
        """Send the service a signal."""
        assert self.process is not None
        assert self.process.pid is not None
        os.kill(self.process.pid, how)

    def client(self, credentials: ServiceCredentials | str = "gate-1", **options: Any) -> RemoteKeystore:
        """A client, closed with the rig. It has time: an error that it tells of is none of a busy machine."""
        options = {"timeout": 60} | options
        if isinstance(credentials, str):
            credentials = self.ca.issue(credentials, file=f"{credentials}-{len(self.opened)}")
        self.opened.append(RemoteKeystore(self.address, credentials, **options))
        return self.opened[-1]

    def opened_store(self) -> Keystore:
        """The store, opened beside the service as a command would."""
        return Keystore.open(self.store, self.unlock)

    def raw(
        self, operation: str, message: bytes | dict[str, Any], client: str = "gate-1", method: str = "POST"
    ) -> tuple[int, dict[str, Any]]:
        """Status and problem of a request that is written by hand."""
        context = self.ca.issue(client, file=f"raw-{client}").context()
        line = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=context)
        try:
            line.request(method, f"/v1/{operation}", pack(message) if isinstance(message, dict) else message)
            answer = line.getresponse()
            return answer.status, json.loads(answer.read().split(b"\n")[0])
        finally:
            line.close()

    def close(self) -> None:
        for client in self.opened:
            client.close()
        self.stop()


def unverified() -> ssl.SSLContext:
    """A context that trusts anybody and shows nothing."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
