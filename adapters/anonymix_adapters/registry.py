"""The adapters that are installed, ours and others', by the entry-point group `anonymix.adapters`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import cast

from anonymix_adapters.errors import UnknownAdapterError, asked_to_stop, in_words
from anonymix_adapters.protocol import Adapter

GROUP = "anonymix.adapters"

_NEEDED = ("NAME", "SDKS", "protect", "unprotect", "interceptor_of", "rehearse")


def names() -> list[str]:
    """The names of all installed adapters; nothing is imported."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str) -> Adapter:
    """Import an adapter by its name.

    Raises:
        UnknownAdapterError: There is none of that name, two lay claim to it, it does not import, or it
            does not meet the protocol.
    """
    found = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if not found:
        raise UnknownAdapterError(
            "no adapter of this name is installed",
            where=name,
            fix=f"there are: {', '.join(names()) or 'none'}",
        )
    if len(found) > 1:
        raise UnknownAdapterError(
            f"several adapters have this name: {', '.join(sorted(found))}", where=name, fix="uninstall one"
        )
    point = next(iter(found.values()))
    try:
        adapter = point.load()
    except BaseException as error:
        if asked_to_stop(error):
            raise
        raise UnknownAdapterError(f"it does not import: {in_words(error)}", where=f"{name} ({point.value})") from error
    missing = [needed for needed in _NEEDED if not hasattr(adapter, needed)]
    if missing or name != adapter.NAME:
        what = f"it lacks {', '.join(missing)}" if missing else f"it calls itself {adapter.NAME!r}"
        raise UnknownAdapterError(what, where=f"{name} ({point.value})", fix="see docs/writing-an-adapter.md")
    return cast("Adapter", adapter)
