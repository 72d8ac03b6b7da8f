"""Connections to the key service: TLS 1.3 with a certificate on both sides, kept open between requests."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from anonymix_keystore import KeystoreError, LockedError
from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.keyservice.errors import ServiceError
from anonymix_plugin.keyservice.pem import UnusableFileError, load_own, reading
from anonymix_plugin.keyservice.wire import MEDIA_TYPE, MOST_BYTES, error_of
from anonymix_plugin.places import named_by

CERTIFICATE_VARIABLE: Final = "ANONYMIX_CLIENT_CERTIFICATE"
KEY_VARIABLE: Final = "ANONYMIX_CLIENT_KEY"
CA_VARIABLE: Final = "ANONYMIX_SERVICE_CA"
_IDLE_SECONDS: Final = 20.0  # the service hangs up after 30
_IDLE_MOST: Final = 16
_NAMES: Final = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, ..._IP_ADDRESS_MISMATCH
_DATES: Final = {9: "is not valid yet", 10: "has expired"}  # X509_V_ERR_CERT_NOT_YET_VALID, ..._HAS_EXPIRED


@dataclass(frozen=True)
class ServiceCredentials:
    """What a mixer shows to the key service, and whom it trusts.

    Attributes:
        certificate: Its certificate, PEM; with those in between, if there are any.
        key: The private key of it, PEM, readable by its owner alone.
        ca: The certificate of the CA that issued the service's, PEM. No other CA is trusted.
    """

    certificate: Path
    key: Path
    ca: Path

    @classmethod
    def from_environment(cls) -> ServiceCredentials:
        """Those that ANONYMIX_CLIENT_CERTIFICATE, ANONYMIX_CLIENT_KEY and ANONYMIX_SERVICE_CA name.

        Raises:
            ConfigurationError: One of them is not set.
        """
        variables = (CERTIFICATE_VARIABLE, KEY_VARIABLE, CA_VARIABLE)
        named = [named_by(variable) for variable in variables]
        missing = [variable for variable, path in zip(variables, named, strict=True) if path is None]
        if missing:
            raise ConfigurationError(
                "the key service is asked with a certificate, and none is named",
                where=missing[0],
                fix=f"set {', '.join(missing)} to PEM files",
            )
        certificate, key, ca = (Path(str(path)) for path in named)
        return cls(certificate, key, ca)

    def context(self) -> ssl.SSLContext:
        """For a connection; the files are read each time, so that renewed ones are taken up.

        Raises:
            ServiceError: A file is missing, damaged, or the key can be read by others.
        """
        try:
            with reading(self.ca):
                context = ssl.create_default_context(cafile=self.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            load_own(context, self.certificate, self.key)
        except UnusableFileError as error:
            what = error.why if error.fix else f"a file for the key service can't be used: {error.why}"
            see = f"see {CERTIFICATE_VARIABLE}, {KEY_VARIABLE} and {CA_VARIABLE}; the key has no passphrase"
            raise ServiceError(what, where=str(error.place), fix=error.fix or see) from None
        return context

    @property
    def expired(self) -> bool:
        """Whether the certificate has expired, by this machine's clock."""
        from cryptography import x509  # looked at after a failure alone; each start would pay for it

        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except (OSError, ValueError):
            return False
        return certificate.not_valid_after_utc <= datetime.now(UTC)


class _StaleError(Exception):
    """A connection that was kept open had ended; nothing was answered on it."""


class Line:
    """Asks the key service; many threads may use it.

    Args:
        host: Of the service.
        port: Of the service.
        credentials: What is shown, and who is trusted.
        timeout: Seconds that a connection, and each wait for an answer, may take.
    """

    def __init__(self, host: str, port: int, credentials: ServiceCredentials, timeout: float) -> None:
        self._host, self._port, self._credentials, self._timeout = host, port, credentials, timeout
        self.where = f"key service {host}:{port}"
        self._idle: list[tuple[float, http.client.HTTPSConnection]] = []
        self._lock = threading.Lock()
        self._pid, self._open = os.getpid(), True

    def check(self) -> None:
        """See that it may be used.

        Raises:
            LockedError: It is closed, or was inherited by a forked process.
        """
        if self.inherited:
            raise LockedError(
                "this process inherited a connection to the key service", where=self.where, fix="open one per process"
            )
        if not self._open:
            raise LockedError("the connection to the key service is closed", where=self.where, fix="open it again")

    @property
    def inherited(self) -> bool:
        """Whether this process is a child of the one that it belongs to."""
        return os.getpid() != self._pid

    def ask(self, operation: str, message: bytes, *, again: bool, where: str) -> bytearray:
        """Send a message, and return the answer's.

        Args:
            operation: Which.
            message: At most `wire.MOST_BYTES`.
            again: Whether it does no harm to be done twice. It is then sent a second time where a connection
                that was kept open had ended; otherwise a new connection is made for it.
            where: Whose key is meant, for the service's own errors.

        Raises:
            ServiceError: There was no answer, or it makes no sense.
            KeystoreError: The service refused.
        """
        self.check()
        kept = self._kept() if again else None
        if kept is not None:
            with suppress(_StaleError):
                return self._asked(kept, operation, message, where, kept=True)
        return self._asked(self._connected(), operation, message, where, kept=False)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._open = False
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _kept(self) -> http.client.HTTPSConnection | None:
        now, stale = time.monotonic(), []
        found = None
        with self._lock:
            while self._idle and found is None:
                since, connection = self._idle.pop()
                if now - since < _IDLE_SECONDS:
                    found = connection
                else:
                    stale.append(connection)
        for connection in stale:
            connection.close()
        return found

    def _keep(self, connection: http.client.HTTPSConnection) -> None:
        with self._lock:
            if self._open and len(self._idle) < _IDLE_MOST:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()

    def _connected(self) -> http.client.HTTPSConnection:
        context = self._credentials.context()
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:  # a name that can't be one is refused by its encoding
            connection.close()
            raise self._explained(error) from None
        return connection

    def _asked(
        self, connection: http.client.HTTPSConnection, operation: str, message: bytes, where: str, *, kept: bool
    ) -> bytearray:
        whole = False
        try:
            headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
            connection.request("POST", f"/v1/{operation}", message, headers)
            with closing(connection.getresponse()) as response:
                content = _content(response)
            whole = True
        except (ConnectionError, ssl.SSLError):
            if kept:
                raise _StaleError from None
            raise self._hung_up() from None
        except (OSError, http.client.HTTPException) as error:
            raise self._explained(error) from None
        finally:
            if not whole:
                connection.close()
        if response.will_close:
            connection.close()
        else:
            self._keep(connection)
        if response.status != http.HTTPStatus.OK:
            raise self._problem(response.status, content, where)
        return content

    def _problem(self, status: int, content: bytearray, where: str) -> KeystoreError:
        try:
            told: Any = json.loads(content)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict) or not isinstance(told.get("code"), str):
            return ServiceError(
                f"the answer, of status {status}, makes no sense",
                where=self.where,
                fix="see that the address is that of `anonymix keys serve`",
            )
        return error_of(told, where)

    def _explained(self, error: Exception) -> ServiceError:
        """An error of the line, in words of what can be done about it."""
        what, fix = self._words(error)
        return ServiceError(what, where=self.where, fix=fix)

    def _hung_up(self) -> ServiceError:
        """The service ended a new connection without an answer: of TLS 1.3 that is how a certificate is refused."""
        what = "the service hung up without an answer, as it does where it does not take a client's certificate"
        if self._credentials.expired:
            what = "this client's certificate has expired"
        fix = f"renew it, or see that its CA is among --clients of `anonymix keys serve`; {_clock()}"
        return ServiceError(what, where=self.where, fix=fix)

    def _words(self, error: Exception) -> tuple[str, str]:
        if isinstance(error, ssl.SSLCertVerificationError):
            return _untrusted(error.verify_code)
        if isinstance(error, TimeoutError):
            return (
                f"the service did not answer within {self._timeout:g} seconds",
                "see whether it is overloaded or stuck",
            )
        if isinstance(error, http.client.HTTPException):
            return "what answered is no key service", "see that the address is that of `anonymix keys serve`"
        if isinstance(error, ssl.SSLError):
            return f"there is no TLS 1.3 with the service ({error.reason})", "see that the address is right"
        return f"the service can't be reached ({type(error).__name__})", (
            "see that `anonymix keys serve` runs there, and that the address is right"
        )


def _untrusted(code: int) -> tuple[str, str]:
    if code in _DATES:
        return f"the service's certificate {_DATES[code]} by this machine's clock", f"renew it; {_clock()}"
    if code in _NAMES:
        return "the service's certificate is for another name", "ask it by the name that stands in its certificate"
    return "the service's certificate is not from the CA that is trusted", f"see {CA_VARIABLE}"


def _clock() -> str:
    return f"the clock of this machine says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _content(response: http.client.HTTPResponse) -> bytearray:
    """The body of an answer, in memory that can be overwritten."""
    length = response.length
    if length is None or length > MOST_BYTES:
        raise http.client.HTTPException
    content = bytearray(length)
    rest = memoryview(content)
    while rest:
        count = response.readinto(rest)
        if not count:
            raise http.client.IncompleteRead(b"")
        rest = rest[count:]
    return content
