"""Who is in front of the camera, said around code that has no argument for it.

`with mixer.subject("alice"):` tells adapters whose key is meant, where the call that they take over carries
no name. The claim follows `contextvars`: each asyncio task and each thread has its own, `asyncio.to_thread`
takes it along, and a thread that was started without one has none, so that an adapter there refuses to work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from anonymix_plugin.errors import UsageError


@dataclass(frozen=True)
class Claim:
    """Whose face is said to be in the photos of a block of code.

    Attributes:
        subject: The person's id; None where nobody is claimed and the gallery key is meant.
        scope: Scope of the key; None leaves it to the adapter.
        enrol: Whether a first key may be issued.
    """

    subject: str | None
    scope: str | None = None
    enrol: bool = False


_CLAIM: ContextVar[Claim | None] = ContextVar("anonymix_claim", default=None)


def current_claim() -> Claim | None:
    """The claim of the innermost block that this code runs in, or None."""
    return _CLAIM.get()


@contextmanager
def claimed(claim: Claim) -> Iterator[Claim]:
    """Make a claim for the block; blocks may be nested, the innermost counts.

    Raises:
        UsageError: The subject is no text, or empty.
    """
    if claim.subject is not None and (not isinstance(claim.subject, str) or not claim.subject):
        raise UsageError("a subject's id is a text that is not empty", where="subject")
    token = _CLAIM.set(claim)
    try:
        yield claim
    finally:
        _CLAIM.reset(token)
