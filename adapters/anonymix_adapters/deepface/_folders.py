"""Folders of cancelable pictures for `find`: which pictures the mixer made, and what DeepFace made of them.

A note `.anonymix` in the folder keeps the name under which the keystore's records have it, so that a folder
that is renamed, moved or mounted elsewhere keeps its records and its scope; and the SHA-256 of DeepFace's
caches as the adapter left them, so that no embedding counts that was put there by somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from anonymix_adapters.deepface._cuts import SKIP
from anonymix_adapters.errors import BackEndError, BypassError
from anonymix_adapters.interceptor import Interceptor
from anonymix_plugin.images import save_cancelable
from anonymix_plugin.values import CancelableFace

_NOTE: Final = ".anonymix"
_CACHES: Final = "ds_model_*"
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
_EARLIER_WIDTH: Final = 224  # earlier versions wrote the face cut out, and not the whole picture


class Folder:
    """One folder.

    Args:
        path: Where it is.
        interceptor: Whose records count.
    """

    def __init__(self, path: str | os.PathLike[str], interceptor: Interceptor) -> None:
        self.path, self._interceptor = Path(path).resolve(), interceptor
        self.lock = threading.RLock()
        self._read: dict[Path, tuple[tuple[int, ...], str, bool]] = {}

    # --- its name ---------------------------------------------------------------------------------

    def name(self) -> str:
        """The name of the folder in the records, which it keeps wherever it goes.

        It is the path at which it was first used. A folder without a note, of an earlier version, is told
        by its pictures.
        """
        with self.lock:
            noted = self._note().get("name")
            if isinstance(noted, str) and noted:
                return noted
            here, mine, taken = self.pictures(), str(self.path), False
            found: Counter[str] = Counter()
            for item in self._interceptor.entries():
                taken |= item.collection == mine
                if item.external_id in here:
                    found[item.collection] += 1
            # Without such a picture, records of this path are those of a folder that stood here before and was moved.
            name = f"{mine}#{secrets.token_hex(4)}" if taken else mine
            if found:
                name = found.most_common(1)[0][0]
            if self.path.is_dir():
                self._write(name=name)
            return name

    # --- its pictures -----------------------------------------------------------------------------

    def pictures(self) -> Mapping[str, Path]:
        """What DeepFace would list, by SHA-256. A file is read again only if it changed."""
        found: dict[str, Path] = {}
        known, self._read = self._read, {}
        for path in self.path.rglob("*"):
            if path.suffix.lower() not in _SUFFIXES or not path.is_file():
                continue
            status = path.stat()
            state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            entry = known.get(path)
            if entry is None or entry[0] != state:
                content = path.read_bytes()
                width = int.from_bytes(content[16:20], "big") if content[12:16] == b"IHDR" else 0
                entry = (state, hashlib.sha256(content).hexdigest(), width == _EARLIER_WIDTH)
            self._read[path] = entry
            found[entry[1]] = path
        return found

    def add(self, face: CancelableFace, subject: str) -> Path:
        """Write a cancelable picture into the subject's own folder."""
        owner = hashlib.sha256(subject.encode()).hexdigest()[:16]
        path = self.path / owner / f"{secrets.token_hex(8)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_cancelable(face, path)
        return path

    def remove(self, digest: str) -> None:
        """Delete a picture, by its SHA-256, wherever it lies in the folder, and all caches."""
        with self.lock:
            path = self.pictures().get(digest)
            if path is not None:
                path.unlink(missing_ok=True)
            self.invalidate(self.path)

    # --- before and after DeepFace reads it -------------------------------------------------------

    def check(self, detector: str) -> None:
        """Refuse what the mixer did not make, or made with old keys, and delete caches of other hands.

        Raises:
            BypassError: A picture has no record.
            BackEndError: A picture was made with an old key, or cut by an earlier version.
        """
        name, there = self.name(), self.pictures()
        records = {item.external_id for item in self._interceptor.entries(name)}
        foreign = [path for digest, path in there.items() if digest not in records]
        if foreign:
            raise self._foreign(name, foreign, any_record=bool(records))
        stale = {item.external_id for item in self._interceptor.due(name) if item.delete} & there.keys()
        if stale:
            self.invalidate(self.path)
            raise BackEndError(
                f"{len(stale)} pictures were made with old keys",
                where=str(self.path),
                fix="renew them: anonymix_adapters.renew with delete_file and enrol_file",
            )
        earlier = sum(1 for _, _, is_earlier in self._read.values() if is_earlier)
        if earlier and detector != SKIP:
            raise BackEndError(
                f"{earlier} pictures were cut out by an earlier version, for detector_backend='skip' alone",
                where=str(self.path),
                fix="enrol them again with enrol_file(), or find with detector_backend='skip'",
            )
        noted = self._note().get("caches", {})
        for cache in self.path.glob(_CACHES):
            if not isinstance(noted, dict) or noted.get(cache.name) != digest_of(cache):
                cache.unlink(missing_ok=True)

    def remember(self) -> None:
        """Note DeepFace's caches as they are now."""
        caches = {cache.name: digest_of(cache) for cache in self.path.glob(_CACHES) if cache.is_file()}
        if caches != self._note().get("caches"):
            self._write(caches=caches)

    @staticmethod
    def invalidate(path: Path) -> int:
        """Delete DeepFace's caches of a folder; returns how many files there were."""
        caches = [cache for cache in path.glob(_CACHES) if cache.is_file()]
        for cache in caches:
            cache.unlink(missing_ok=True)
        return len(caches)

    def _foreign(self, name: str, foreign: list[Path], *, any_record: bool) -> BypassError:
        if any_record:
            return BypassError(
                f"{len(foreign)} pictures were not enrolled through the mixer, {foreign[0].name} first",
                where=str(self.path),
                fix="enrol them with enrol_file(), or take them away",
            )
        known = "" if name == str(self.path) else f", and none of {name}, as it was called when it was made"
        return BypassError(
            f"{len(foreign)} pictures were not enrolled through the mixer, {foreign[0].name} first: this "
            f"keystore has no record of this folder{known}",
            where=str(self.path),
            fix="open the keystore that it was enrolled with, or enrol the people again with enrol_file()",
        )

    def _note(self) -> Mapping[str, Any]:
        try:
            found = json.loads((self.path / _NOTE).read_bytes())
        except (OSError, ValueError):  # there is none, or an earlier version's, which held a digest
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, **changes: Any) -> None:
        draft = self.path / f"{_NOTE}-{secrets.token_hex(4)}"
        try:
            draft.write_text(json.dumps({**self._note(), **changes}))
            draft.replace(self.path / _NOTE)
        finally:
            draft.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
