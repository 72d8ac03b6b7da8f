"""Where the photos of Tencent's client are taken over.

All methods of the SDK's `IaiClient` end in one of its `call...` methods, with the action's name and its
parameters as a dictionary. Those are replaced on the instance, above the SDK's own retries: each try sends
the same face. Each try ends in the connection behind the client (its `request.conn`; for async clients the
transport of its `http_client`): there the request is held against the faces that were made for the call.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from anonymix_adapters._rest_interceptor import CloudInterceptor, FieldRule
from anonymix_adapters._rest_pictures import Fetch, draw, fetched, refused
from anonymix_adapters._wire import check_picture, check_values, not_ours, parsed, sending, taking_subject
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import AdapterError, BackEndError
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule, Whose
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import Hooks, hook, interceptor_of, unwrap, wrap
from anonymix_keystore import KeystoreError
from anonymix_plugin.claims import carried
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.values import CancelableFace

__all__ = ["COLLECTION", "LIMIT", "NAME", "SDKS", "install", "interceptor_of", "protect", "unprotect"]

NAME: Final = "tencent"
SDKS: Final = (
    Sdk("tencentcloud.iai.v20200303.iai_client", ("tencentcloud-sdk-python-iai",), "tencent", ">=3.1.191,<3.2"),
)

LIMIT: Final = ImageLimit("JPEG", max_bytes=3_900_000, min_side=64, max_side=4000, min_face=34)
"""Of Tencent's documents: at most 5 MB of Base64; the long side of a JPEG to 4000 px, the short from 64."""

COLLECTION: Final = "persons"
"""A PersonId is unique in an account, and a person may be in several groups: records name none of them."""

Detection = Literal["refuse", "protect"]


def protect(
    target: Any,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    detect: Detection = "refuse",
    fetch: Fetch | None = None,
    field: FieldRule = "subject",
) -> Any:
    """Put the mixer in front of an `IaiClient`, blocking or async, in place.

    PersonId is the subject where a call has one; elsewhere it is `subject=`, which each method of the client
    takes besides its own parameters and does not send, or `with mixer.subject(...)`, or the gallery key.

    Args:
        target: The client, of version 2020-03-03.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Interceptor`.
        scope: Scope of the keys.
        detect: What becomes of DetectFace and DetectFaceAttributes: "refuse", or "protect", which describes
            a cancelable face.
        fetch: Fetches photos that are given by Url. Without it they are refused.
        field: What PersonId is; see `FieldRule`.

    Returns:
        The same client.

    Raises:
        SdkMissingError, SdkVersionError: The SDK is not there, or not as tested.
        AdapterError: It is no IaiClient.
        DoubleProtectionError: It is protected already, in another way.
    """
    if detect not in {"refuse", "protect"}:
        raise UsageError(f"DetectFace can't be {detect!r}", where="detect", fix="use 'refuse' or 'protect'")
    interceptor = CloudInterceptor(mixer, NAME, keys=keys, scope=scope, field=field, detect=detect, fetch=fetch)
    return install(target, interceptor, detect=detect, fetch=fetch)


def unprotect(target: Any) -> Any:
    """See `Adapter.unprotect`."""
    return unwrap(target)


def install(
    target: Any, interceptor: CloudInterceptor, *, detect: Detection = "refuse", fetch: Fetch | None = None
) -> Any:
    """`protect`, with an interceptor that is there already."""
    SDKS[0].check()
    plan = _Planner(interceptor, detect, fetch)
    kind = type(target)
    if getattr(kind, "_service", "") != "iai" or getattr(kind, "_apiVersion", "") != "2020-03-03":
        raise AdapterError(
            "this is no IaiClient of version 2020-03-03",
            where=NAME,
            fix="use tencentcloud.iai.v20200303.iai_client.IaiClient",
        )
    if asyncio.iscoroutinefunction(getattr(kind, "call_and_deserialize", None)):
        return wrap(target, interceptor, lambda client: _async_hooks(client, plan))
    return wrap(target, interceptor, lambda client: _hooks(client, plan))


def _hooks(client: Any, planner: _Planner) -> Hooks:
    """What stands in front of a blocking client."""
    plainly, request, connection = client.call_json, client.request, client.request.conn
    send, write = request.send_request, connection.request

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(action: str, params: Any, *args: Any, subject: str | None = None, **options: Any) -> Any:
            with sending(planner.interceptor, subject), _unveiled():
                plan = planner.plan(action, params)
                answer = original(action, plan.params, *args, **options)
                planner.settle(plan, _content(answer), plainly)
            return answer

        return taking_subject(call, original)

    def refusing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> Any:
            raise refused(planner.interceptor, original.__name__, "sends in a way that the adapter does not know")

        return taking_subject(call, original)

    def named(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, subject: str | None = None, **options: Any) -> Any:
            with sending(planner.interceptor, subject, awaited=True), _unveiled():
                return method(*args, **options)

        return taking_subject(call, method)

    def sent(wanted: Any) -> Any:
        planner.look(wanted.header, wanted.data, "")
        return send(wanted)

    def written(method: str, url: str, body: Any = None, headers: Any = None) -> Any:
        planner.look(headers or {}, body, urlsplit(url).query)
        return write(method, url, body, headers)

    methods = {name: around(getattr(client, name)) for name in ("call", "call_json")}
    others = ("call_sse", "call_octet_stream", "call_with_region_breaker", "_call_and_deserialize")
    methods |= {name: refusing(getattr(client, name)) for name in others if hasattr(client, name)}
    methods |= {name: named(getattr(client, name)) for name in _actions(client)}
    return Hooks.together(
        [
            hook(connection, {"request": written}),
            hook(request, {"conn": connection}),
            _put(request, "send_request", sent),
            hook(client, {**methods, "request": request}),
        ]
    )


def _async_hooks(client: Any, planner: _Planner) -> Hooks:
    """What stands in front of an async client."""
    from anonymix_adapters import _rest_line

    original, http = client.call_and_deserialize, client.http_client

    async def call(action: str, params: Any, *args: Any, subject: str | None = None, **options: Any) -> Any:
        loop = asyncio.get_running_loop()

        def plainly(*back: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(original(*back), loop).result()

        with sending(planner.interceptor, subject):
            plan = await asyncio.to_thread(carried(planner.plan), action, params)
            answer = await original(action, plan.params, *args, **options)
            await asyncio.to_thread(planner.settle, plan, _content(answer), plainly)
        return answer

    def named(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, subject: str | None = None, **options: Any) -> Any:
            with sending(planner.interceptor, subject, awaited=True):
                return await method(*args, **options)

        return taking_subject(call, method)

    def look(request: Any, body: bytes) -> None:
        planner.look(request.headers, body, request.url.query.decode())

    out = _rest_line.look_at(http, look)
    methods = {"call_and_deserialize": taking_subject(call, original), "http_client": http}
    return Hooks.together(
        [
            Hooks(out, lambda: _rest_line.is_looked_at(http, look)),
            hook(client, methods | {name: named(getattr(client, name)) for name in _actions(client)}),
        ]
    )


def _put(target: Any, name: str, value: Any) -> Hooks:
    """Put an attribute on an instance, where the host's own wrappers may stand above it."""
    vars(target)[name] = value
    return Hooks(lambda: vars(target).pop(name, None))


def _actions(client: Any) -> list[str]:
    return [name for name in dir(type(client)) if name[0].isupper() and name != "FMT"]


def _content(answer: Any) -> Mapping[str, Any]:
    """What an answer says, whichever form the SDK gives it."""
    if isinstance(answer, bytes | str):
        answer = json.loads(answer)
    elif not isinstance(answer, dict):
        answer = answer._serialize()
    content: Mapping[str, Any] = answer.get("Response", answer)
    return content


@contextmanager
def _unveiled() -> Iterator[None]:
    """The SDK turns every error into one of its own; ours comes out as it was raised."""
    try:
        yield
    except Exception as error:
        inner = error.__context__
        while inner is not None and not isinstance(inner, AnonymixError | KeystoreError):
            inner = inner.__context__
        if inner is None or isinstance(error, AnonymixError | KeystoreError):
            raise
        raise inner from None


@dataclass(frozen=True)
class _Plan:
    """A call as it will be sent, and what was put into it."""

    action: str
    params: Mapping[str, Any]
    faces: Sequence[CancelableFace] = ()
    whose: Whose | None = None


class _Planner:
    """Knows each action."""

    _PAIR: ClassVar = (("ImageA", "UrlA"), ("ImageB", "UrlB"))
    _ONE: ClassVar = (("Image", "Url"),)
    _MIXED: ClassVar[Mapping[str, tuple[tuple[str, str], ...]]] = {
        "CompareFace": _PAIR,
        "CompareMaskFace": _PAIR,
        "DetectFaceSimilarity": _PAIR,
        "VerifyFace": _ONE,
        "VerifyPerson": _ONE,
        "SearchFaces": _ONE,
        "SearchFacesReturnsByGroup": _ONE,
        "SearchPersons": _ONE,
        "SearchPersonsReturnsByGroup": _ONE,
        "CreatePerson": _ONE,
        "CreateFace": (("Images", "Urls"),),
    }
    _DETECTING: ClassVar = ("DetectFace", "DetectFaceAttributes")
    # Actions without a picture. Whatever is in neither list, new actions included, is refused.
    _WITHOUT: ClassVar = frozenset(
        {
            "CopyPerson",
            "CreateGroup",
            "DeleteFace",
            "DeleteGroup",
            "DeletePerson",
            "DeletePersonFromGroup",
            "GetGroupInfo",
            "GetGroupList",
            "GetPersonBaseInfo",
            "GetPersonGroupInfo",
            "GetPersonList",
            "GetPersonListNum",
            "GetUpgradeGroupFaceModelVersionJobList",
            "GetUpgradeGroupFaceModelVersionResult",
            "ModifyGroup",
            "ModifyPersonBaseInfo",
            "ModifyPersonGroupInfo",
            "RevertGroupFaceModelVersion",
            "UpgradeGroupFaceModelVersion",
        }
    )
    _ENROLS: ClassVar = frozenset({"CreatePerson", "CreateFace"})

    def __init__(self, interceptor: CloudInterceptor, detect: Detection, fetch: Fetch | None) -> None:
        self.interceptor, self._fetch = interceptor, fetch
        self._mixed = dict(self._MIXED)
        if detect == "protect":
            self._mixed |= dict.fromkeys(self._DETECTING, self._ONE)

    def plan(self, action: str, params: Any) -> _Plan:
        """The call with cancelable faces in place of photos; raises where there is no way through."""
        given = dict(params) if isinstance(params, Mapping) else params._serialize()
        if action in self._WITHOUT and not {"Image", "Images", "Url", "Urls"} & set(given):
            return _Plan(action, given)
        if action not in self._mixed:
            raise refused(self.interceptor, action, "reads pictures past the mixer, or is not known to the adapter")
        enrols = action in self._ENROLS
        whose = self.interceptor.whose_call(given.get("PersonId"), collection=COLLECTION, enrol=enrols)
        if enrols:
            _ = self.interceptor.registry  # raises where there is none: asked before anything is sent
        faces: list[CancelableFace] = []
        for image, url in self._mixed[action]:
            photos = self._photos(action, given, image, url)
            drawn = [draw(self.interceptor, photo, whose, LIMIT) for photo in photos]
            faces += [face for face, _ in drawn]
            texts = [base64.b64encode(picture).decode() for _, picture in drawn]
            given.pop(url, None)
            given[image] = texts if image == "Images" else texts[0]
        return _Plan(action, given, faces, whose)

    def look(self, headers: Mapping[str, str], body: Any, query: str) -> None:
        """Hold a request, as it is sent, against the pictures that were made for the call."""
        lower = {name.lower(): value for name, value in headers.items()}
        kind = lower.get("content-type", "").split(";")[0].strip()
        if query or kind == "application/x-www-form-urlencoded":
            text = body.decode() if isinstance(body, bytes) else body or ""
            content: dict[str, Any] = dict(parse_qsl(query) + parse_qsl(text))
        elif kind == "application/json":
            content = parsed(self.interceptor, body)
        else:
            raise not_ours(self.interceptor, "the request is of a kind that can't be looked at")
        action = lower.get("x-tc-action") or content.get("Action", "")
        if action not in self._mixed and action not in self._WITHOUT:
            raise refused(self.interceptor, "this request", "is not known to the adapter")
        places = {image for image, _ in self._mixed.get(action, ())}
        for name in [name for name in content if name.split(".")[0] in places]:
            value = content.pop(name)
            for each in value if isinstance(value, list) else [value]:
                check_picture(self.interceptor, each)
        if any(name.startswith(("Image", "Url", "Video")) for name in content):
            raise not_ours(self.interceptor)
        check_values(self.interceptor, content)

    def settle(self, plan: _Plan, response: Mapping[str, Any], plainly: Callable[..., Any]) -> None:
        """Write down what Tencent says that it enrolled, and what it deleted.

        Raises:
            BackEndError: The answer is an error that the SDK did not see.
        """
        if "Error" in response:
            raise BackEndError("Tencent refused; nothing was recorded", where=f"{NAME} {plan.action}")
        person = plan.params.get("PersonId")
        if plan.whose is not None and plan.action in self._ENROLS:
            whose = plan.whose

            def undo(_: list[str]) -> None:
                plainly(*_back(plan, response))

            made = [(name and f"{person}/{name}", face, whose) for name, face in _entries(plan, response)]
            self.interceptor.keep(made, collection=COLLECTION, undo=undo)
        elif plan.action == "DeletePerson":
            self._forget(str(person))
        elif plan.action == "DeleteFace":
            for name in response.get("SucFaceIds") or ():
                self.interceptor.forget_entry(COLLECTION, f"{person}/{name}")
        elif plan.action in {"DeletePersonFromGroup", "DeleteGroup"}:
            # Whoever was in no other group is gone; Tencent does not say who.
            for each in {entry.external_id.rpartition("/")[0] for entry in self.interceptor.entries(COLLECTION)}:
                if person in {None, each} and _is_gone(plainly, each):
                    self._forget(each)

    def _forget(self, person: str) -> None:
        self.interceptor.gone(COLLECTION, lambda name: name.startswith(f"{person}/"))

    def _photos(self, action: str, given: Mapping[str, Any], image: str, url: str) -> list[bytes]:
        texts, addresses = given.get(image), given.get(url)
        if bool(texts) == bool(addresses):
            # With both, Tencent reads the address alone.
            raise UsageError(f"{action} needs either {image} or {url}; nothing was sent", where=NAME)
        many = image == "Images"
        if addresses:
            return [fetched(self.interceptor, each, self._fetch) for each in _listed(addresses, many=many)]
        return [_decoded(each, image) for each in _listed(texts, many=many)]


def _listed(value: Any, *, many: bool) -> list[Any]:
    return list(value) if many else [value]


def _decoded(text: Any, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise UsageError(f"{name} is no Base64; nothing was sent", where=NAME) from None


def _entries(plan: _Plan, response: Mapping[str, Any]) -> list[tuple[Any, CancelableFace]]:
    """Id and face of each entry that Tencent says it made.

    With UniquePersonControl a person who may be there already is not made: the answer tells of the other one.
    """
    if plan.action == "CreatePerson":
        return [] if response.get("SimilarPersonId") else [(response.get("FaceId"), plan.faces[0])]
    names: Sequence[str] = response.get("SucFaceIds") or []
    codes: Sequence[int] = response.get("RetCode") or [0] * len(plan.faces)  # 0 where a face was taken
    taken = [face for face, code in zip(plan.faces, codes, strict=False) if code == 0]
    if len(names) != len(taken):
        # Which is which is unknown; all are of one person and made with one key, so that it does not matter.
        taken = list(plan.faces[:1]) * len(names)
    return list(zip(names, taken, strict=True))


def _back(plan: _Plan, response: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The call that takes back what another one enrolled."""
    person = {"PersonId": plan.params.get("PersonId")}
    if plan.action == "CreatePerson":
        return "DeletePerson", person
    return "DeleteFace", {**person, "FaceIds": response["SucFaceIds"]}


def _is_gone(plainly: Callable[..., Any], person: str) -> bool:
    """Whether Tencent knows a person no longer."""
    try:
        plainly("GetPersonBaseInfo", {"PersonId": person})
    except Exception as error:
        code = getattr(error, "code", "")
        if code == "InvalidParameterValue.PersonIdNotExist":
            return True
        raise
    return False
