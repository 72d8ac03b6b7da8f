"""What names a key service."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import urlsplit

from anonymix_plugin.errors import UsageError

PORT: Final = 8443


def service_address(place: str | os.PathLike[str]) -> tuple[str, int] | None:
    """Host and port, if a place is the address of a key service, "https://HOST:PORT"; None for a path.

    Raises:
        UsageError: It is an address of another kind.
    """
    # A path's library makes one stroke of two: so an address may come from an option that takes paths.
    found = re.fullmatch(r"([a-z]+):(?:/+(.*))?", os.fspath(place).rstrip("\r\n"), re.IGNORECASE)
    if found is None or found[1].lower() not in {"http", "https"}:
        return None
    try:
        parts = urlsplit(f"https://{found[2] or ''}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    plain = found[1].lower() == "https" and parts.path in {"", "/"} and not (parts.query or parts.fragment)
    if not host or not plain or "@" in parts.netloc:
        raise UsageError(
            "this is no address of a key service, which is asked over TLS alone", fix="give https://HOST:PORT"
        )
    return host, port or PORT
