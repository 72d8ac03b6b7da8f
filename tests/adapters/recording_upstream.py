"""An upstream that keeps every byte it is sent, a mixer that is quick, and requests by profile."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx2
import numpy as np

from anonymix_adapters.gateway import Profile, Received
from anonymix_keystore import Keystore
from anonymix_plugin import CancelableFace
from anonymix_plugin.first_keys import first_or_current
from anonymix_plugin.images import decode_photo

ID = "0f3a9c52-5f0e-4a51-9c60-6d2a54b1e7aa"
SECRETS = {
    "x-api-key": "key-not-real",
    "token": "token-not-real",
    "api_key": "k-not-real",
    "api_secret": "s-not-real",
}
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "compreface": {
        "add_face": {"image_id": ID, "subject": "alice"},
        "recognize": {
            "result": [{"box": {"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}, "subjects": [], "age": {"low": 30}}]
        },
        "faces": {"faces": [], "total_pages": 1},
        "delete_face": {"image_id": ID, "subject": "alice"},
        "delete_many": [{"image_id": ID, "subject": "alice"}],
        "delete_faces": {"deleted": 0},
        "delete_subject": {"subject": "alice"},
    },
    "facepp": {
        "detect": {"faces": [{"face_token": "t1", "face_rectangle": {"left": 1, "top": 1, "width": 5, "height": 5}}]},
        "addface": {"face_added": 1},
        "getdetail": {"face_tokens": []},
    },
    "luxand": {
        "add_person": {"status": "success", "uuid": ID},
        "add_face": {"status": "success", "uuid": ID},
        "people": [],
        "search": [],
        "delete_person": {"status": "success"},
        "delete_face": {"status": "success"},
    },
    "deepface-api": {"represent": {"results": [{"embedding": [0.1], "facial_area": {"x": 1, "y": 2, "w": 3, "h": 4}}]}},
}


class QuickMixer:
    """Draws the same grey face for everybody, and asks the keystore as the real mixer does."""

    fingerprint = "0" * 32
    box = (10.0, 20.0, 110.0, 140.0)

    def __init__(self, keystore: Keystore) -> None:
        self.keystore = keystore

    def protect(
        self,
        image: Any,
        *,
        subject: str | None = None,
        scope: str = "default",
        version: int | None = None,
        enrol: bool = False,
        channel_order: str = "rgb",
    ) -> CancelableFace:
        decode_photo(image)
        if subject is None:
            key = self.keystore.gallery(scope)
        else:
            key = first_or_current(self.keystore, subject, scope) if enrol else self.keystore.current(subject, scope)
        pixels = np.full((512, 512, 3), 90, np.uint8)
        return CancelableFace(pixels, self.box, key.subject, scope, key.version, self.fingerprint, "fast")

    def with_keystore(self, keystore: Any) -> QuickMixer:
        """See `Anonymixer`."""
        return QuickMixer(keystore)

    def close(self) -> None:
        """See `Anonymixer`."""


class Recording(httpx2.BaseTransport):
    """Keeps requests, and answers with what a profile's API would, or with what a test says."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.received: list[httpx2.Request] = []
        self.next: list[httpx2.Response | Exception] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.received.append(request)
        if self.next:
            answer = self.next.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        path = request.url.raw_path.decode().split("?")[0]
        found = self.profile.route(request.method, path)
        assert found is not None, f"{path} is no route of the profile"
        return httpx2.Response(200, json=ANSWERS[self.profile.name].get(found[0].call, {}))

    def bodies(self) -> bytes:
        """All that was sent."""
        return b"\n".join(str(each.url).encode() + b"\n" + each.content for each in self.received)


def example(kind: str) -> str:
    """A value that a field of that kind may have."""
    if kind.startswith("choice:"):
        return kind[7:].split(",", maxsplit=1)[0]
    return {"number": "1", "flag": "true", "ids": "a,b", "name": "alice"}.get(kind, "abc")


def request_for(
    profile: Profile, call: str, body: str | None = None, photo: bytes = b"", subject: str = "", **changes: Any
) -> Received:
    """A request of a route, as a client of the API writes it.

    Args:
        profile: The profile.
        call: Which route.
        body: How the body is written; the first way by default.
        photo: Stands in every picture.
        subject: For the gateway's own header.
        changes: `fields`, `files`, `query` and `headers` are added to; `raw` stands in the body's place.
    """
    route = next(each for each in profile.routes if each.call == call)
    body = body or (route.bodies[0] if route.bodies else None)
    path = profile.base + route.path
    for name in route.parameters:
        path = path.replace(f"{{{name}}}", ID)
    query = {n: example(k) for n, k in route.query.items()} | changes.get("query", {})
    fields: dict[str, Any] = {n: example(k) for n, k in route.fields.items()}
    fields |= {n: SECRETS[n] for n in profile.credentials.fields} | changes.get("fields", {})
    headers = {n: SECRETS[n] for n in profile.credentials.headers} | changes.get("headers", {})
    if subject:
        headers["anonymix-subject"] = subject
    files = {}
    for places in route.pictures.values():
        if body == "multipart":
            files[places.file] = ("a.jpg", photo, "image/jpeg")
        elif places.base64:
            fields[places.base64] = base64.b64encode(photo).decode()
    files |= changes.get("files", {})
    content: dict[str, Any] = {}
    if body == "multipart":
        content = {"data": fields, "files": files or {"": None}} if files else {"data": fields}
    elif body == "json":
        content = {"json": fields}
    elif body == "form":
        content = {"data": fields}
    elif body == "list":
        content = {"json": [ID]}
    made = httpx2.Request(route.method, f"http://gateway{path}", **content)
    data = changes.get("raw", made.read())
    every = [("content-type", made.headers["content-type"])] if "content-type" in made.headers else []
    every += [(name.lower(), value) for name, value in headers.items()]
    if "content-type" in changes.get("headers", {}):
        every = every[1:] if len([n for n, _ in every if n == "content-type"]) > 1 else every
    return Received(route.method, path, changes.get("raw_query", urlencode(query)), tuple(every), data)


def is_problem(document: Mapping[str, Any]) -> bool:
    """Whether it is a problem document of ours."""
    json.dumps(document)
    return {"type", "title", "status", "detail", "code"} <= document.keys()
