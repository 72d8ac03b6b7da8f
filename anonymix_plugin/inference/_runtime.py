"""Loading OpenVINO."""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any, Final

_CONVERTER: Final = "openvino.tools.ovc"
_LOADING: Final = Lock()


def runtime() -> Any:
    """OpenVINO, without its converter of other frameworks' models.

    The converter takes half of OpenVINO's import. It also writes an identity of the user to `~/intel` and reports
    the import to a server on the internet, from a fork of the process, keys included. So it is imported when a
    program asks for it (`openvino.convert_model`), and not before. A program that has imported OpenVINO by itself is
    left as it is.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    with _LOADING:
        if "openvino" not in sys.modules and _CONVERTER not in sys.modules:
            sys.modules[_CONVERTER] = None  # type: ignore[assignment] # as if it were not installed
            try:
                import openvino
            finally:
                del sys.modules[_CONVERTER]
            openvino.__getattr__ = _late
    import openvino

    return openvino


def _late(name: str) -> Any:
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    from openvino.tools.ovc import convert_model

    return convert_model
