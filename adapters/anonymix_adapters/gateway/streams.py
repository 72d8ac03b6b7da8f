"""Photos one after another over one connection, as NDJSON or multipart; the next is read when one is answered."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from multipart import MultipartError, MultipartSegment, PushMultipartParser
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from anonymix_adapters.gateway.problems import MEDIA_TYPE, ProblemError, malformed, problem
from anonymix_adapters.gateway.reading import boundary_of, check_text, strict_json
from anonymix_adapters.gateway.schema import Protected, ProtectRequest, decoded
from anonymix_adapters.gateway.tokens import Token
from anonymix_plugin.images import encode_cancelable
from anonymix_plugin.values import CancelableFace

if TYPE_CHECKING:
    from anonymix_adapters.gateway.app import Gateway

_IDLE: Final = 60.0
"""Seconds that a stream may be silent between two photos."""
_PATIENCE: Final = 30.0
"""Seconds that a photo waits for a place in the queue: a stream is slowed down before it is refused."""
_ID: Final = re.compile(r"[\w.:@+-]{1,128}", re.ASCII)
_PART_HEADERS: Final = {"Content-Disposition", "Content-Type", "Content-Length", "Anonymix-Subject"}

Draw = Callable[[Token, bytes, str | None, str, int | None], CancelableFace]
Allow = Callable[[Token, str], None]


@dataclass(frozen=True)
class Photo:
    """One photo of a stream, or why it is none.

    Attributes:
        id: The caller's, for the answer.
        image: The file.
        subject: Whose; None for the gallery key.
        scope: Of the key.
        version: Of the key; None for the active one.
        error: Why it can't be taken.
    """

    id: str | int | None
    image: bytes = field(default=b"", repr=False)
    subject: str | None = field(default=None, repr=False)
    scope: str = field(default="default", repr=False)
    version: int | None = None
    error: Exception | None = None


class Streaming(Response):
    """Pieces as they are made. Starlette's own way would read the request's body meanwhile, to see it end."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Streams:
    """The streams of the HTTP API.

    Args:
        gateway: Its queue, limits and callers are used.
        draw: Turns a photo into a cancelable face.
        allow: Raises where a token is not for a scope.
    """

    def __init__(self, gateway: Gateway, draw: Draw, allow: Allow) -> None:
        self._gateway, self._draw, self._allow = gateway, draw, allow

    def answer(self, request: Request, token: Token, *, scope: str, version: int | None) -> Response:
        """The answers to a stream, as it was written itself.

        Args:
            request: Its body is read photo by photo.
            token: Whose stream it is.
            scope: Of keys, for parts of a multipart body, which name none.
            version: The same.

        Raises:
            ProblemError: It is written in another way.
        """
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media == "multipart/form-data":
            boundary, mine = boundary_of(request.headers["content-type"]), secrets.token_hex(16)
            photos = self._parts(self._pieces(request), boundary, scope, version)
            answers = self._answers(photos, token, lambda *found: _part(mine, *found))
            return Streaming(_closed(answers, f"--{mine}--\r\n".encode()), f"multipart/mixed; boundary={mine}")
        if media not in {"", "application/x-ndjson", "application/jsonl", "application/json"}:
            raise ProblemError(
                "a stream is NDJSON or a multipart form", status=415, where="content-type", code="encoding"
            )
        return Streaming(self._answers(self._lines(self._pieces(request)), token, _line), "application/x-ndjson")

    async def _pieces(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; its silence has an end."""
        stream = request.stream()
        while True:
            try:
                async with asyncio.timeout(_IDLE):
                    piece = await anext(stream, None)
            except TimeoutError:
                raise _slow() from None
            if piece is None:
                return
            yield piece

    async def _lines(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[Photo, None]:
        limits, waiting, since = self._gateway.limits, bytearray(), 0.0
        with self._gateway.room.holding() as count:
            try:
                async for piece in pieces:
                    since = since or time.monotonic()
                    waiting += piece
                    count(len(piece))
                    while (end := waiting.find(b"\n")) >= 0:
                        line = bytes(waiting[:end])
                        del waiting[: end + 1]
                        if line.strip():
                            yield _photo_of(line)
                        count(-end - 1)
                        since = time.monotonic() if waiting else 0.0
                    if len(waiting) > limits.body * 4 // 3:
                        raise malformed("a line is too long")
                    if since and time.monotonic() - since > limits.seconds:
                        raise _slow()
            except ProblemError as error:
                yield Photo(None, error=error)
                return
            if waiting.strip():
                yield _photo_of(bytes(waiting))

    async def _parts(
        self, pieces: AsyncGenerator[bytes, None], boundary: str, scope: str, version: int | None
    ) -> AsyncGenerator[Photo, None]:
        limits, part, content, since = self._gateway.limits, None, bytearray(), 0.0
        parser = PushMultipartParser(boundary, max_segment_size=limits.body, strict=True)
        with self._gateway.room.holding() as count:
            try:
                async for piece in pieces:
                    since = since or time.monotonic()
                    for event in _events(parser, piece):
                        if isinstance(event, MultipartSegment):
                            part, content, since = event, bytearray(), time.monotonic()
                        elif event is not None:
                            content += event
                            count(len(event))
                        elif part is not None:
                            yield _photo_in(part, bytes(content), scope, version)
                            count(-len(content))
                            part, since = None, 0.0
                    if part is not None and time.monotonic() - since > limits.seconds:
                        raise _slow()
                if not parser.closed:
                    raise malformed("the last part has no end")
            except ProblemError as error:
                yield Photo(None, error=error)

    async def _answers(
        self, photos: AsyncGenerator[Photo, None], token: Token, write: Callable[[Photo, Any], bytes]
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(photos):
            try:
                async for photo in photos:
                    try:
                        answer: CancelableFace | Exception = await self._drawn(photo, token)
                    except Exception as error:  # noqa: BLE001 - becomes a problem document, and the stream goes on
                        answer = error
                    yield write(photo, answer)
            except ClientDisconnect:
                return

    async def _drawn(self, photo: Photo, token: Token) -> CancelableFace:
        if photo.error is not None:
            raise photo.error
        tokens, workers = self._gateway.api_callers.tokens, self._gateway.workers
        if tokens is None or not tokens.knows(token):
            raise ProblemError("this token was revoked or has ended", status=401, code="unauthorised")
        self._allow(token, photo.scope)
        await workers.place(_PATIENCE)
        return await workers.run(lambda: self._draw(token, photo.image, photo.subject, photo.scope, photo.version))


def _photo_of(line: bytes) -> Photo:
    """The photo of a line: a request of /protect, with an `id`."""
    name: Any = None
    try:
        content = strict_json(line)
        if not isinstance(content, dict):
            raise malformed("a line is no JSON object")
        name = content.pop("id", None)
        name = name if isinstance(name, str | int) else None
        asked = ProtectRequest.model_validate(content)
        return Photo(name, decoded(asked.image), asked.subject, asked.scope, asked.version)
    except ValidationError:
        return Photo(name, error=malformed("a line is no request of /protect"))
    except ProblemError as error:
        return Photo(name, error=error)


def _photo_in(part: Any, content: bytes, scope: str, version: int | None) -> Photo:
    """The photo of a part: its name is the id, its header Anonymix-Subject the subject."""
    names = [name for name, _ in part.headerlist]
    if not _ID.fullmatch(part.name or ""):
        return Photo(None, error=malformed("the name of a part is its id: letters, digits and . : @ + - _"))
    if len(set(names)) != len(names) or not set(names) <= _PART_HEADERS or part.disposition != "form-data":
        return Photo(part.name, error=malformed("a part has a header that is not understood, or one twice"))
    try:
        subject = part.header("Anonymix-Subject")
        subject = None if subject is None else check_text(subject, "Anonymix-Subject", longest=256)
    except ProblemError as error:
        return Photo(part.name, error=error)
    return Photo(part.name, content, subject, scope, version)


def _events(parser: PushMultipartParser, piece: bytes) -> Iterator[Any]:
    try:
        yield from parser.parse(piece)
    except (MultipartError, ValueError, UnicodeError):
        raise malformed("the parts of the body can't be told apart, or one is too large") from None


def _line(photo: Photo, answer: CancelableFace | Exception) -> bytes:
    if isinstance(answer, Exception):
        found: dict[str, Any] = {"problem": problem(answer)}
    else:
        found = Protected.of(answer).model_dump()
    return json.dumps({"id": photo.id} | found).encode() + b"\n"


def _part(boundary: str, photo: Photo, answer: CancelableFace | Exception) -> bytes:
    headers = {"content-disposition": f'attachment; name="{photo.id if photo.id is not None else ""}"'}
    if isinstance(answer, Exception):
        headers["content-type"], body = MEDIA_TYPE, json.dumps(problem(answer)).encode()
    else:
        body = encode_cancelable(answer, "JPEG")
        headers |= {
            "content-type": "image/jpeg",
            "anonymix-key-version": str(answer.key_version),
            "anonymix-fingerprint": answer.fingerprint,
            "anonymix-box": ",".join(f"{each:g}" for each in answer.box),
        }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"--{boundary}\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body + b"\r\n"


async def _closed(pieces: AsyncGenerator[bytes, None], end: bytes) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
    yield end


def _slow() -> ProblemError:
    return ProblemError("the stream was silent for too long", status=408, code="slow")
