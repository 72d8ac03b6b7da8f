"""PNG as the decoders are called here: none may be read past its end."""

from __future__ import annotations

from PIL import PngImagePlugin


class StrictPng(PngImagePlugin.PngImageFile):
    """What `_pillow._StrictBytes` is, for PNG, whose last chunk of pixels is followed by others."""

    def load_read(self, read_bytes: int) -> bytes:
        part = super().load_read(read_bytes)
        if not part:
            raise EOFError("the pixels end before the image does")
        return part
