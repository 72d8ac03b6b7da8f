"""A rehearsal on Face++, or on what the environment names in its place."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from anonymix_adapters._rest import ApiError
from anonymix_adapters._rest_pictures import best
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.facepp._adapter import NAME, SDKS, protect
from anonymix_adapters.facepp._client import US, FacePlusPlus, Searched
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.protocol import Answer
from anonymix_adapters.testing.clouds import CloudRehearsal, Exchange, Wire, rest_exchanges
from anonymix_adapters.wrapping import need_interceptor

_RATE = "1e-3"


@contextmanager
def rehearse(
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    connect: Callable[[], FacePlusPlus] | None = None,
) -> Iterator[CloudRehearsal]:
    """Make a face set, rehearse on it, and delete it.

    Args:
        mixer: Makes the cancelable faces.
        keys: See `protect`.
        scope: See `protect`.
        connect: Makes a client; it is called twice. Without it FACEPP_API_KEY, FACEPP_API_SECRET and
            FACEPP_URL say how.
    """
    SDKS[0].check()
    connect = connect or _from_environment
    client, plain, wire = connect(), connect(), Wire()
    client.watch(wire)
    interceptor = need_interceptor(protect(client, mixer, keys=keys, scope=scope))
    collection = f"anonymix-rehearsal-{uuid.uuid4().hex}"
    with client, plain:
        plain.create_face_set(collection)
        try:
            yield _Rehearsal(interceptor, client, plain, collection, wire)
        finally:
            plain.delete_face_set(collection)


def _from_environment() -> FacePlusPlus:
    try:
        key, secret = os.environ["FACEPP_API_KEY"], os.environ["FACEPP_API_SECRET"]
    except KeyError as missing:
        raise AdapterError(f"{missing.args[0]} is not set", where=NAME) from None
    return FacePlusPlus(key, secret, url=os.environ.get("FACEPP_URL", US))


class _Rehearsal(CloudRehearsal):
    def exchanges(self, photo: bytes) -> Mapping[str, Exchange]:
        """See `Inspectable`."""
        return rest_exchanges(self._client, photo)

    def delete(self, external_id: str) -> None:
        """See `Rehearsal`."""
        self._plain.remove_faces(self._collection, [external_id])

    def entries(self) -> Mapping[str, str]:
        """See `Rehearsal`."""
        tokens, start = list[str](), 1
        while start:
            page = self._plain.face_set(self._collection, start=start)
            tokens, start = tokens + page.face_tokens, page.next or 0
        return {token: self._plain.face(token).user_id for token in tokens}

    def _enrol(self, subject: str, photo: bytes) -> str:
        token: str = self._client.detect(photo).faces[0].face_token
        self._client.set_user_id(token, subject)
        self._client.add_faces(self._collection, [token])
        return token

    def _ask(self, client: Any, person: str, photo: bytes, **said: str) -> Answer:
        found = self._matches(client, photo, 5, **said)
        score = best([match.confidence for match in found.results if match.user_id == person])
        return Answer(bool(found.results) and score >= found.thresholds[_RATE], score)

    def _find(self, client: Any, photo: bytes) -> Answer:
        found = self._matches(client, photo, 1)
        for match in found.results:
            accepted = match.confidence >= found.thresholds[_RATE]
            return Answer(accepted, match.confidence, match.user_id if accepted else "")
        return Answer(False, 0.0)

    def _matches(self, client: FacePlusPlus, photo: bytes, count: int, **said: str) -> Searched:
        try:
            return client.search(photo, self._collection, count=count, **said)
        except ApiError as error:
            if error.reason != "EMPTY_FACESET":
                raise
            return Searched()
