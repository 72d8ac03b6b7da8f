"""Certificates and keys in PEM files, as both ends of the line to the key service load them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UnusableFileError(Exception):
    """A file can't be used; each end makes an error of its own of it.

    Args:
        place: The file.
        why: What is wrong with it: "it does not exist".
        fix: What to do, where that does not depend on the end.
    """

    def __init__(self, place: Path, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.place, self.why, self.fix = place, why, fix


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Name the file that the block reads.

    Raises:
        UnusableFileError: It can't be read, or holds something else.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = "it does not exist" if isinstance(error, FileNotFoundError) else "it is no PEM file that fits"
        raise UnusableFileError(place, why) from None


def load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Take a certificate and its private key, which its owner alone can read, into a context.

    Raises:
        UnusableFileError: A file is missing, damaged, or the key can be read by others.
    """
    with reading(key):
        open_to_others = os.name == "posix" and key.stat().st_mode & 0o077
    if open_to_others:
        raise UnusableFileError(key, "the private key can be read by others", "chmod 600")
    with reading(certificate):
        context.load_cert_chain(certificate, key, password=_no_passphrase)


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")
