"""What the typed REST clients have in common: calls over httpx2, retried by the API's own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from anonymix_adapters._rest_pictures import file_of
from anonymix_adapters._wire import current, not_ours
from anonymix_adapters.errors import AdapterError, BackEndError, BypassError, NotProtectedError
from anonymix_adapters.interceptor import Interceptor
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import Hooks, hook
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    import httpx2
    import tenacity

_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_WORDS: Final = 300
"""Characters of a vendor's words that an error repeats."""


class Reply(BaseModel):
    """Base of what APIs answer: typed where it matters, open to fields that a vendor adds."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


T = TypeVar("T")
R = TypeVar("R", bound=Reply)
R_co = TypeVar("R_co", bound=Reply, covariant=True)


class ApiError(BackEndError):
    """An API said no, or nothing.

    Attributes:
        status: HTTP status, 0 where no answer came.
        reason: The vendor's own code for it, "" where there is none.
    """

    code = "api"

    def __init__(self, what: str, *, where: str, status: int = 0, reason: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Failure:
    """What an answer that is no success means.

    Attributes:
        what: The vendor's words.
        reason: The vendor's code.
        again: Whether the call may be sent again. "yes": it was turned down before anything was done.
            "if idempotent": perhaps it was done, so only calls that change nothing by being done twice.
        after: Seconds that the API asks to wait.
        status: HTTP status, 0 where no answer came.
    """

    what: str
    reason: str = ""
    again: Literal["no", "yes", "if idempotent"] = "no"
    after: float | None = None
    status: int = 0


@dataclass(frozen=True)
class Call(Generic[R_co]):
    """One call of an API, before it is written on the wire.

    Attributes:
        name: Its name in the adapter's tables.
        reply: What its answer is read as.
        method: HTTP method.
        path: Below the API's address.
        fields: Fields of the form, texts.
        query: Fields of the query.
        pictures: Photos by field; values as the caller gave them.
        about: What the caller says of the call that is not sent as such (the collection, the subject).
        subject: Whose face it is, for the adapter alone; it is not sent.
        idempotent: Whether doing it twice is the same as doing it once.
    """

    name: str
    reply: type[R_co]
    method: str
    path: str = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    pictures: Mapping[str, Any] = field(default_factory=dict, repr=False)
    about: Mapping[str, str] = field(default_factory=dict, repr=False)
    subject: str | None = field(default=None, repr=False)
    idempotent: bool = True


Send = Callable[[Call[Any]], Any]


class Around(Protocol):
    """What stands in front of a client's calls."""

    @property
    def interceptor(self) -> Interceptor:
        """The interceptor of the adapter."""
        ...

    def __call__(self, call: Call[Any], send: Send) -> Any:
        """Make a call by `send`, with what may be sent."""
        ...

    def passed(self, given: Any) -> Any | None:
        """What is sent as it is in a picture's place, or None."""
        ...


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait, and how often to try.

    Attributes:
        timeout: Seconds for each of connecting, writing and reading.
        attempts: Tries in all, 1 for none but the first.
        pause: Seconds before the second try; it doubles from try to try, with jitter.
        longest: Seconds that no single pause exceeds, whatever the API asks for.

    Raises:
        UsageError: There is no try at all, or a time is negative.
    """

    timeout: float = 10.0
    attempts: int = 4
    pause: float = 0.25
    longest: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.timeout <= 0 or min(self.pause, self.longest) < 0:
            raise UsageError("a retry policy needs a try and times that are not negative", where=repr(self))

    def run(self, once: Callable[[], T | Failure], *, idempotent: bool) -> T | Failure:
        """Call a function until it succeeds or may not be called again; its last answer."""
        import tenacity

        grows = tenacity.wait_exponential(multiplier=self.pause) + tenacity.wait_random(0, self.pause)

        def wait(state: tenacity.RetryCallState) -> float:
            return min(max(grows(state), _answer(state).after or 0.0), self.longest)

        def again(answer: T | Failure) -> bool:
            return isinstance(answer, Failure) and (
                answer.again == "yes" or (idempotent and answer.again == "if idempotent")
            )

        tries = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=wait,
            retry=tenacity.retry_if_result(again),
            retry_error_callback=_answer,
        )
        return tries(once)


class RestClient:
    """Base of the REST clients. Safe to use from many threads.

    Args:
        url: Address of the API. Plain http is refused, but for this machine itself.
        headers: Sent with each request.
        retry: Time-outs and retries.
        insecure_http: Allow plain http to another machine, inside a network that you trust.

    Redirects are not followed: a picture goes where it was sent, and nowhere else.
    """

    NAME: str = ""
    SDK: Sdk = Sdk("httpx2", ("httpx2",), "facepp", ">=2.10,<3")

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        insecure_http: bool = False,
    ) -> None:
        self.SDK.load()
        replace(self.SDK, module="tenacity", distributions=("tenacity",), tested=">=9,<10").load()
        import httpx2

        parts = urlsplit(url)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise AdapterError("the address is no http(s) URL", where=self.NAME, fix="e.g. https://host/")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not insecure_http:
            raise AdapterError(
                "plain http would send the API key in the clear",
                where=self.NAME,
                fix="use https, or insecure_http=True inside a network that you trust",
            )
        self._retry = retry or RetryPolicy()
        self._http: httpx2.Client = httpx2.Client(
            base_url=url, headers=dict(headers or {}), timeout=self._retry.timeout, follow_redirects=False
        )
        self._around: Around | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http.base_url.host!r})"

    def watch(self, watcher: Callable[[bytes], None]) -> None:
        """Have a function called with the body of each request, try by try; not once it is protected."""
        from anonymix_adapters import _rest_line

        _rest_line.look_at(self._http, lambda _, body: watcher(body))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put_around(self, around: Around) -> Hooks:
        """Have an adapter make the calls, and look at each request last."""
        from anonymix_adapters import _rest_line

        http = self._http

        def look(request: httpx2.Request, body: bytes) -> None:
            call = current(around.interceptor)
            if call is None or not call.knows(_signed(request, body)):
                raise not_ours(around.interceptor, "the request is not the one that the adapter made")

        def intact() -> bool:
            return _rest_line.is_looked_at(http, look)

        lines = Hooks(_rest_line.look_at(http, look), intact)
        return Hooks.together([lines, hook(self, {"_http": http, "_around": around, "_intact": intact})])

    def _intact(self) -> bool:
        """Whether what `put_around` put there is still in its place."""
        return True

    def _call(self, call: Call[R]) -> R:
        """Make a call: through the mixer where one stands in front, as it is otherwise."""
        around = self._around
        if not self._intact():
            raise BypassError(
                "the client's transports were exchanged after it was protected; nothing was sent",
                where=self.NAME,
                fix="set a client up first, and protect it then",
            )
        if around is None and call.subject is not None:
            raise NotProtectedError(
                "subject= is for a protected client; nothing was sent", where=self.NAME, fix="call protect"
            )
        result: R = self._send(call) if around is None else around(call, self._send)
        return result

    def _send(self, call: Call[R]) -> R:
        """Write a call on the wire, and again where the API's rules allow it: the same bytes each time."""
        import httpx2

        from anonymix_adapters._rest_line import send

        request = self._request(call)
        if self._around is not None:
            self._vouch(self._around, call, request)

        def once() -> httpx2.Response | Failure:
            try:
                response = send(self._http, request)
            except httpx2.ConnectError as error:  # nothing arrived
                return Failure(f"can't be reached: {error}", again="yes")
            except httpx2.HTTPError as error:
                # Its text alone: the exception itself holds the request, and with it the API key.
                return Failure(f"{type(error).__name__} {error}".strip(), again="if idempotent")
            failure = self._failure(response)
            return response if failure is None else replace(failure, status=response.status_code)

        answer = self._retry.run(once, idempotent=call.idempotent)
        if isinstance(answer, Failure):
            raise ApiError(
                f"{call.name}: {self._told(call, answer.what)}",
                where=self.NAME,
                status=answer.status,
                reason=self._told(call, answer.reason),
            )
        return self._read(call, answer)

    def _vouch(self, around: Around, call: Call[Any], request: httpx2.Request) -> None:
        """Note a request as the adapter's own, once each of its pictures is known to be."""
        made = current(around.interceptor)
        if made is None:
            raise not_ours(around.interceptor, "the call was not made through the adapter")
        for picture in call.pictures.values():
            ours = isinstance(picture, bytes) and made.knows(picture)
            if not ours and around.passed(picture) is None:
                raise not_ours(around.interceptor)
        made.note(_signed(request, request.content))

    def _told(self, call: Call[Any], text: str) -> str:
        """A vendor's words without what it was sent: it may repeat names, addresses and keys."""
        known = {*call.fields.values(), *call.query.values(), *call.about.values(), *self._secrets()}
        for value in sorted(filter(_telling, known | {call.subject or ""}), key=len, reverse=True):
            text = text.replace(value, "(what was sent)")
        return text if len(text) <= _WORDS else f"{text[:_WORDS]}..."

    def _secrets(self) -> Iterable[str]:
        """Keys and tokens that no message may hold."""
        return ()

    def _request(self, call: Call[Any]) -> httpx2.Request:
        files = {name: ("face.jpg", data, "image/jpeg") for name, data in self._files(call).items()}
        request: httpx2.Request = self._http.build_request(
            call.method,
            call.path,
            params=dict(call.query) or None,
            data=dict(self._form(call)) or None,
            files=files or None,
        )
        request.read()  # so that each try sends the same bytes
        return request

    def _form(self, call: Call[Any]) -> Mapping[str, str]:
        """The fields of the form."""
        return call.fields

    def _files(self, call: Call[Any]) -> Mapping[str, bytes]:
        """The files of the form."""
        return {name: file_of(photo) for name, photo in call.pictures.items()}

    def _failure(self, response: httpx2.Response) -> Failure | None:
        """What an answer means, by the API's own rules; None for a success."""
        raise NotImplementedError

    def _read(self, call: Call[R], response: httpx2.Response) -> R:
        try:
            return call.reply.model_validate_json(response.content or b"{}")
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ApiError(
                f"{call.name}: the answer is not what the API's documentation says: {first['msg']}",
                where=f"{self.NAME} {place}".strip(),
                status=response.status_code,
            ) from None


def _answer(state: tenacity.RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None


def _signed(request: httpx2.Request, body: bytes) -> bytes:
    """What makes a request what it is: where it goes, and all of its body."""
    return f"{request.method} {request.url}\n".encode() + body


def _telling(value: str) -> bool:
    """Whether a value that was sent says anything of anybody; "1" and "true" do not."""
    return len(value) > 2 and not value.isdecimal()


def asked_to_wait(response: httpx2.Response) -> float | None:
    """Seconds of a Retry-After header; None where there is none, or a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def by_status(response: httpx2.Response, what: str, reason: str = "") -> Failure | None:
    """What the status alone says, for APIs that have no code of their own for it."""
    if response.status_code < 300:
        return None
    if response.status_code in {429, 503}:
        return Failure(what, reason, "yes", asked_to_wait(response))
    again: Literal["no", "if idempotent"] = "if idempotent" if response.status_code >= 500 else "no"
    return Failure(what, reason, again, asked_to_wait(response))
