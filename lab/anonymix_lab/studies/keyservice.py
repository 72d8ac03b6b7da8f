"""The key service beside a local store: how long a key takes, how fast two mixers are, how soon a revocation counts."""

from __future__ import annotations

import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from anonymix_keystore import KeyFileUnlock, KeyRevokedError, Keystore
from anonymix_plugin import Anonymixer
from anonymix_plugin.errors import AnonymixError, PhotoError
from anonymix_plugin.keys import KeySource
from anonymix_plugin.keyservice import RemoteKeystore, ServiceCredentials

_ROLES: Final = '[clients.mixer]\nscopes = ["*"]\noperations = ["read"]\n'
_SOURCES: Final = ("local", "service")


@dataclass(frozen=True)
class Latency:
    """How long a key takes from one source, microseconds.

    Attributes:
        cached_p50: Median of a key that is kept.
        cached_p99: The same for 99 in a hundred.
        uncached_p50: Median of a key that is fetched.
        uncached_p99: The same for 99 in a hundred.
    """

    cached_p50: float
    cached_p99: float
    uncached_p50: float
    uncached_p99: float


@dataclass(frozen=True)
class Throughput:
    """Faces a second of all mixers together.

    Attributes:
        local: With keys from the store.
        service: With keys from the service.
        ratio: Of the service's rate to the store's, the median over pairs of rounds that follow each other.
    """

    local: float
    service: float
    ratio: float


@dataclass(frozen=True)
class Place:
    """A store and its service on this machine.

    Attributes:
        store: The keystore's file.
        key_file: What it is locked by.
        address: Of the service.
        credentials: Of the mixers.
        subjects: How many subjects there are: "s0", "s1", ...
    """

    store: Path
    key_file: Path
    address: str
    credentials: ServiceCredentials
    subjects: int

    def local(self) -> Keystore:
        """The store, opened here."""
        return Keystore.open(self.store, KeyFileUnlock(self.key_file))

    def remote(self) -> RemoteKeystore:
        """The store, by its service."""
        return RemoteKeystore(self.address, self.credentials)


@contextmanager
def served(folder: Path, subjects: int) -> Iterator[Place]:
    """A store with subjects, and `anonymix keys serve` as a process in front of it.

    Raises:
        AnonymixError: It did not start.
    """
    key_file = folder / "unlock.key"
    with Keystore.create(folder / "keystore.db", KeyFileUnlock.generate(key_file)) as store:
        store.issue_many(f"s{number}" for number in range(subjects))
    credentials = {name: _certificate(folder, name) for name in ("service", "mixer")}
    (folder / "roles.toml").write_text(_ROLES)
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    mine = credentials["service"]
    command = [sys.executable, "-m", "anonymix_plugin", "keys", "serve", str(folder / "keystore.db")]
    command += ["--listen", listen, "--certificate", str(mine.certificate), "--key", str(mine.key)]
    command += ["--clients", str(credentials["mixer"].ca), "--roles", str(folder / "roles.toml")]
    environment = os.environ | {"ANONYMIX_KEYFILE": str(key_file)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)  # noqa: S603 - our own program
    try:
        # Each side trusts the certificate of the other: they are their own CAs.
        theirs = ServiceCredentials(credentials["mixer"].certificate, credentials["mixer"].key, mine.ca)
        place = Place(folder / "keystore.db", key_file, f"https://{listen}", theirs, subjects)
        for _ in range(300):
            with place.remote() as remote:
                try:
                    remote.current("s0")
                    break
                except AnonymixError:
                    raise
                except Exception:  # noqa: BLE001 - it is not there yet
                    time.sleep(0.1)
        else:
            raise AnonymixError("the key service did not start", where=" ".join(command[1:5]), fix="run it by hand")
        yield place
    finally:
        process.terminate()
        process.wait(30)


def _certificate(folder: Path, name: str) -> ServiceCredentials:
    """A certificate that is its own CA."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = builder.add_extension(here, critical=False).sign(key, SHA256())
    files = ServiceCredentials(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.pem")
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files.key.touch(0o600)
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))
    return files


def latencies(place: Place, samples: int) -> dict[str, Latency]:
    """How long a key takes from the store and from the service, in turns of a tenth of the samples each."""
    dice = random.Random(7)  # noqa: S311 - picks samples
    numbers = dice.sample(range(place.subjects), min(samples, place.subjects))
    fetched: dict[str, list[float]] = {name: [] for name in _SOURCES}
    kept: dict[str, list[float]] = {name: [] for name in _SOURCES}
    for start in range(10):
        turn = numbers[start::10]
        for name in _SOURCES:
            with place.local() if name == "local" else place.remote() as keys:
                keys.current("s0")  # opens the connection
                fetched[name] += _times(keys, turn)
                few = turn[-20:]
                kept[name] += _times(keys, few * (len(turn) // len(few)))
    return {name: Latency(*_percentiles(kept[name]), *_percentiles(fetched[name])) for name in _SOURCES}


def _times(keys: KeySource, numbers: Sequence[int]) -> list[float]:
    """Microseconds that each key takes."""
    times = []
    for number in numbers:
        began = time.perf_counter_ns()
        keys.current(f"s{number}")
        times.append((time.perf_counter_ns() - began) / 1_000)
    return times


def _percentiles(times: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


def throughput(place: Place, photos: Sequence[Path], *, mixers: int, faces: int, rounds: int) -> Throughput:
    """Faces a second of several mixers, each a process, by the source of their keys.

    Every mixer draws with the same weights over both sources, in turns: one round over the store, one over the
    service, the next the other way round. Each face is another subject's, so that each of its keys is fetched.

    Args:
        place: The store and its service.
        photos: What is protected, over and over.
        mixers: How many processes.
        faces: Of one mixer in one round.
        rounds: How many rounds of each source.

    Returns:
        What it was.
    """
    context = get_context("spawn")
    lines: list[Connection] = []
    processes = []
    for number in range(mixers):
        mine, theirs = context.Pipe()
        process = context.Process(target=_mixer, args=(theirs, place, list(photos), number), daemon=True)
        process.start()
        theirs.close()  # or its end would never be seen
        lines.append(mine)
        processes.append(process)
    seconds: dict[str, list[float]] = {name: [] for name in _SOURCES}
    try:
        for line in lines:
            _answer(line)
        for turn in range(rounds):
            for name in _SOURCES[:: 1 if turn % 2 else -1]:
                started = time.perf_counter()
                for line in lines:
                    line.send((name, faces))
                for line in lines:
                    _answer(line)
                seconds[name].append(time.perf_counter() - started)
    finally:
        for line in lines:
            with suppress(OSError):
                line.send(None)
        for process in processes:
            process.join(30)
    ratios = [local / service for local, service in zip(seconds["local"], seconds["service"], strict=True)]
    local, service = (mixers * faces * rounds / sum(seconds[name]) for name in _SOURCES)
    return Throughput(local, service, statistics.median(ratios))


def _answer(line: Connection) -> None:
    """Wait for a mixer.

    Raises:
        PhotoError: It met a photo, or something else, that it can't use.
    """
    try:
        fault: tuple[str, str, str] | None = line.recv()
    except (EOFError, OSError):
        fault = ("a mixer ended unforeseen", "", "look at what it said before")
    if fault is not None:
        raise PhotoError(fault[0], where=fault[1], fix=fault[2])


def _mixer(line: Connection, place: Place, photos: list[Path], number: int) -> None:
    try:
        _mix(line, place, photos, number)
    except AnonymixError as error:
        line.send((error.what, error.where, error.fix))


def _mix(line: Connection, place: Place, photos: list[Path], number: int) -> None:
    with place.local() as store, place.remote() as remote, Anonymixer(store) as over_store:
        over = {"local": over_store, "service": over_store.with_keystore(remote)}
        for mixer in over.values():
            mixer.protect(photos[0], subject="s0")  # the first face is slower
        line.send(None)
        subject = number
        while (asked := line.recv()) is not None:
            name, faces = asked
            for count in range(faces):
                over[name].protect(photos[count % len(photos)], subject=f"s{subject % place.subjects}")
                subject += 7
            line.send(None)


def revocations(place: Place, times: int) -> list[float]:
    """Seconds from a revocation in another process until the service's client refuses a key that it keeps."""
    found = []
    with place.remote() as remote, place.local() as store:
        for number in range(times):
            subject = f"s{place.subjects - 1 - number}"
            remote.current(subject)
            store.revoke(subject, reason="measuring")
            revoked = time.perf_counter()
            try:
                while time.perf_counter() - revoked < 30:
                    remote.current(subject)
                    time.sleep(0.005)
            except KeyRevokedError:
                found.append(time.perf_counter() - revoked)
    return found
