"""Which client may do what: a file, read again when it changes. docs/key-service.md describes it.

```toml
[clients.gate-1]                                   # the common name of its certificate
scopes = ["staff", "visitors"]                     # or "*" for all
operations = ["read", "enrol", "records"]

[clients.breach-desk]
certificate = "9cc6...eb4f"                        # this certificate alone, by its SHA-256
scopes = ["*"]
operations = ["read", "rotate", "revoke"]
rate = 5                                           # requests a second, over ten seconds
```
"""

from __future__ import annotations

import os
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.keyservice.errors import NotAllowedError, RateError

Right: TypeAlias = Literal["read", "enrol", "rotate", "revoke", "records", "references"]
"""What a client may do. read: get keys. enrol: have first keys issued. rotate and revoke: end keys. records: write
down and look up entries of back ends. references: have sealed references made, and opened."""

_ANSWERS_WITH_KEYS: Final = {"enrol", "rotate", "references"}
_BURST_SECONDS: Final = 10


class Client(BaseModel):
    """What one client may.

    Attributes:
        scopes: Scopes of keys; "*" stands for all.
        operations: What it may do there.
        certificate: SHA-256 of its certificate, 64 hex digits; "" for any that is valid and bears its name.
        rate: Requests a second, over ten seconds; 0 for any number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scopes: Annotated[tuple[str, ...], Field(min_length=1)]
    operations: Annotated[tuple[Right, ...], Field(min_length=1)]
    certificate: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    rate: float = Field(default=0.0, ge=0, le=1_000_000, allow_inf_nan=False)

    @model_validator(mode="after")
    def _reads_what_it_gets(self) -> Self:
        keys = sorted(_ANSWERS_WITH_KEYS & set(self.operations))
        if keys and "read" not in self.operations:
            raise ValueError(f"{keys[0]} answers with keys, or with what they open, and needs read beside it")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    clients: dict[Annotated[str, StringConstraints(pattern=r"^[\w. -]{1,64}$")], Client]


@dataclass(frozen=True)
class Peer:
    """The certificate that a client showed; TLS has seen to it that its CA is trusted.

    Attributes:
        name: Its common name; "" where it has none, or several.
        fingerprint: Its SHA-256, 64 hex digits.
        until: When it expires.
    """

    name: str
    fingerprint: str
    until: datetime

    @classmethod
    def of(cls, der: bytes) -> Peer:
        """The peer of a certificate."""
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(names[0].value) if len(names) == 1 else ""
        return cls(name, certificate.fingerprint(SHA256()).hex(), certificate.not_valid_after_utc)


@dataclass(frozen=True)
class Role:
    """A client that is known, and what it may.

    Attributes:
        name: Its name.
        actor: What the audit trail calls it.
        client: What it may.
    """

    name: str
    actor: str
    client: Client

    def need(self, right: Right, scope: str | None) -> None:
        """See that it may do something in a scope; None where the operation itself looks at that.

        Raises:
            NotAllowedError: It may not.
        """
        if right not in self.client.operations:
            raise NotAllowedError(
                f"this client may not {right}", fix=f'add "{right}" to its operations in the roles of the key service'
            )
        if scope is not None and not self.covers(scope):
            raise NotAllowedError(
                "this client has nothing to do in this scope",
                fix="add the scope to its scopes in the roles of the key service",
            )

    def covers(self, scope: str) -> bool:
        """Whether a scope is one of its own."""
        return scope in self.client.scopes or "*" in self.client.scopes


class Roles:
    """The file of roles.

    Args:
        path: The file. A change counts from the next request on; one that can't be read lets nobody in.

    Raises:
        ConfigurationError: It is missing, can be written by others, or is not valid; the error names the field.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._clients: dict[str, Client] = {}
        self._left: dict[str, tuple[float, float]] = {}
        self.clients()

    def clients(self) -> dict[str, Client]:
        """All clients by name, as the file has them now."""
        where = str(self.path)
        try:
            state = self.path.stat()
            seen = (state.st_mtime_ns, state.st_size, state.st_ino)
            if seen == self._seen:
                return self._clients
            if os.name == "posix" and state.st_mode & 0o022:
                raise ConfigurationError("the file of roles can be written by others", where=where, fix="chmod go-w")
            content = tomllib.loads(self.path.read_text(encoding="utf-8"))
            self._clients = _File.model_validate(content).clients
        except (OSError, UnicodeDecodeError) as error:
            what = f"the file of roles can't be read ({type(error).__name__})"
            raise ConfigurationError(what, where=where, fix="write one as docs/key-service.md says") from None
        except tomllib.TOMLDecodeError as error:
            what = f"the file of roles is no TOML: {error}"
            raise ConfigurationError(what, where=where, fix="see docs/key-service.md") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(f"{place}: {first['msg']}", where=where, fix="see docs/key-service.md") from None
        self._seen = seen
        return self._clients

    def of(self, peer: Peer) -> Role:
        """What a client may, whose certificate was shown.

        Raises:
            NotAllowedError: It is not known, its certificate has expired, or it asks too often.
            ConfigurationError: The file can't be read.
        """
        client = self.clients().get(peer.name)
        if client is None or client.certificate not in {"", peer.fingerprint}:
            raise NotAllowedError(
                "this certificate belongs to no client that is known",
                fix="add its common name to the roles of the key service, or correct the fingerprint there",
            )
        if datetime.now(UTC) >= peer.until:
            raise NotAllowedError("this client's certificate has expired", fix="renew it; it is read again then")
        self._count(peer.name, client.rate)
        return Role(peer.name, f"{peer.name} (certificate {peer.fingerprint[:16]})", client)

    def _count(self, name: str, rate: float) -> None:
        if not rate:
            return
        now, most = time.monotonic(), max(1.0, rate * _BURST_SECONDS)
        left, then = self._left.get(name, (most, now))
        left = min(most, left + (now - then) * rate)
        if left < 1:
            raise RateError("this client asks too often", fix="ask less often, or raise its rate in the roles")
        self._left[name] = (left - 1, now)
