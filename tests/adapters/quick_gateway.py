"""`anonymix gateway` as a process, with a mixer that draws at once.

`QUICK_SECONDS` makes it slower. While there is a folder `QUICK_HOLD`, a photo leaves a file there and is not drawn.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from recording_upstream import QuickMixer

import anonymix_plugin.anonymixer
from anonymix_adapters.gateway.command import app
from anonymix_keystore import Keystore


class Quick(QuickMixer):
    def __init__(self, keystore: Keystore, *, at_once: int) -> None:
        super().__init__(keystore)
        assert at_once >= 1

    def __enter__(self) -> Quick:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def protect(self, image: Any, **how: Any) -> Any:
        time.sleep(float(os.environ.get("QUICK_SECONDS", "0")))
        held = Path(os.environ.get("QUICK_HOLD", "/nowhere"))
        if held.is_dir():
            (held / uuid4().hex).touch()
        while held.is_dir():
            time.sleep(0.01)
        return super().protect(image, **how)


anonymix_plugin.anonymixer.Anonymixer = Quick  # type: ignore[misc, assignment]

if __name__ == "__main__":
    app()
