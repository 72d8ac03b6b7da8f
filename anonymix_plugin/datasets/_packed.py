"""A photo inside of a larger file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anonymix_plugin.errors import UnreadableImageError


@dataclass(frozen=True, order=True)
class PackedPhoto:
    """Where an encoded photo lies in the file of a data set; nothing of it is in memory.

    Attributes:
        path: The file.
        number: Which one it is in there: the place in a verification set, the key of a record.
        spans: Offsets and lengths in bytes of its parts, in order.
        joint: What stands between two parts.
        latin1: Whether the bytes stand there as UTF-8 text of the letters U+0000 to U+00FF, as Python 3
            pickles bytes under protocol 2.
    """

    path: Path
    number: int
    spans: tuple[tuple[int, int], ...]
    joint: bytes = b""
    latin1: bool = False

    @property
    def name(self) -> str:
        """File and number, without the folder: "lfw.bin[17]"."""
        return f"{self.path.name}[{self.number}]"

    @property
    def size(self) -> int:
        """Bytes that are read for it, at least as many as it has."""
        return sum(length for _, length in self.spans) + len(self.joint) * (len(self.spans) - 1)

    def __str__(self) -> str:
        return f"{self.path}[{self.number}]"

    def read(self, most: int) -> bytes:
        """The encoded photo.

        Args:
            most: Larger ones are refused before they are read; in bytes.

        Raises:
            UnreadableImageError: It is larger, or the file changed or can't be read any more.
        """
        if self.size > most:
            raise UnreadableImageError(
                f"the photo has {self.size:,} bytes, more than the {most:,} allowed", where=str(self)
            )
        try:
            with self.path.open("rb") as stream:
                parts = []
                for offset, length in self.spans:
                    stream.seek(offset)
                    parts.append(stream.read(length))
                    if len(parts[-1]) != length:
                        raise ValueError("shorter than it was")
            data = self.joint.join(parts)
            return data.decode().encode("latin-1") if self.latin1 else data
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it changed while it was in use, or is damaged"
            raise UnreadableImageError(
                f"a photo of the data set can't be read: {reason}", where=str(self), fix="fetch it again"
            ) from None
