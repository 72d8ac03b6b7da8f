"""A rehearsal on Azure, or on what the environment names in its place."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from anonymix_adapters._rest_pictures import best
from anonymix_adapters.azure._adapter import NAME, SDKS, protect
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule
from anonymix_adapters.protocol import Answer
from anonymix_adapters.testing.clouds import CloudRehearsal, Exchange, Wire, exchanged
from anonymix_adapters.wrapping import need_interceptor


@dataclass(frozen=True)
class Clients:
    """The two clients of one Face resource.

    Attributes:
        faces: FaceClient.
        administration: FaceAdministrationClient.
    """

    faces: Any
    administration: Any

    @classmethod
    def connect(cls, endpoint: str, key: str, **options: Any) -> Clients:
        """Make both with a key; options are those of the clients."""
        from azure.ai.vision.face import FaceAdministrationClient, FaceClient
        from azure.core.credentials import AzureKeyCredential

        credential = AzureKeyCredential(key)
        return cls(
            FaceClient(endpoint, credential, **options),
            FaceAdministrationClient(endpoint, credential, **options),
        )

    def close(self) -> None:
        """Close both."""
        self.faces.close()
        self.administration.close()


@contextmanager
def rehearse(
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    connect: Callable[[], Clients] | None = None,
) -> Iterator[CloudRehearsal]:
    """Make a large person group, rehearse on it, and delete it.

    Args:
        mixer: Makes the cancelable faces.
        keys: See `protect`.
        scope: See `protect`.
        connect: Makes the clients; it is called twice. Without it AZURE_FACE_ENDPOINT and AZURE_FACE_KEY
            say how.
    """
    for sdk in SDKS:
        sdk.load()
    connect = connect or _from_environment
    mixed, plain, wire = connect(), connect(), Wire()
    for client in (mixed.faces, mixed.administration):
        protect(client, mixer, keys=keys, scope=scope)
        _watch(client, wire)
    interceptor = need_interceptor(mixed.faces)
    group = f"anonymix-rehearsal-{uuid.uuid4().hex}"
    groups = plain.administration.large_person_group
    groups.create(group, name=group, recognition_model="recognition_04")
    try:
        yield _Rehearsal(interceptor, mixed.faces, plain.faces, group, wire, mixed, plain)
    finally:
        groups.delete(group)
        mixed.close()
        plain.close()


def _watch(client: Any, wire: Wire) -> None:
    transport = client._client._pipeline._transport
    send = transport.send

    def watched(request: Any, **options: Any) -> Any:
        wire(request.content if isinstance(request.content, bytes | str) else None)
        return send(request, **options)

    transport.send = watched


def _from_environment() -> Clients:
    try:
        return Clients.connect(os.environ["AZURE_FACE_ENDPOINT"], os.environ["AZURE_FACE_KEY"])
    except KeyError as missing:
        raise AdapterError(f"{missing.args[0]} is not set", where=NAME) from None


class _Rehearsal(CloudRehearsal):
    def __init__(
        self, interceptor: Interceptor, client: Any, plain: Any, group: str, wire: Wire, mixed: Clients, bare: Clients
    ) -> None:
        super().__init__(interceptor, client, plain, f"largepersongroups/{group}", wire)
        self._group = group
        self._mixed, self._bare = mixed.administration, bare.administration
        self._adding = mixed.administration.large_person_group
        self._groups = bare.administration.large_person_group

    def pairs(self) -> Sequence[tuple[Any, Any]]:
        """See `Inspectable`."""
        return [(self._client, self._plain), (self._mixed, self._bare), (self._adding, self._groups)]

    def exchanges(self, photo: bytes) -> Mapping[str, Exchange]:
        """See `Inspectable`."""
        from azure.core.pipeline.policies import HTTPPolicy

        pipeline = self._client._client._pipeline
        last = pipeline._impl_policies[-1]
        runner = last.next

        class Swapping(HTTPPolicy[Any, Any]):
            def send(self, request: Any) -> Any:
                if request.http_request.method == "POST":
                    request.http_request._data = photo
                return runner.send(request)

        sender = runner._sender

        def send(request: Any, **options: Any) -> Any:
            request._data = photo
            return sender.send(request, **options)

        plain = self._plain._client
        return {
            "a policy at the end": lambda: exchanged(last, "next", Swapping()),
            "no policies": lambda: exchanged(pipeline, "_impl_policies", plain._pipeline._impl_policies),
            "a transport in front": lambda: exchanged(runner, "_sender", SimpleNamespace(send=send)),
            "another pipeline": lambda: exchanged(self._client._client, "_pipeline", plain._pipeline),
            "another client inside": lambda: exchanged(self._client, "_client", plain),
        }

    def delete(self, external_id: str) -> None:
        """See `Rehearsal`."""
        from azure.core.exceptions import ResourceNotFoundError

        person, _, face = external_id.partition("/")
        with suppress(ResourceNotFoundError):
            self._groups.delete_face(self._group, person, face)

    def entries(self) -> Mapping[str, str]:
        """See `Rehearsal`."""
        people = self._people()
        return {f"{p.person_id}/{face}": p.name for p in people for face in p.persisted_face_ids or ()}

    def _people(self) -> list[Any]:
        found: list[Any] = []
        while True:
            page = self._groups.get_persons(self._group, start=found[-1].person_id if found else None, top=1000)
            found += page
            if len(page) < 1000:
                return found

    def _enrol(self, subject: str, photo: bytes) -> str:
        known = [person.person_id for person in self._people() if person.name == subject]
        person = known[0] if known else self._groups.create_person(self._group, name=subject).person_id
        added = self._adding.add_face(self._group, person, photo, detection_model="detection_03")
        return f"{person}/{added.persisted_face_id}"

    def _detect(self, client: Any, photo: bytes, **said: str) -> str:
        found = client.detect(
            photo,
            detection_model="detection_03",
            recognition_model="recognition_04",
            return_face_id=True,
            **said,
        )
        if not found:
            raise AdapterError("the back end found no face", where=NAME)
        name: str = found[0].face_id
        return name

    def _ask(self, client: Any, person: str, photo: bytes, **said: str) -> Answer:
        face = self._detect(client, photo, **said)
        answers = [
            client.verify_from_large_person_group(
                face_id=face, large_person_group_id=self._group, person_id=each.person_id
            )
            for each in self._people()
            if each.name == person and each.persisted_face_ids
        ]
        return Answer(any(a.is_identical for a in answers), best([a.confidence for a in answers]))

    def _find(self, client: Any, photo: bytes) -> Answer:
        self._groups.begin_train(self._group, polling_interval=1).result()
        names = {person.person_id: person.name for person in self._people()}
        face = self._detect(client, photo)
        found = client.identify_from_large_person_group(face_ids=[face], large_person_group_id=self._group)
        for candidate in found[0].candidates if found else ():
            return Answer(True, candidate.confidence, names[candidate.person_id])
        return Answer(False, 0.0)
