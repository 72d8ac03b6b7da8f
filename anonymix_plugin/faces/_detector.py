"""What every face detector can do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from anonymix_plugin.values import Face, Photo


@runtime_checkable
class Detector(Protocol):
    """Finds faces. Implementations may be called from several threads at once."""

    def detect(self, photo: Photo) -> list[Face]:
        """Finds all faces of a photo.

        Returns:
            The faces, the largest first (by the area of the box); an empty list if there is none.
        """
        ...
