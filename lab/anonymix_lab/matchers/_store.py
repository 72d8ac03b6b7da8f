"""Embeddings on disk, so that no photo is embedded and no face is drawn twice.

A *space* is what an embedding depends on besides photo and key: the protection's fingerprint and the
matcher's weights. Each space is a folder of shards; a shard is a safetensors file that is written whole or not
at all. What an interrupt takes away is what came after the last shard.

Embeddings of original photos are biometric data: whoever keeps a cache keeps those.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from anonymix_plugin.errors import OutputError
from anonymix_plugin.files import write_bytes
from anonymix_plugin.values import Floats

NO_FACE: Final = "no_face"
"""Why there is no embedding: the matcher found no face. Other reasons are codes of `AnonymixError`."""


@dataclass(frozen=True, eq=False)
class Entry:
    """What is known of one picture.

    Attributes:
        vector: (dim,) float32, or None.
        reason: "" or why there is no vector.
        seconds: What making the picture took; 0 for photos as they are.
    """

    vector: Floats | None
    reason: str = ""
    seconds: float = 0.0


class EmbeddingStore:
    """Entries by (space, picture). One writer at a time.

    Args:
        folder: Where shards lie; made if need be.

    Raises:
        OutputError: The folder can't be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, dict[str, Entry]] = {}
        self._fresh: dict[str, dict[str, Entry]] = {}
        self.damaged = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (marker := folder / ".gitignore").exists():
                marker.write_text("*\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"the cache can't be made: {error.strerror}", where=str(folder), fix="choose another --cache"
            ) from error

    def get(self, space: str, picture: str) -> Entry | None:
        """The entry, or None."""
        return self._space(space).get(picture)

    def put(self, space: str, picture: str, entry: Entry) -> None:
        """Remember an entry; `flush` writes it."""
        self._space(space)[picture] = entry
        self._fresh.setdefault(space, {})[picture] = entry

    @property
    def waiting(self) -> int:
        """How many entries are not on the disk yet."""
        return sum(map(len, self._fresh.values()))

    def flush(self) -> None:
        """Write what is waiting, one shard a space.

        Raises:
            OutputError: It could not be written.
        """
        for space in list(self._fresh):
            entries = self._fresh[space]
            vectors = [entry.vector for entry in entries.values() if entry.vector is not None]
            index = [[picture, entry.reason, round(entry.seconds, 4)] for picture, entry in entries.items()]
            matrix = np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
            data = save({"vectors": matrix.astype(np.float32)}, {"space": space, "index": json.dumps(index)})
            write_bytes(self._place(space) / f"{secrets.token_hex(8)}.safetensors", data)
            del self._fresh[space]

    def _space(self, space: str) -> dict[str, Entry]:
        if space not in self._known:
            known: dict[str, Entry] = {}
            for shard in sorted(self._place(space).glob("*.safetensors")):
                known |= self._read(shard, space)
            self._known[space] = known
        return self._known[space]

    def _read(self, shard: Path, space: str) -> dict[str, Entry]:
        try:
            with safe_open(shard, framework="np") as file:
                about = file.metadata() or {}
                vectors = file.get_tensor("vectors")
            index = json.loads(about["index"])
            if about["space"] != space or not np.isfinite(vectors).all():
                raise ValueError("not of this space")
            rows = iter(vectors)
            return {
                str(picture): Entry(None if reason else next(rows), str(reason), float(seconds))
                for picture, reason, seconds in index
            }
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, StopIteration):
            self.damaged += 1  # it is made again; the report says how many
            return {}

    def _place(self, space: str) -> Path:
        return self._folder / hashlib.sha256(space.encode()).hexdigest()[:24]
