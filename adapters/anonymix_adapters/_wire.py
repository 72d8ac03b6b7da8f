"""The last look before the wire: a request holds the pictures that its adapter made for it, and no others.

Each call through a protected client opens a `Sending`, in which the pictures that are drawn for it are noted.
Where the back end's client writes on the wire, the adapter holds the request against them. A request that
belongs to no such call came by another way, and may hold no picture at all.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from anonymix_adapters.errors import BypassError
from anonymix_adapters.interceptor import Interceptor
from anonymix_plugin.first_keys import attempt

_LONGEST: Final = 16_384
"""Characters of the longest text that an API takes which is no picture: Azure's userData."""
_NUMBERS: Final = 16
"""Numbers in a row from which on a list may be an embedding."""
_MAGIC: Final = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0")


class Sending:
    """One call on its way.

    Args:
        interceptor: In front of the client.
        subject: Whose face it is, as the call's own `subject=` says.

    Attributes:
        awaited: Whether the next call inside is this one's own, a step further down, and takes its subject.
        ended: Whether it is over; what was started inside and goes on has no part in it.
    """

    def __init__(self, interceptor: Interceptor, subject: str | None = None, *, awaited: bool = False) -> None:
        self.interceptor, self.subject, self.awaited = interceptor, subject, awaited
        self.ended = False
        self._made: set[bytes] = set()

    def note(self, made: bytes) -> None:
        """Remember bytes, a picture or a whole request, that the adapter made."""
        self._made.add(hashlib.sha256(made).digest())

    def knows(self, made: bytes) -> bool:
        """Whether the adapter made these bytes for this call."""
        return hashlib.sha256(made).digest() in self._made


_SENDING: ContextVar[Sending | None] = ContextVar("anonymix_sending", default=None)


@contextmanager
def sending(interceptor: Interceptor, subject: str | None = None, *, awaited: bool = False) -> Iterator[Sending]:
    """Open a call; `awaited` where the client's method ends in another one that opens it as well."""
    outer = current(interceptor)
    if outer is not None and outer.awaited:
        outer.awaited = False
        subject = outer.subject if subject is None else subject
    made = Sending(interceptor, subject, awaited=awaited)
    token = _SENDING.set(made)
    try:
        with attempt():  # a call that fails leaves no first key behind
            yield made
    finally:
        made.ended = True
        _SENDING.reset(token)


def taking_subject(call: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Give what stands in a method's place its signature, and `subject=` besides."""
    found = inspect.signature(original)
    parameters = list(found.parameters.values())
    subject = inspect.Parameter("subject", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
    rest = [each for each in parameters if each.kind is inspect.Parameter.VAR_KEYWORD]
    named = [each for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    functools.update_wrapper(call, original)
    vars(call)["__signature__"] = found.replace(parameters=[*named, subject, *rest])
    return call


def current(interceptor: Interceptor) -> Sending | None:
    """The call of this interceptor that the code runs in; None where it runs in none."""
    found = _SENDING.get()
    return found if found is not None and found.interceptor is interceptor and not found.ended else None


def not_ours(
    interceptor: Interceptor, what: str = "the request holds a picture that is not the mixer's"
) -> BypassError:
    """The error for a request that is not what the adapter made."""
    return BypassError(
        f"{what}; nothing was sent",
        where=interceptor.adapter,
        fix="look for a handler, policy or transport of the host's that changes requests; "
        "protect a client after it is set up",
    )


def parsed(interceptor: Interceptor, body: Any) -> dict[str, Any]:
    """A body that must be a JSON object, or empty.

    Raises:
        BypassError: It is something else.
    """
    if not isinstance(body, bytes | bytearray | str | None):
        raise not_ours(interceptor, "the request's body can't be looked at")
    try:
        content = json.loads(body or b"{}")
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise not_ours(interceptor, "the request's body is no JSON object")
    return content


def check_picture(interceptor: Interceptor, text: Any) -> None:
    """Hold a picture in Base64 against those of the call.

    Raises:
        BypassError: It is none of them.
    """
    call = current(interceptor)
    try:
        picture = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        picture = b""
    if call is None or not call.knows(picture):
        raise not_ours(interceptor)


def check_values(interceptor: Interceptor, value: Any) -> None:
    """Hold the rest of a request, where no picture belongs, against what pictures and embeddings look like.

    Raises:
        BypassError: It holds one, at whatever depth.
    """
    if isinstance(value, Mapping):
        for each in value.values():
            check_values(interceptor, each)
    elif isinstance(value, list | tuple):
        if sum(isinstance(each, float) for each in value) > _NUMBERS:
            raise not_ours(interceptor, "the request holds a list of numbers, perhaps an embedding")
        for each in value:
            check_values(interceptor, each)
    elif not isinstance(value, str | int | float | None) or (isinstance(value, str) and _a_picture(value)):
        raise not_ours(interceptor)


def _a_picture(text: str) -> bool:
    if len(text) > _LONGEST:
        return True
    head = (text.partition(",")[2] if text.startswith("data:") else text).strip()[:16]
    try:
        return len(text) > 64 and base64.b64decode(head[: len(head) // 4 * 4], validate=True).startswith(_MAGIC)
    except (binascii.Error, ValueError):
        return False
