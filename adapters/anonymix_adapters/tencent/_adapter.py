"""Where the photos of Tencent's client are taken over.

All methods of the SDK's `IaiClient` end in one of its `call...` methods, with the action's name and its
parameters as a dictionary. Those are replaced on the instance, above the SDK's own retries: each try sends
the same face.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from anonymix_adapters._rest_gate import CloudGate
from anonymix_adapters._rest_pictures import Fetch, draw, fetched, refused
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import AdapterError, EnrolmentError
from anonymix_adapters.gate import FaceMixer, Gate, KeyUse, ScopeRule, Whose
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import gate_of, unwrap, wrap
from anonymix_keystore import KeystoreError
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.values import CancelableFace

__all__ = ["COLLECTION", "LIMIT", "NAME", "SDKS", "gate_of", "install", "protect", "unprotect"]

NAME: Final = "tencent"
SDKS: Final = (
    Sdk(
        "tencentcloud.iai.v20200303.iai_client", ("tencentcloud-sdk-python-iai",), "tencent", ">=3.1.191,<3.2"
    ),
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
) -> Any:
    """Put the mixer in front of an `IaiClient`, blocking or async, in place.

    PersonId is the subject where a call has one; elsewhere it is `with mixer.subject(...)`, or the gallery
    key.

    Args:
        target: The client, of version 2020-03-03.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Gate`.
        scope: Scope of the keys.
        detect: What becomes of DetectFace and DetectFaceAttributes: "refuse", or "protect", which describes
            a cancelable face.
        fetch: Fetches photos that are given by Url. Without it they are refused.

    Returns:
        The same client.

    Raises:
        SdkMissingError, SdkVersionError: The SDK is not there, or not as tested.
        AdapterError: It is no IaiClient.
        DoubleProtectionError: It is protected already, in another way.
    """
    if detect not in {"refuse", "protect"}:
        raise UsageError(f"DetectFace can't be {detect!r}", where="detect", fix="use 'refuse' or 'protect'")
    gate = CloudGate(mixer, NAME, keys=keys, scope=scope, detect=detect, fetch=fetch)
    return install(target, gate, detect=detect, fetch=fetch)


def unprotect(target: Any) -> Any:
    """See `Adapter.unprotect`."""
    return unwrap(target)


def install(target: Any, gate: Gate, *, detect: Detection = "refuse", fetch: Fetch | None = None) -> Any:
    """`protect`, with a gate that is there already."""
    SDKS[0].check()
    plan = _Planner(gate, detect, fetch)
    kind = type(target)
    if getattr(kind, "_service", "") != "iai" or getattr(kind, "_apiVersion", "") != "2020-03-03":
        raise AdapterError(
            "this is no IaiClient of version 2020-03-03",
            where=NAME,
            fix="use tencentcloud.iai.v20200303.iai_client.IaiClient",
        )
    if asyncio.iscoroutinefunction(getattr(kind, "call_and_deserialize", None)):
        return wrap(target, gate, lambda client: _replace(client, _async_calls(client, plan)))
    return wrap(target, gate, lambda client: _replace(client, _calls(client, plan)))


def _replace(client: Any, methods: Mapping[str, Callable[..., Any]]) -> Callable[[], None]:
    vars(client).update(methods)

    def undo() -> None:
        for name in methods:
            del vars(client)[name]

    return undo


def _calls(client: Any, planner: _Planner) -> dict[str, Callable[..., Any]]:
    """What stands in the place of a blocking client's methods."""
    plainly = client.call_json

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(action: str, params: Any, *args: Any, **options: Any) -> Any:
            plan = planner.plan(action, params)
            answer = original(action, plan.params, *args, **options)
            content = json.loads(answer) if isinstance(answer, bytes | str) else answer
            try:
                planner.settle(plan, content.get("Response", content))
            except Exception as error:
                back = plan.back(content.get("Response", content))
                if back is not None:
                    planner.gate.take_back(lambda: plainly(*back), error)
                raise
            return answer

        return call

    def refuse(action: str, *_: Any, **__: Any) -> Any:
        raise refused(planner.gate, action, "is sent in a way that the adapter does not know")

    methods = {name: around(getattr(client, name)) for name in ("call", "call_json")}
    others = ("call_sse", "call_octet_stream", "call_with_region_breaker", "_call_and_deserialize")
    methods |= {name: refuse for name in others if hasattr(client, name)}
    return methods | {
        name: _unveil(getattr(client, name))
        for name in dir(type(client))
        if name[0].isupper() and name != "FMT"
    }


def _unveil(method: Callable[..., Any]) -> Callable[..., Any]:
    """The SDK turns every error into one of its own; ours comes out as it was raised."""

    def call(*args: Any, **options: Any) -> Any:
        try:
            return method(*args, **options)
        except Exception as error:
            if isinstance(error.__context__, AnonymixError | KeystoreError):
                raise error.__context__ from None
            raise

    return call


def _async_calls(client: Any, planner: _Planner) -> dict[str, Callable[..., Any]]:
    """What stands in the place of an async client's method."""
    original = client.call_and_deserialize

    async def call(action: str, params: Any, *args: Any, **options: Any) -> Any:
        plan = await asyncio.to_thread(planner.plan, action, params)
        answer = await original(action, plan.params, *args, **options)
        content = answer if isinstance(answer, dict) else answer._serialize()
        content = content.get("Response", content)
        try:
            await asyncio.to_thread(planner.settle, plan, content)
        except Exception as error:
            back = plan.back(content)
            if back is not None:
                try:
                    await original(*back)
                except Exception as worse:
                    raise EnrolmentError(
                        f"an entry was made, not recorded ({error}) and not deleted again ({worse})",
                        where=NAME,
                        fix="delete it in the back end by hand",
                    ) from worse
            raise
        return answer

    return {"call_and_deserialize": call}


@dataclass(frozen=True)
class _Plan:
    """A call as it will be sent, and what was put into it."""

    action: str
    params: Mapping[str, Any]
    faces: Sequence[CancelableFace] = ()
    whose: Whose | None = None

    def back(self, response: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """The call that takes back what this one enrolled."""
        person = self.params.get("PersonId")
        if self.action == "CreatePerson":
            return "DeletePerson", {"PersonId": person}
        if self.action == "CreateFace" and response.get("SucFaceIds"):
            return "DeleteFace", {"PersonId": person, "FaceIds": response["SucFaceIds"]}
        return None


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

    def __init__(self, gate: Gate, detect: Detection, fetch: Fetch | None) -> None:
        self.gate, self._fetch = gate, fetch
        self._mixed = dict(self._MIXED)
        if detect == "protect":
            self._mixed |= dict.fromkeys(self._DETECTING, self._ONE)

    def plan(self, action: str, params: Any) -> _Plan:
        """The call with cancelable faces in place of photos; raises where there is no way through."""
        given = dict(params) if isinstance(params, Mapping) else params._serialize()
        if action in self._WITHOUT and not {"Image", "Images", "Url", "Urls"} & set(given):
            return _Plan(action, given)
        if action not in self._mixed:
            raise refused(self.gate, action, "reads pictures past the mixer, or is not known to the adapter")
        enrols = action in self._ENROLS
        whose = self.gate.whose(field=given.get("PersonId"), collection=COLLECTION, enrol=enrols)
        if enrols:
            _ = self.gate.book  # raises where there is none: asked before anything is sent
        faces: list[CancelableFace] = []
        for image, url in self._mixed[action]:
            photos = self._photos(action, given, image, url)
            drawn = [draw(self.gate, photo, whose, LIMIT) for photo in photos]
            faces += [face for face, _ in drawn]
            texts = [base64.b64encode(picture).decode() for _, picture in drawn]
            given.pop(url, None)
            given[image] = texts if image == "Images" else texts[0]
        return _Plan(action, given, faces, whose)

    def settle(self, plan: _Plan, response: Mapping[str, Any]) -> None:
        """Write down what was enrolled, and what was deleted."""
        person = plan.params.get("PersonId")
        if plan.whose is not None and plan.action in self._ENROLS:
            for name, face in _entries(plan, response):
                self.gate.record(face, plan.whose, collection=COLLECTION, external_id=f"{person}/{name}")
        elif plan.action == "DeletePerson":
            self._forget(lambda name: name.startswith(f"{person}/"))
        elif plan.action == "DeleteFace":
            deleted: Sequence[str] = response.get("SucFaceIds") or plan.params["FaceIds"]
            gone = {f"{person}/{name}" for name in deleted}
            self._forget(gone.__contains__)

    def _photos(self, action: str, given: Mapping[str, Any], image: str, url: str) -> list[bytes]:
        texts, addresses = given.get(image), given.get(url)
        if bool(texts) == bool(addresses):
            # With both, Tencent reads the address alone.
            raise UsageError(f"{action} needs either {image} or {url}; nothing was sent", where=NAME)
        many = image == "Images"
        if addresses:
            return [fetched(self.gate, each, self._fetch) for each in _listed(addresses, many=many)]
        return [_decoded(each, image) for each in _listed(texts, many=many)]

    def _forget(self, gone: Callable[[str], bool]) -> None:
        for entry in self.gate.entries(COLLECTION):
            if gone(entry.external_id):
                self.gate.removed(entry)


def _listed(value: Any, *, many: bool) -> list[Any]:
    return list(value) if many else [value]


def _decoded(text: Any, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise UsageError(f"{name} is no Base64; nothing was sent", where=NAME) from None


def _entries(plan: _Plan, response: Mapping[str, Any]) -> Iterable[tuple[str, CancelableFace]]:
    """Id and face of each entry that was made."""
    if plan.action == "CreatePerson":
        return [(response["FaceId"], plan.faces[0])]
    codes: Sequence[int] = response.get("RetCode") or [0] * len(plan.faces)  # 0 where a face was taken
    taken = [face for face, code in zip(plan.faces, codes, strict=True) if code == 0]
    names: Sequence[str] = response.get("SucFaceIds") or []
    return zip(names, taken, strict=True)
