"""A rehearsal on Luxand, or on what the environment names in its place."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from anonymix_adapters._rest import ApiError
from anonymix_adapters._rest_pictures import best
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.luxand._adapter import COLLECTION, NAME, SDKS, protect
from anonymix_adapters.luxand._client import CLOUD, Luxand
from anonymix_adapters.protocol import Answer
from anonymix_adapters.testing.clouds import CloudRehearsal, Exchange, Wire, rest_exchanges
from anonymix_adapters.wrapping import need_interceptor


@contextmanager
def rehearse(
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    connect: Callable[[], Luxand] | None = None,
) -> Iterator[CloudRehearsal]:
    """Rehearse in a collection of its own, and delete the people in it.

    Args:
        mixer: Makes the cancelable faces.
        keys: See `protect`.
        scope: See `protect`.
        connect: Makes a client; it is called twice. Without it LUXAND_TOKEN and LUXAND_URL say how.
    """
    SDKS[0].check()
    connect = connect or _from_environment
    client, plain, wire = connect(), connect(), Wire()
    client.watch(wire)
    interceptor = need_interceptor(protect(client, mixer, keys=keys, scope=scope))
    with client, plain:
        stage = _Rehearsal(interceptor, client, plain, COLLECTION, wire)
        try:
            yield stage
        finally:
            stage.clear()


def _from_environment() -> Luxand:
    try:
        token = os.environ["LUXAND_TOKEN"]
    except KeyError as missing:
        raise AdapterError(f"{missing.args[0]} is not set", where=NAME) from None
    return Luxand(token, url=os.environ.get("LUXAND_URL", CLOUD))


class _Rehearsal(CloudRehearsal):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._place = f"anonymix-rehearsal-{uuid.uuid4().hex}"
        self._made: set[str] = set()
        self._others = {person.uuid for person in self._plain.people()}

    def exchanges(self, photo: bytes) -> Mapping[str, Exchange]:
        """See `Inspectable`."""
        return rest_exchanges(self._client, photo)

    def delete(self, external_id: str) -> None:
        """See `Rehearsal`."""
        with suppress(ApiError):  # 404: gone already; `entries` shows it if it is anything else
            self._plain.delete_person(external_id)

    def entries(self) -> Mapping[str, str]:
        """See `Rehearsal`."""
        people = self._plain.people()
        return {person.uuid: person.name for person in people if person.uuid not in self._others}

    def clear(self) -> None:
        """Delete those whom this rehearsal enrolled: nobody else, whoever came meanwhile."""
        for person in self._made & set(self.entries()):
            self.delete(person)

    def _enrol(self, subject: str, photo: bytes) -> str:
        person: str = self._client.add_person(subject, photo, collections=[self._place]).uuid
        self._made.add(person)
        return person

    def _ask(self, client: Any, person: str, photo: bytes, **said: str) -> Answer:
        # Luxand's own 1:1 call takes one person; a subject may have several.
        scores = [m.probability for m in self._matches(client, photo, **said) if m.name == person]
        return Answer(bool(scores), best(scores))

    def _find(self, client: Any, photo: bytes) -> Answer:
        for match in self._matches(client, photo):
            return Answer(True, match.probability, match.name)
        return Answer(False, 0.0)

    def _matches(self, client: Any, photo: bytes, **said: str) -> list[Any]:
        found: list[Any] = client.search(photo, collections=[self._place], **said)
        return found
