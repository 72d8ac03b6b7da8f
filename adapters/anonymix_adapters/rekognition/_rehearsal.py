"""A rehearsal on Rekognition, or on whatever boto3's environment names in its place."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from anonymix_adapters._rest_pictures import best
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.protocol import Answer
from anonymix_adapters.rekognition._adapter import SDKS, Detection, protect
from anonymix_adapters.testing.clouds import CloudRehearsal, Exchange, Wire, exchanged
from anonymix_adapters.wrapping import need_interceptor


@contextmanager
def rehearse(
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    detect: Detection = "refuse",
    connect: Callable[[], Any] | None = None,
) -> Iterator[CloudRehearsal]:
    """Make a collection, rehearse on it, and delete it.

    Args:
        mixer: Makes the cancelable faces.
        keys: See `protect`.
        scope: See `protect`.
        detect: See `protect`.
        connect: Makes a client; it is called twice. Without it boto3 makes them from its environment
            (AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_REKOGNITION, ...).
    """
    boto3 = SDKS[0].load()
    connect = connect or (lambda: boto3.client("rekognition"))
    client, plain, wire = connect(), connect(), Wire()
    send = client._endpoint.http_session.send

    def watched(request: Any) -> Any:
        wire(request.body)
        return send(request)

    client._endpoint.http_session.send = watched
    interceptor = need_interceptor(protect(client, mixer, keys=keys, scope=scope, detect=detect))
    collection = f"anonymix-rehearsal-{uuid.uuid4().hex}"
    plain.create_collection(CollectionId=collection)
    try:
        yield _Rehearsal(interceptor, client, plain, collection, wire)
    finally:
        plain.delete_collection(CollectionId=collection)
        client.close()
        plain.close()


class _Rehearsal(CloudRehearsal):
    def exchanges(self, photo: bytes) -> Mapping[str, Exchange]:
        """See `Inspectable`."""
        client = self._client
        image = {"Bytes": base64.b64encode(photo).decode()}
        content = json.dumps({"CollectionId": self._collection, "Image": image}).encode()

        def put_back(params: Any = None, request: Any = None, **_: Any) -> None:
            if request is not None:
                setattr(request, "data" if hasattr(request, "data") else "body", content)
            elif "body" in params:
                params["body"] = content
            else:
                params["Image"] = {"Bytes": photo}

        @contextmanager
        def handler(event: str) -> Iterator[None]:
            client.meta.events.register_last(f"{event}.rekognition", put_back)
            try:
                yield
            finally:
                client.meta.events.unregister(f"{event}.rekognition", put_back)

        def session() -> AbstractContextManager[None]:
            inner = client._endpoint.http_session.send

            def send(request: Any) -> Any:
                put_back(request=request)
                return inner(request)

            return exchanged(client._endpoint.http_session, "send", send)

        events = ("before-parameter-build", "before-call", "request-created", "before-sign", "before-send")
        return {
            **{f"a handler of {event}": partial(handler, event) for event in events},
            "the session's send": session,
            "no events": lambda: exchanged(client.meta, "events", self._plain.meta.events),
            "another endpoint": lambda: exchanged(client, "_endpoint", self._plain._endpoint),
            "another session": lambda: exchanged(client._endpoint, "http_session", self._plain._endpoint.http_session),
        }

    def delete(self, external_id: str) -> None:
        """See `Rehearsal`."""
        self._plain.delete_faces(CollectionId=self._collection, FaceIds=[external_id])

    def entries(self) -> Mapping[str, str]:
        """See `Rehearsal`."""
        pages = self._plain.get_paginator("list_faces").paginate(CollectionId=self._collection)
        return {face["FaceId"]: face["ExternalImageId"] for page in pages for face in page["Faces"]}

    def _enrol(self, subject: str, photo: bytes) -> str:
        answer = self._client.index_faces(
            CollectionId=self._collection, Image={"Bytes": photo}, ExternalImageId=subject
        )
        name: str = answer["FaceRecords"][0]["Face"]["FaceId"]
        return name

    def _ask(self, client: Any, person: str, photo: bytes, **said: str) -> Answer:
        scores = [
            match["Similarity"]
            for match in self._matches(client, photo, **said)
            if match["Face"]["ExternalImageId"] == person
        ]
        return Answer(bool(scores), best(scores))

    def _find(self, client: Any, photo: bytes) -> Answer:
        for match in self._matches(client, photo):
            return Answer(True, match["Similarity"], match["Face"]["ExternalImageId"])
        return Answer(False, 0.0)

    def _matches(self, client: Any, photo: bytes, **said: str) -> list[dict[str, Any]]:
        answer = client.search_faces_by_image(
            CollectionId=self._collection, Image={"Bytes": photo}, MaxFaces=100, **said
        )
        found: list[dict[str, Any]] = answer["FaceMatches"]
        return found
