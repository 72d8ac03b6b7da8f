"""Finds the files of a model on this machine and makes sure that they are the right ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from anonymix_plugin.configuration import load_configuration
from anonymix_plugin.errors import DamagedModelError, MissingModelError, ModelError, UsageError
from anonymix_plugin.inference import Content
from anonymix_plugin.models._cache import is_intact, model_folder, sha256_of
from anonymix_plugin.registry import REGISTRY, entry

Status = Literal["ok", "missing", "damaged"]


@dataclass(frozen=True)
class Source:
    """Where a file of a model is taken from on this machine.

    Attributes:
        model: Name of the model.
        file: Name of the file in the registry.
        path: Where it lies, or would lie.
        sha256: The hash that it must have.
        size: The size that it must have, None where only the hash is known.
        own: Whether the user's configuration put it in the place of the registry's file.
    """

    model: str
    file: str
    path: Path
    sha256: str
    size: int | None
    own: bool

    @property
    def intact(self) -> bool:
        """Whether the file is there with the right content."""
        return is_intact(self.path, self.sha256, self.size)


@dataclass(frozen=True)
class Verification:
    """What `verify` found out about one file.

    Attributes:
        source: The file.
        status: "ok", "missing" or "damaged".
        actual: The SHA-256 that it has; "" where it is missing or unreadable.
    """

    source: Source
    status: Status
    actual: str


def sources(name: str) -> tuple[Source, ...]:
    """All files of a model, those from the user's configuration in the place of the registry's.

    Raises:
        UsageError: No model has that name.
        ConfigurationError: The configuration file is not valid.
    """
    own = load_configuration().replacements(name)
    found = []
    for file in entry(name).files:
        replacement = own.get(file.name)
        if replacement is None:
            path = model_folder(name) / file.name
            found.append(Source(name, file.name, path, file.sha256, file.size, own=False))
        else:
            found.append(Source(name, file.name, replacement.path, replacement.sha256, None, own=True))
    return tuple(found)


def locate(name: str, file: str | None = None) -> Path:
    """Path of a model's file, after checking that it is there and is the right one.

    The content is hashed on first use in a process, and again only when the file's time, size or inode
    has changed. It is for looking at files; what is going to run is read by `load_checked`.

    Args:
        name: Name of the model in the registry.
        file: Name of the file; may be left out where the model has a single one.

    Raises:
        MissingModelError: The file is not on this machine.
        DamagedModelError: It is, but its content is another.
        UsageError: No model or file has that name.
        ConfigurationError: The configuration file is not valid.
    """
    source = _source(name, file)
    if not source.intact:
        raise _refused(source)
    return source.path


def load_checked(name: str, file: str | None = None) -> bytes:
    """Content of a model's file: the very bytes that were checked, read once.

    Whoever opens the path of `locate` reads the file again, when it may be another.

    Args:
        name: Name of the model in the registry.
        file: Name of the file; may be left out where the model has a single one.

    Raises:
        MissingModelError: The file is not on this machine.
        DamagedModelError: It is, but its content is another.
        UsageError: No model or file has that name.
        ConfigurationError: The configuration file is not valid.
    """
    return _content(_source(name, file))


def _content(source: Source) -> bytes:
    try:
        content = source.path.read_bytes()
    except OSError:
        raise _refused(source) from None
    if hashlib.sha256(content).hexdigest() != source.sha256:
        raise _refused(source)
    return content


def content_of_model(name: str, file: str | None = None) -> Content:
    """A model's file that is read when it is needed, and checked then.

    Arguments and errors are those of `load_checked`; that the content is another shows only when it is read.
    """
    source = _source(name, file)
    try:
        size = source.path.stat().st_size
    except OSError:
        raise _refused(source) from None
    if source.size not in {None, size}:
        raise _refused(source)
    return Content(name, source.sha256, partial(_content, source))


def verify(names: Iterable[str] | None = None) -> list[Verification]:
    """Hash all files of some models afresh, whatever has been checked before.

    Args:
        names: Names of models; all of the registry by default.

    Raises:
        UsageError: No model has one of the names.
        ConfigurationError: The configuration file is not valid.
    """
    wanted = REGISTRY if names is None else dict.fromkeys(names)
    return [_verify(source) for name in wanted for source in sources(name)]


def weights_hash(name: str) -> str:
    """One hash for all the weights of a model that are in use, for the mixer's fingerprint.

    It is made from the files' names and the hashes that `locate` holds them to, so it needs no file to be
    there, and it changes when the user's configuration puts another file in place.

    Returns:
        SHA-256 over one line `<file name> <file SHA-256>` a file, in the registry's order; 64 hex digits.

    Raises:
        UsageError: No model has that name.
        ConfigurationError: The configuration file is not valid.
    """
    lines = (f"{source.file} {source.sha256}\n" for source in sources(name))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _verify(source: Source) -> Verification:
    if not source.path.is_file():
        return Verification(source, "missing", "")
    try:
        actual = sha256_of(source.path)
    except OSError:
        return Verification(source, "damaged", "")
    return Verification(source, "ok" if actual == source.sha256 else "damaged", actual)


def _source(name: str, file: str | None) -> Source:
    candidates = {source.file: source for source in sources(name)}
    if file is None and len(candidates) == 1:
        file = next(iter(candidates))
    if file not in candidates:
        what = "several files belong to this model" if file is None else f"no file {file} belongs to it"
        raise UsageError(what, where=name, fix="name one of: " + ", ".join(candidates))
    return candidates[file]


def _refused(source: Source) -> ModelError:
    if not source.path.is_file():
        what = f"the weights {source.file} are not on this machine"
        return MissingModelError(what, where=source.model, fix=_cure(source))
    what = f"{source.path} does not have the expected SHA-256 {source.sha256}"
    return DamagedModelError(what, where=source.model, fix=_cure(source))


def _cure(source: Source) -> str:
    if source.own:
        return f"correct [models.{source.model}] in the configuration file"
    return f"run: anonymix models pull {source.model}"
