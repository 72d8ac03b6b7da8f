"""A rehearsal on CompreFace, as the environment names it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from anonymix_adapters._rest import ApiError
from anonymix_adapters._rest_pictures import best
from anonymix_adapters.compreface._adapter import NAME, SDKS, protect
from anonymix_adapters.compreface._client import CompreFace
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.protocol import Answer
from anonymix_adapters.testing.clouds import CloudRehearsal, Exchange, Wire, rest_exchanges
from anonymix_adapters.wrapping import need_interceptor

_ACCEPTED: Final = 0.85
"""CompreFace answers with similarities and leaves the threshold to its host; this is a usual one."""


@contextmanager
def rehearse(
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    connect: Callable[[], CompreFace] | None = None,
) -> Iterator[CloudRehearsal]:
    """Rehearse on a recognition service that must be empty, and leave it empty.

    Args:
        mixer: Makes the cancelable faces.
        keys: See `protect`.
        scope: See `protect`.
        connect: Makes a client; it is called twice. Without it COMPREFACE_URL and
            COMPREFACE_RECOGNITION_KEY say how.

    Raises:
        AdapterError: The service holds faces already.
    """
    SDKS[0].check()
    connect = connect or _from_environment
    client, plain, wire = connect(), connect(), Wire()
    client.watch(wire)
    interceptor = need_interceptor(protect(client, mixer, keys=keys, scope=scope))
    with client, plain:
        stage = _Rehearsal(interceptor, client, plain, client.collection, wire)
        if plain.faces().faces:
            raise AdapterError("this recognition service holds faces", where=NAME, fix="rehearse on an empty one")
        try:
            yield stage
        finally:
            for name in stage.entries():
                plain.delete_face(name)


def _from_environment() -> CompreFace:
    try:
        url, key = os.environ["COMPREFACE_URL"], os.environ["COMPREFACE_RECOGNITION_KEY"]
    except KeyError as missing:
        raise AdapterError(f"{missing.args[0]} is not set", where=NAME) from None
    return CompreFace(url, recognition_key=key, collection="rehearsal")


class _Rehearsal(CloudRehearsal):
    def exchanges(self, photo: bytes) -> Mapping[str, Exchange]:
        """See `Inspectable`."""
        return rest_exchanges(self._client, photo)

    def delete(self, external_id: str) -> None:
        """See `Rehearsal`."""
        with suppress(ApiError):  # 404: gone already; `entries` shows it if it is anything else
            self._plain.delete_face(external_id)

    def entries(self) -> Mapping[str, str]:
        """See `Rehearsal`."""
        found: dict[str, str] = {}
        page, pages = 0, 1
        while page < pages:
            answer = self._plain.faces(page=page)
            found |= {face.image_id: face.subject for face in answer.faces}
            page, pages = page + 1, answer.total_pages
        return found

    def _enrol(self, subject: str, photo: bytes) -> str:
        name: str = self._client.add_face(subject, photo).image_id
        return name

    def _ask(self, client: Any, person: str, photo: bytes, **said: str) -> Answer:
        found = client.recognize(photo, limit=1, prediction_count=100, **said).result
        score = best([g.similarity for face in found for g in face.subjects if g.subject == person])
        return Answer(score >= _ACCEPTED, score)

    def _find(self, client: Any, photo: bytes) -> Answer:
        for face in client.recognize(photo, limit=1).result:
            for guess in face.subjects:
                accepted = guess.similarity >= _ACCEPTED
                return Answer(accepted, guess.similarity, guess.subject if accepted else "")
        return Answer(False, 0.0)
