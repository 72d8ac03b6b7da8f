"""A vendor's API on a real socket of this machine, which keeps every byte that it is sent."""

from __future__ import annotations

import json
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from servers._recognition import Recognition, Seen


@dataclass(frozen=True)
class Received:
    """One request as it arrived.

    Attributes:
        method: GET, POST, ...
        target: Path and query, as on the wire.
        headers: Names in lower case.
        body: All of it.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        """The query's fields."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON; a refusal where it is none."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise Refusal(400, {"error": "the body is no JSON"}) from None

    def form(self) -> tuple[dict[str, str], dict[str, list[bytes]]]:
        """Fields and files of a form, whether it came as multipart or URL-encoded."""
        if self.media_type == "application/x-www-form-urlencoded":
            return dict(parse_qsl(self.body.decode(), keep_blank_values=True)), {}
        if self.media_type == "multipart/form-data":
            return _multipart(self.body, self.headers["content-type"])
        return {}, {}


@dataclass(frozen=True)
class Answer:
    """What goes back: a JSON value or bytes, with a status."""

    content: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"

    def body(self) -> bytes:
        """The bytes of the content."""
        if isinstance(self.content, bytes):
            return self.content
        return b"" if self.content is None else json.dumps(self.content).encode()


class Refusal(Exception):  # noqa: N818 - it is an answer
    """A request that the API turns down, in its own words."""

    def __init__(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {content}")
        self.answer = Answer(content, status, headers or {})


@dataclass(frozen=True)
class Fault:
    """Trouble to come: an answer in place of the real one, a wait before it, or no answer at all."""

    answer: Answer | None = None
    wait: float = 0.0
    hang_up: bool = False
    after_the_work: bool = False
    when: Callable[[Received], bool] = lambda _: True


class LocalService(ABC):
    """One vendor's API: routes, errors and limits as in its documentation, recognition by a real recogniser.

    Args:
        recognition: What recognises.

    Attributes:
        received: Every request, in order of arrival.
    """

    prefix: ClassVar[str] = ""

    def __init__(self, recognition: Recognition) -> None:
        self.recognition = recognition
        self.received: list[Received] = []
        self._faults: deque[Fault] = deque()
        self._lock = threading.RLock()
        service = self

        class Handler(_Handler):
            def answer(self, received: Received) -> Answer | None:
                return service._serve(received)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.prefix}"

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @abstractmethod
    def answer(self, received: Received) -> Answer:
        """Do what a request asks for.

        Raises:
            Refusal: It is turned down.
        """

    def fail(
        self,
        status: int,
        content: Any = None,
        *,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        after_the_work: bool = False,
        when: Callable[[Received], bool] = lambda _: True,
    ) -> None:
        """Turn down the next requests, or those of a kind; `after_the_work` does first what they ask for.

        With a status of success it is no refusal, but an untruth.
        """
        answer = Answer({} if content is None else content, status, headers or {})
        fault = Fault(answer, after_the_work=after_the_work, when=when)
        self._faults.extend([fault] * times)

    def mend(self) -> None:
        """Let go of the faults that are left."""
        self._faults.clear()

    def stall(self, seconds: float, *, times: int = 1) -> None:
        """Answer the next requests late."""
        self._faults.extend([Fault(wait=seconds)] * times)

    def hang_up(self, *, times: int = 1, after_the_work: bool = False) -> None:
        """Close the connection in place of an answer."""
        self._faults.extend([Fault(hang_up=True, after_the_work=after_the_work)] * times)

    def largest(self, data: bytes, refuse: Callable[[], Refusal]) -> Seen:
        """The largest face of an upload."""
        faces = self.recognition.faces(data)
        if not faces:
            raise refuse()
        return faces[0]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, received: Received) -> Answer | None:
        with self._lock:
            self.received.append(received)
            due = bool(self._faults) and self._faults[0].when(received)
            fault = self._faults.popleft() if due else Fault()
        if fault.wait:
            time.sleep(fault.wait)
        spoilt = fault.answer is not None or fault.hang_up
        if not spoilt or fault.after_the_work:
            with self._lock:
                try:
                    answer = self.answer(received)
                except Refusal as refusal:
                    answer = refusal.answer
            if not spoilt:
                return answer
        return None if fault.hang_up else fault.answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that gives up is part of the tests, and no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, received: Received) -> Answer | None:
        raise NotImplementedError

    def _handle(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("expect") == "100-continue":
            pass  # BaseHTTPRequestHandler has answered it already
        body = self._chunked() if headers.get("transfer-encoding") == "chunked" else self._whole(headers)
        answer = self.answer(Received(self.command, self.path, headers, body))
        if answer is None:
            self.close_connection = True
            return
        content = answer.body()
        self.send_response(answer.status)
        for name, value in {"Content-Type": answer.media_type, **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _whole(self, headers: Mapping[str, str]) -> bytes:
        return self.rfile.read(int(headers.get("content-length", "0")))

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Tests read `received` instead."""


_DISPOSITION = re.compile(rb'content-disposition:[^\r\n]*?[; ]name="([^"]*)"', re.IGNORECASE)
_FILENAME = re.compile(rb'filename="', re.IGNORECASE)


def _multipart(body: bytes, content_type: str) -> tuple[dict[str, str], dict[str, list[bytes]]]:
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if found is None:
        raise Refusal(400, {"error": "no boundary"})
    fields: dict[str, str] = {}
    files: dict[str, list[bytes]] = {}
    for part in body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        name = _DISPOSITION.search(head)
        if name is None:
            raise Refusal(400, {"error": "a part without a name"})
        if _FILENAME.search(head):
            files.setdefault(name[1].decode(), []).append(content)
        else:
            fields[name[1].decode()] = content.decode()
    return fields, files
