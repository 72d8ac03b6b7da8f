"""Packages whose names are imported when they are first asked for.

A library that takes long to load, and that not everybody needs who imports the package, stays out of the way: an
error type or `anonymix --help` does not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported_by_need(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562).

    Args:
        package: The package's name.
        modules: Where each name is: name -> module. The same imports stand under `TYPE_CHECKING`.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return find
