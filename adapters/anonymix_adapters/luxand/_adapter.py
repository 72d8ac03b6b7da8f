"""The mixer in front of Luxand."""

from __future__ import annotations

from typing import Any, ClassVar, Final
from urllib.parse import quote

from anonymix_adapters._rest import Call, Send
from anonymix_adapters._rest_front import Front, put_in_front
from anonymix_adapters._rest_gate import CloudGate
from anonymix_adapters._rest_pictures import Fetch
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.gate import FaceMixer, Gate, KeyUse, ScopeRule
from anonymix_adapters.luxand._client import Face, Luxand, Person, Status
from anonymix_adapters.wrapping import gate_of, unwrap

__all__ = ["COLLECTION", "LIMIT", "NAME", "SDKS", "gate_of", "install", "protect", "unprotect"]

NAME: Final = "luxand"
SDKS: Final = (Luxand.SDK,)

LIMIT: Final = ImageLimit("JPEG", max_bytes=4 * 1024 * 1024)

COLLECTION: Final = "people"
"""People of an account are in any number of collections; records name the account's people as a whole."""


def protect(
    target: Luxand,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    fetch: Fetch | None = None,
) -> Luxand:
    """Put the mixer in front of a Luxand client, in place.

    The name of `add_person` is the subject. `add_face`, `verify`, `search` and `similarity` carry none: there
    it is `with mixer.subject(...)`, or the gallery key.

    Args:
        target: The client.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Gate`.
        scope: Scope of the keys.
        fetch: Fetches photos that are given as `Url`. Without it they are refused.

    Returns:
        The same client.

    Raises:
        AdapterError: As `put_in_front` says.
    """
    gate = CloudGate(mixer, NAME, keys=keys, scope=scope, fetch=fetch)
    return install(target, gate, fetch=fetch)


def unprotect(target: Luxand) -> Luxand:
    """See `Adapter.unprotect`."""
    client: Luxand = unwrap(target)
    return client


def install(target: Luxand, gate: Gate, *, fetch: Fetch | None = None) -> Luxand:
    """`protect`, with a gate that is there already."""
    return put_in_front(target, Luxand, _Front(gate, fetch))


class _Front(Front):
    passes: ClassVar[frozenset[str]] = frozenset({"person", "people"})
    limit = LIMIT

    def _on_add_person(self, call: Call[Any], send: Send) -> Any:
        whose = self.gate.whose(field=call.fields["name"], collection=COLLECTION, enrol=True)
        _ = self.gate.book
        mixed, faces = self.mixed(call, whose)
        answer: Person = send(mixed)
        try:
            self.gate.record(faces["photos"], whose, collection=COLLECTION, external_id=answer.uuid)
        except Exception as error:
            back = Call("delete_person", Status, "DELETE", f"person/{quote(answer.uuid, safe='')}")
            self.gate.take_back(lambda: send(back), error)
            raise
        return answer

    def _on_add_face(self, call: Call[Any], send: Send) -> Any:
        whose = self.gate.whose(collection=COLLECTION, enrol=True)
        _ = self.gate.book
        person = call.about["person"]
        mixed, faces = self.mixed(call, whose)
        answer: Face = send(mixed)
        try:
            name = f"{person}/{answer.uuid}"
            self.gate.record(faces["photos"], whose, collection=COLLECTION, external_id=name)
        except Exception as error:
            path = f"v2/person/{quote(person, safe='')}/face/{quote(answer.uuid, safe='')}"
            back = Call("delete_face", Status, "DELETE", path)
            self.gate.take_back(lambda: send(back), error)
            raise
        return answer

    def _on_search(self, call: Call[Any], send: Send) -> Any:
        return send(self.mixed(call, self.gate.whose(collection=COLLECTION))[0])

    _on_verify = _on_search
    _on_similarity = _on_search

    def _on_delete_person(self, call: Call[Any], send: Send) -> Any:
        answer, person = send(call), call.about["person"]
        self.mark_removed(COLLECTION, lambda name: name.split("/")[0] == person)
        return answer

    def _on_delete_face(self, call: Call[Any], send: Send) -> Any:
        answer = send(call)
        self.mark_removed(COLLECTION, f"{call.about['person']}/{call.about['face']}".__eq__)
        return answer
