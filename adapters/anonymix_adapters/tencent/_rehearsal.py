"""A rehearsal on Tencent Cloud, or on what the environment names in its place."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from anonymix_adapters._rest_pictures import best
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.protocol import Answer
from anonymix_adapters.tencent._adapter import COLLECTION, NAME, SDKS, Detection, protect
from anonymix_adapters.testing.clouds import CloudRehearsal, Exchange, Wire, exchanged
from anonymix_adapters.wrapping import need_interceptor

_ACCEPTED: Final = 50.0
"""Tencent's documents on face model 3.0: false match rate .1 % at 40, .01 % at 50, .001 % at 60."""


@contextmanager
def rehearse(
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    detect: Detection = "refuse",
    connect: Callable[[], Any] | None = None,
) -> Iterator[CloudRehearsal]:
    """Make a group, rehearse in it, and delete it with the people in it.

    Args:
        mixer: Makes the cancelable faces.
        keys: See `protect`.
        scope: See `protect`.
        detect: See `protect`.
        connect: Makes a blocking client; it is called twice. Without it TENCENTCLOUD_SECRET_ID,
            TENCENTCLOUD_SECRET_KEY, TENCENTCLOUD_REGION and TENCENTCLOUD_IAI_ENDPOINT say how.
    """
    SDKS[0].load()
    connect = connect or _from_environment
    client, plain, wire = connect(), connect(), Wire()
    _watch(client, wire)
    interceptor = need_interceptor(protect(client, mixer, keys=keys, scope=scope, detect=detect))
    group = f"anonymix-rehearsal-{uuid.uuid4().hex}"
    plain.call_json("CreateGroup", {"GroupId": group, "GroupName": group, "FaceModelVersion": "3.0"})
    stage = _Rehearsal(interceptor, client, plain, COLLECTION, wire)
    stage.group = group
    try:
        yield stage
    finally:
        for person in stage.people():
            plain.call_json("DeletePerson", {"PersonId": person})
        plain.call_json("DeleteGroup", {"GroupId": group})


def _watch(client: Any, wire: Wire) -> None:
    send = client.request.send_request

    def watched(request: Any) -> Any:
        wire(request.data)
        return send(request)

    client.request.send_request = watched


def _from_environment() -> Any:
    from tencentcloud.common.credential import EnvironmentVariableCredential
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile
    from tencentcloud.iai.v20200303.iai_client import IaiClient

    for name in ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"):
        if not os.environ.get(name):
            raise AdapterError(f"{name} is not set", where=NAME)
    endpoint = os.environ.get("TENCENTCLOUD_IAI_ENDPOINT", "https://iai.tencentcloudapi.com")
    scheme, _, host = endpoint.rpartition("://")
    profile = ClientProfile(httpProfile=HttpProfile(endpoint=host, protocol=scheme or "https"))
    region = os.environ.get("TENCENTCLOUD_REGION", "")
    return IaiClient(EnvironmentVariableCredential().get_credential(), region, profile)


class _Rehearsal(CloudRehearsal):
    group = ""

    def exchanges(self, photo: bytes) -> Mapping[str, Exchange]:
        """See `Inspectable`."""
        client, plain = self._client, self._plain

        def put_back(request: Any) -> Any:
            request.data = json.dumps({"GroupIds": [self.group], "Image": base64.b64encode(photo).decode()}).encode()
            return request

        send, build = client.request.send_request, client._build_req_inter

        def built(action: str, params: Any, request: Any, options: Any = None) -> None:
            build(action, params, request, options)
            put_back(request)

        return {
            "the request's making": lambda: exchanged(client, "_build_req_inter", built),
            "its sending": lambda: exchanged(client.request, "send_request", lambda it: send(put_back(it))),
            "another connection": lambda: exchanged(client.request, "conn", plain.request.conn),
            "another request": lambda: exchanged(client, "request", plain.request),
        }

    def people(self) -> list[str]:
        """The people of the group."""
        found: list[str] = []
        while True:
            page = self._plain.call_json("GetPersonList", {"GroupId": self.group, "Offset": len(found), "Limit": 100})[
                "Response"
            ]
            found += [person["PersonId"] for person in page["PersonInfos"]]
            if not page["PersonInfos"] or len(found) >= page["PersonNum"]:
                return found

    def delete(self, external_id: str) -> None:
        """See `Rehearsal`. Tencent does not let go of a person's only face: then the person goes."""
        person, _, face = external_id.rpartition("/")
        held = [name for name in self.entries() if name.startswith(f"{person}/")]
        if held == [external_id]:
            self._plain.call_json("DeletePerson", {"PersonId": person})
        elif external_id in held:
            self._plain.call_json("DeleteFace", {"PersonId": person, "FaceIds": [face]})

    def entries(self) -> Mapping[str, str]:
        """See `Rehearsal`."""
        found: dict[str, str] = {}
        for person in self.people():
            info = self._plain.call_json("GetPersonBaseInfo", {"PersonId": person})["Response"]
            found |= {f"{person}/{face}": person for face in info["FaceIds"]}
        return found

    def _enrol(self, subject: str, photo: bytes) -> str:
        image = base64.b64encode(photo).decode()
        if subject in self.people():
            added = self._client.call_json("CreateFace", {"PersonId": subject, "Images": [image]})
            return f"{subject}/{added['Response']['SucFaceIds'][0]}"
        person = {"GroupId": self.group, "PersonId": subject, "PersonName": subject, "Image": image}
        return f"{subject}/{self._client.call_json('CreatePerson', person)['Response']['FaceId']}"

    def _ask(self, client: Any, person: str, photo: bytes, **said: str) -> Answer:
        scores = [score for found, score in self._matches(client, photo, **said) if found == person]
        return Answer(best(scores) >= _ACCEPTED, best(scores))

    def _find(self, client: Any, photo: bytes) -> Answer:
        for person, score in self._matches(client, photo):
            return Answer(score >= _ACCEPTED, score, person if score >= _ACCEPTED else "")
        return Answer(False, 0.0)

    def _matches(self, client: Any, photo: bytes, **said: str) -> list[tuple[str, float]]:
        request = {
            "GroupIds": [self.group],
            "Image": base64.b64encode(photo).decode(),
            "MaxPersonNum": 100,
            "MaxFaceNum": 1,
        }
        results = client.call_json("SearchPersons", request, **said)["Response"]["Results"]
        return [(found["PersonId"], found["Score"]) for result in results for found in result["Candidates"]]
