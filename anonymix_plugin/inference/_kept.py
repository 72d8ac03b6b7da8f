"""Compiled networks that are kept on disk, sealed by a key of the user's.

A file is used by whoever wrote it alone. It holds what an earlier process compiled, so that it counts as much as
the program itself: OpenVINO runs what stands in it. Therefore

- it belongs to the process's user, who alone may read and write it, and so does the key that seals it;
- AES-256-GCM authenticates all of it, together with what it was made from: weights, source files, OpenVINO,
  processor, options (the identity). The identity is what is encrypted; the graph is no secret, and authenticated only;
- what does not authenticate is never used. It is replaced, and a warning says so;
- where there is no place for file or key, or the configuration says so, nothing is kept, and networks are compiled.

A file's layout: 16 bytes that name the format, 12 bytes of nonce, the sealed identity (48 bytes), zeros up to byte
128; then 8 bytes with the length of the arrays, the arrays (safetensors), zeros up to a multiple of 64, the graph.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import mmap
import os
import secrets
import stat
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import platformdirs

from anonymix_plugin.configuration import load_configuration
from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.inference._runtime import runtime
from anonymix_plugin.places import by_default, home
from anonymix_plugin.values import Floats, Pixels

_FORMAT: Final = b"anonymix graph 1"
_SEAL: Final = slice(len(_FORMAT) + 12, len(_FORMAT) + 12 + 48)
_HEAD: Final = 128
_ALIGNED: Final = 64
_MOST: Final = 16
"""How many files are kept, the newest ones: a mixer has four, another engine, size or OpenVINO others."""

_mapped: dict[bytes, Content] = {}
_mapping: Final = Lock()


class UnusableNetworkWarning(UserWarning):
    """A compiled network on disk is not what this user's program wrote; it was compiled again."""


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds, mapped into memory as long as the process lives."""

    _map: mmap.mmap

    @property
    def arrays(self) -> Mapping[str, Floats]:
        """Arrays by name, float32: copies."""
        from safetensors.numpy import load

        return load(self._map[_HEAD + 8 : self._end])

    @property
    def graph(self) -> Pixels:
        """The compiled graph's bytes, not copied."""
        length = self._end - _HEAD
        return np.frombuffer(self._map, np.uint8, offset=self._end + -length % _ALIGNED)

    @property
    def _end(self) -> int:
        """Where the arrays end."""
        return _HEAD + 8 + int(struct.unpack_from("<Q", self._map, _HEAD)[0])

    def forget_pages(self) -> None:
        """Give the mapped memory back. What is read again comes from the file."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)


class KeptNetworks:
    """One network's place on disk.

    Args:
        path: The file.
        identity: SHA-256 of all that the network was made from.
        key: Seals it.
    """

    def __init__(self, path: Path, identity: bytes, key: bytes) -> None:
        self._path, self._identity, self._key = path, identity, key

    @classmethod
    def of_this_user(cls, name: str, weights: str, code: Path, options: Mapping[str, Any]) -> KeptNetworks | None:
        """The place of a network, or None where none is to be had.

        Args:
            name: The network's name.
            weights: SHA-256 of its weights.
            code: Folder of the source that builds it.
            options: OpenVINO's.
        """
        key = _key() if load_configuration().keep_networks else None
        source = _source_of(code)
        if key is None or not source:
            return None
        try:
            folder = home() / "compiled"
        except ConfigurationError:
            return None
        parts = [_FORMAT.decode(), name, weights, source, dict(options), *_machine()]
        identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
        own = hmac.digest(key, identity, "sha256").hex()[:16]  # two users of one folder have files of their own
        return cls(folder / f"{name}-{own}.graph", identity, key)

    def content(self) -> Content | None:
        """What is kept, or None where there is nothing that can be trusted."""
        with _mapping:
            if self._identity not in _mapped:
                found = self._opened()
                if found is None:
                    return None
                _mapped[self._identity] = found
            return _mapped[self._identity]

    def _opened(self) -> Content | None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            with _private(self._path) as descriptor:
                content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            self._warn()
            return None
        whole = memoryview(content)
        try:
            nonce, seal = bytes(whole[len(_FORMAT) : _SEAL.start]), bytes(whole[_SEAL])
            identity = AESGCM(self._key).decrypt(nonce, seal, whole[_HEAD:])
        except (InvalidTag, ValueError):
            self._warn()
            return None
        if bytes(whole[: len(_FORMAT)]) != _FORMAT or identity != self._identity:
            self._warn()
            return None
        return Content(content)

    def _warn(self) -> None:
        warnings.warn(
            f"{self._path} is not what this user's Anonymix wrote; it is not used, and the network is compiled again",
            UnusableNetworkWarning,
            stacklevel=2,
        )

    def keep(self, model: Any, arrays: Mapping[str, Floats]) -> bool:
        """Write a compiled network; False where that is refused, and nothing is kept.

        Args:
            model: `openvino.CompiledModel`.
            arrays: What belongs to it.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from safetensors.numpy import save

        packed = save({name: np.ascontiguousarray(values) for name, values in arrays.items()})
        stream = io.BytesIO(struct.pack("<Q", len(packed)) + packed)
        stream.seek(0, os.SEEK_END)
        stream.write(bytes(-stream.tell() % _ALIGNED))
        model.export_model(stream)
        payload = stream.getbuffer()
        nonce = secrets.token_bytes(12)
        head = _FORMAT + nonce + AESGCM(self._key).encrypt(nonce, self._identity, payload)
        draft = self._path.with_name(f".{secrets.token_hex(6)}{self._path.suffix}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _write_private(draft, head.ljust(_HEAD, b"\0"), payload)
            draft.replace(self._path)
            _prune(self._path.parent)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            return False
        return True


def _prune(folder: Path) -> None:
    files = sorted(folder.glob("*.graph"), key=lambda path: path.stat().st_mtime)
    for path in files[:-_MOST]:
        path.unlink()


@cache
def _machine() -> tuple[str, ...]:
    """OpenVINO's version and the processor: what a compiled graph is good for."""
    openvino = runtime()
    core = openvino.Core()
    found = [openvino.get_version(), core.get_property("CPU", "FULL_DEVICE_NAME")]
    found += sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        found += [next((line for line in lines if line.startswith(("flags", "Features"))), "")]
    chosen = ("ONEDNN_", "DNNL_", "OV_")  # they make OpenVINO compute otherwise
    return (*found, *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(chosen)))


@cache
def _source_of(folder: Path) -> str:
    """SHA-256 of all source files of a folder and of this package; "" where there are none."""
    files = [*sorted(folder.glob("*.py")), *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest() if files else ""


@contextmanager
def _private(path: Path) -> Iterator[int]:
    """A descriptor of a file that nobody else can have written.

    Raises:
        OSError: It can't be read, is no regular file, or somebody else may write it.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        foreign = hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o077)
        if foreign or not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{path} is not this user's alone")
        yield descriptor
    finally:
        os.close(descriptor)


def _write_private(path: Path, *parts: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        for part in parts:
            stream.write(part)


def _key() -> bytes | None:
    """The key of this user, made when it is first needed; None where there is no place for it."""
    folder = by_default(lambda: platformdirs.user_state_path("anonymix", False))
    if folder is None:
        return None
    path = folder / "compiled.key"
    try:
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                _write_private(path, secrets.token_bytes(32))
        with _private(path) as descriptor:
            key = os.read(descriptor, 33)
    except OSError:
        return None
    return key if len(key) == 32 else None
