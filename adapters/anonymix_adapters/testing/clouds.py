"""What the rehearsals of all commercial APIs have in common: enrol, leak, hold against, find."""

from __future__ import annotations

import base64
import binascii
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeAlias

import cv2
import numpy as np

from anonymix_adapters._rest import RestClient
from anonymix_adapters._rest_pictures import file_of
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import Interceptor
from anonymix_adapters.protocol import Answer, Leaked
from anonymix_plugin.claims import claim_within, claimed
from anonymix_plugin.images import PhotoSource
from anonymix_plugin.values import Pixels

_JPEG: Final = b"\xff\xd8\xff"
_BASE64: Final = re.compile(rb"/9j/[A-Za-z0-9+/]+={0,2}")


class Wire:
    """Keeps the body of each request that a client writes on the wire. Call it with a body."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._mine = threading.local()

    def __call__(self, body: bytes | str | None) -> None:
        """Keep one."""
        content = body.encode() if isinstance(body, str) else bytes(body or b"")
        self.bodies.append(content)
        if found := pictures_in(content):
            self._mine.picture = found[-1]

    def last_picture(self) -> bytes:
        """The last picture that this thread sent.

        Raises:
            AdapterError: It sent none.
        """
        picture: bytes | None = getattr(self._mine, "picture", None)
        if picture is None:
            raise AdapterError("no picture was sent")
        return picture


def pictures_in(body: bytes) -> list[bytes]:
    """The JPEG files in a request's body, as they are or in Base64; the last may have bytes after it."""
    found = [body[match.start() :] for match in re.finditer(re.escape(_JPEG), body)]
    for match in _BASE64.finditer(body):
        try:
            found.append(base64.b64decode(match[0]))
        except binascii.Error:
            continue
    return found


Exchange: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Exchanges a part of a client for a block; see `Inspectable`."""


@contextmanager
def exchanged(target: Any, name: str, value: Any) -> Iterator[None]:
    """Exchange an attribute for a block."""
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


def rest_exchanges(client: RestClient, photo: bytes) -> Mapping[str, Exchange]:
    """See `Inspectable`: for our own REST clients."""
    import httpx2

    def swapped(request: httpx2.Request) -> httpx2.Request:
        jpeg = request.read().find(_JPEG)
        content = request.content if jpeg < 0 else request.content[:jpeg] + photo
        kept = {name: value for name, value in request.headers.items() if name != "content-length"}
        return httpx2.Request(request.method, request.url, headers=kept, content=content, extensions=request.extensions)

    class Swapping(httpx2.BaseTransport):
        def __init__(self, inner: httpx2.BaseTransport) -> None:
            self._inner = inner

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return self._inner.handle_request(swapped(request))

    def hook(request: httpx2.Request) -> None:
        request.stream = swapped(request).stream

    http = client._http
    other = httpx2.Client(base_url=http.base_url, transport=Swapping(httpx2.HTTPTransport()))
    return {
        "a hook": lambda: exchanged(http, "event_hooks", {"request": [hook]}),
        "a transport in front": lambda: exchanged(http, "_transport", Swapping(http._transport)),
        "another transport": lambda: exchanged(http, "_transport", Swapping(httpx2.HTTPTransport())),
        "another httpx2 client": lambda: exchanged(client, "_http", other),
        "nothing around": lambda: exchanged(client, "_around", None),
    }


class CloudRehearsal(ABC):
    """A commercial API with the adapter in front; meets `Rehearsal`.

    None of these APIs hands out its templates. What can leak, and what is held against the entries here, is
    the picture that was sent.

    Args:
        interceptor: In front of `client`.
        client: The protected client.
        plain: A second client of the same back end that is not protected.
        collection: Where entries go.
        wire: Keeps what the protected client sends.
    """

    def __init__(self, interceptor: Interceptor, client: Any, plain: Any, collection: str, wire: Wire) -> None:
        self._interceptor, self._client, self._plain = interceptor, client, plain
        self._collection, self._wire = collection, wire
        self._leaks: dict[str, Leaked] = {}

    @property
    def interceptor(self) -> Interceptor:
        """See `Rehearsal`."""
        return self._interceptor

    @property
    def client(self) -> Any:
        """See `Rehearsal`."""
        return self._client

    @property
    def collection(self) -> str:
        """See `Rehearsal`."""
        return self._collection

    @property
    def searches(self) -> bool:
        """See `Rehearsal`."""
        return self._interceptor.keys == "gallery"

    def seen(self) -> Sequence[bytes | Pixels]:
        """See `Rehearsal`: all bodies as they went over the wire, and the pictures in them."""
        found: list[bytes | Pixels] = []
        for body in list(self._wire.bodies):
            found.append(body)
            for picture in pictures_in(body):
                decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
                if decoded is not None:
                    found.append(np.asarray(decoded[..., ::-1], np.uint8))
        return found

    def enrol(self, subject: str, photo: PhotoSource) -> str:
        """See `Rehearsal`."""
        with claimed(claim_within(subject, enrol=True)):
            name = self._enrol(subject, file_of(photo))
        self._leaks[name] = Leaked(subject, name, self._wire.last_picture())
        return name

    def verify(self, subject: str, photo: PhotoSource) -> Answer:
        """See `Rehearsal`."""
        with claimed(claim_within(subject)):
            return self._ask(self._client, subject, file_of(photo))

    def verify_named(self, subject: str, photo: PhotoSource) -> Answer:
        """See `Inspectable`."""
        return self._ask(self._client, subject, file_of(photo), subject=subject)

    def pairs(self) -> Sequence[tuple[Any, Any]]:
        """See `Inspectable`."""
        return [(self._client, self._plain)]

    @abstractmethod
    def exchanges(self, photo: bytes) -> Mapping[str, Exchange]:
        """See `Inspectable`."""

    def verify_original(self, subject: str, photo: PhotoSource) -> Answer:
        """See `Rehearsal`."""
        return self._ask(self._plain, subject, file_of(photo))

    def search(self, photo: PhotoSource) -> Answer:
        """See `Rehearsal`."""
        return self._find(self._client, file_of(photo))

    def leak(self) -> Sequence[Leaked]:
        """See `Rehearsal`."""
        held = self.entries()
        return [leaked for name, leaked in self._leaks.items() if name in held]

    def match(self, leaked: Leaked, subject: str) -> Answer:
        """See `Rehearsal`."""
        return self._ask(self._plain, subject, leaked.template)

    @abstractmethod
    def delete(self, external_id: str) -> None:
        """See `Rehearsal`."""

    @abstractmethod
    def entries(self) -> Mapping[str, str]:
        """See `Rehearsal`."""

    @abstractmethod
    def _enrol(self, subject: str, photo: bytes) -> str:
        """Enrol through the protected client; the id of the entry."""

    @abstractmethod
    def _ask(self, client: Any, person: str, photo: bytes, **said: str) -> Answer:
        """Hold a photo against a person's entries, through the protected client or the other.

        `said` goes to each call with the photo.
        """

    @abstractmethod
    def _find(self, client: Any, photo: bytes) -> Answer:
        """Ask who it is."""
