"""A rehearsal on Rekognition, or on whatever boto3's environment names in its place."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from anonymix_adapters._rest_pictures import best
from anonymix_adapters._rest_rehearsal import CloudRehearsal, Wire
from anonymix_adapters.gate import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.protocol import Answer
from anonymix_adapters.rekognition._adapter import SDKS, Detection, protect
from anonymix_adapters.wrapping import need_gate


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
    client = protect(connect(), mixer, keys=keys, scope=scope, detect=detect)
    gate, plain, wire = need_gate(client), connect(), Wire()

    def note(request: Any, **_: Any) -> None:
        wire(request.body)

    client.meta.events.register("before-send.rekognition", note)
    collection = f"anonymix-rehearsal-{uuid.uuid4().hex}"
    plain.create_collection(CollectionId=collection)
    try:
        yield _Rehearsal(gate, client, plain, collection, wire)
    finally:
        plain.delete_collection(CollectionId=collection)
        client.close()
        plain.close()


class _Rehearsal(CloudRehearsal):
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

    def _ask(self, client: Any, subject: str, photo: bytes) -> Answer:
        scores = [
            match["Similarity"]
            for match in self._matches(client, photo)
            if match["Face"]["ExternalImageId"] == subject
        ]
        return Answer(bool(scores), best(scores))

    def _find(self, client: Any, photo: bytes) -> Answer:
        for match in self._matches(client, photo):
            return Answer(True, match["Similarity"], match["Face"]["ExternalImageId"])
        return Answer(False, 0.0)

    def _matches(self, client: Any, photo: bytes) -> list[dict[str, Any]]:
        answer = client.search_faces_by_image(
            CollectionId=self._collection, Image={"Bytes": photo}, MaxFaces=100
        )
        found: list[dict[str, Any]] = answer["FaceMatches"]
        return found
