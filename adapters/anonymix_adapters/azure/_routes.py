"""What each request of the Face API is, and what has to happen to it. No SDK is needed here.

Source: the REST reference of Face v1.2 and the operations of `azure-ai-vision-face`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final
from urllib.parse import urlsplit

from cachetools import FIFOCache

from anonymix_adapters._rest_interceptor import CloudInterceptor
from anonymix_adapters._rest_pictures import Fetch, draw, encoded, fetched, refused
from anonymix_adapters._wire import check_values, current, not_ours, parsed
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import BypassError
from anonymix_adapters.interceptor import Whose
from anonymix_plugin.errors import UsageError
from anonymix_plugin.values import CancelableFace

LIMIT: Final = ImageLimit("JPEG", max_bytes=6 * 1024 * 1024, min_bytes=1024, min_side=36, max_side=4096, min_face=36)
"""Of the Face API's reference: JPEG from 1 KB to 6 MB, faces of 36 to 4096 px."""

_VERSION: Final = re.compile(r".*?/face/[^/]+/")
_FACES: Final = re.compile(
    r"(?P<collection>largefacelists/[^/]+|largepersongroups/[^/]+/persons/(?P<person>[^/]+))/persistedfaces"
)
_FACE: Final = re.compile(_FACES.pattern + r"/(?P<face>[^/]+)")
_PERSON: Final = re.compile(r"(?P<collection>largepersongroups/[^/]+)/persons/(?P<person>[^/]+)")
_CONTAINER: Final = re.compile(r"(?P<collection>(?:largefacelists|largepersongroups)/[^/]+)")
_WITHOUT: Final = (
    ("GET", re.compile(r"(?:largefacelists|largepersongroups)(?:/.*)?")),
    ("PUT|PATCH|DELETE", _CONTAINER),
    ("PATCH|DELETE", _PERSON),
    ("PATCH|DELETE", _FACE),
    ("POST", re.compile(_CONTAINER.pattern + "/(?:train|persons)")),
    ("GET|DELETE", re.compile(r"detectLiveness(?:WithVerify)?/singleModal/sessions(?:/.*)?")),
)
_BY_ID: Final = {"verify", "identify", "findsimilars", "group"}
_IDS: Final = 10_000


@dataclass(frozen=True)
class Plan:
    """A request as it will be sent.

    Attributes:
        body: The new body, a picture; None leaves the request as it is.
        enrols: Where the face goes to, if it is kept: (collection, prefix of the entry's id).
        face: The face in it.
        whose: Whose it is.
        detects: Whether the answer holds ids of the face.
        gone: Which entries the request deletes: (collection, the id or its beginning, whether it is all).
    """

    body: bytes | None = None
    enrols: tuple[str, str] | None = None
    face: CancelableFace | None = None
    whose: Whose | None = None
    detects: bool = False
    gone: tuple[str, str, bool] | None = None


class Routes:
    """Takes requests apart and puts them together again.

    Args:
        interceptor: In front of the client.
        fetch: Fetches photos by address; None refuses addresses.
    """

    def __init__(self, interceptor: CloudInterceptor, fetch: Fetch | None) -> None:
        self.interceptor, self._fetch = interceptor, fetch
        self._ids: FIFOCache[str, None] = FIFOCache(_IDS)
        self._lock = Lock()

    def plan(self, method: str, url: str, content_type: str, body: Any) -> Plan:
        """What becomes of a request; raises where there is no way through the mixer."""
        path = _path(url)
        if method == "POST" and path == "detect":
            face, picture, whose = self._mixed(content_type, body, "", enrol=False)
            return Plan(picture, face=face, whose=whose, detects=True)
        kept = _FACES.fullmatch(path)
        if method == "POST" and kept:
            _ = self.interceptor.registry  # raises where there is none: asked before anything is sent
            collection = _container(kept["collection"])
            face, picture, whose = self._mixed(content_type, body, collection, enrol=True)
            person = f"{kept['person']}/" if kept["person"] else ""
            return Plan(picture, (collection, person), face, whose)
        self._check_plain(method, path, content_type, body)
        return Plan(gone=_gone(path)) if method == "DELETE" else Plan()

    def look(self, method: str, url: str, content_type: str, body: Any) -> None:
        """Hold a request, as it is sent, against the picture that was made for the call."""
        path = _path(url)
        if method == "POST" and (path == "detect" or _FACES.fullmatch(path)):
            call = current(self.interceptor)
            ours = isinstance(body, bytes) and call is not None and call.knows(body)
            if not ours or _kind(content_type) != "application/octet-stream":
                raise not_ours(self.interceptor)
        else:
            self._check_plain(method, path, content_type, body)
            check_values(self.interceptor, parsed(self.interceptor, body))

    def _check_plain(self, method: str, path: str, content_type: str, body: Any) -> None:
        """Refuse what is not known to carry no picture."""
        if method == "POST" and path in _BY_ID:
            self._check_ids(_json(body))
            return
        known = any(re.fullmatch(verbs, method) and form.fullmatch(path) for verbs, form in _WITHOUT)
        if not known or _kind(content_type) not in {"", "application/json"}:
            raise refused(self.interceptor, "this request", "reads pictures past the mixer, or is not known to it")

    def settle(self, plan: Plan, answer: Any, undo: Callable[[list[str]], object]) -> None:
        """Remember the ids of cancelable faces; write down what was enrolled or deleted."""
        if plan.detects and isinstance(answer, list):
            self._remember(face["faceId"] for face in answer if face.get("faceId"))
        elif plan.enrols and plan.face and plan.whose:
            collection, person = plan.enrols
            found = answer.get("persistedFaceId") if isinstance(answer, dict) else None
            name = f"{person}{found}" if isinstance(found, str) and found else None
            self.interceptor.keep([(name, plan.face, plan.whose)], collection=collection, undo=undo)
        elif plan.gone:
            collection, name, everything = plan.gone
            if everything or name.endswith("/"):
                self.interceptor.gone(collection, lambda entry: everything or entry.startswith(name))
            else:
                self.interceptor.forget_entry(collection, name)

    def _mixed(
        self, content_type: str, body: Any, collection: str, *, enrol: bool
    ) -> tuple[CancelableFace, bytes, Whose]:
        kind = content_type.split(";", maxsplit=1)[0].strip().lower()
        if kind == "application/octet-stream":
            photo = encoded(self.interceptor, body, "the body")
        elif kind == "application/json":
            content = _json(body)
            if set(content) != {"url"}:
                raise refused(self.interceptor, "a picture of a liveness session", "is read past the mixer")
            photo = fetched(self.interceptor, content["url"], self._fetch)
        else:
            raise refused(self.interceptor, f"a body of type {kind or 'unknown'}", "is not known to the adapter")
        whose = self.interceptor.whose_call(collection=collection, enrol=enrol)
        face, picture = draw(self.interceptor, photo, whose, LIMIT)
        return face, picture, whose

    def _remember(self, names: Iterable[str]) -> None:
        with self._lock:
            self._ids.update(dict.fromkeys(names))

    def _check_ids(self, content: Mapping[str, Any]) -> None:
        names = [value for key, value in content.items() if key in {"faceId", "faceId1", "faceId2"}]
        names += content.get("faceIds", [])
        with self._lock:
            strange = [name for name in names if name not in self._ids]
        if strange:
            raise BypassError(
                "a face id was not made through the mixer: it may be that of a photo; nothing was sent",
                where=self.interceptor.adapter,
                fix="detect the photo through this protected client",
            )


def _path(url: str) -> str:
    return _VERSION.sub("", urlsplit(url).path, count=1).strip("/")


def _kind(content_type: str) -> str:
    return content_type.split(";", maxsplit=1)[0].strip().lower()


def _json(body: Any) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (TypeError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UsageError("the body is no JSON object; nothing was sent", where="azure")
    return content


def _container(path: str) -> str:
    return "/".join(path.split("/")[:2])


def _gone(path: str) -> tuple[str, str, bool] | None:
    face = _FACE.fullmatch(path)
    if face:
        person = f"{face['person']}/" if face["person"] else ""
        return _container(face["collection"]), f"{person}{face['face']}", False
    person_of = _PERSON.fullmatch(path)
    if person_of:
        return person_of["collection"], f"{person_of['person']}/", False
    container = _CONTAINER.fullmatch(path)
    return (container["collection"], "", True) if container else None
