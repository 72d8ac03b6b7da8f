"""The mixer in front of Luxand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import quote

from anonymix_adapters._rest import Call, Reply, Send
from anonymix_adapters._rest_front import Front, put_in_front
from anonymix_adapters._rest_interceptor import CloudInterceptor, FieldRule
from anonymix_adapters._rest_pictures import Fetch
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import BackEndError
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule, Whose
from anonymix_adapters.luxand._client import Face, Luxand, Matches, People, Person, Status
from anonymix_adapters.wrapping import interceptor_of, unwrap

__all__ = ["COLLECTION", "LIMIT", "NAME", "SDKS", "install", "interceptor_of", "protect", "unprotect"]

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
    field: FieldRule = "subject",
) -> Luxand:
    """Put the mixer in front of a Luxand client, in place.

    The name of `add_person` is the subject. `add_face`, `verify`, `search` and `similarity` carry none: there
    it is `subject=` or `with mixer.subject(...)`, or the gallery key.

    Args:
        target: The client.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Interceptor`.
        scope: Scope of the keys.
        fetch: Fetches photos that are given as `Url`. Without it they are refused.
        field: What the name of `add_person` is; see `FieldRule`.

    Returns:
        The same client.

    Raises:
        AdapterError: As `put_in_front` says.
    """
    interceptor = CloudInterceptor(mixer, NAME, keys=keys, scope=scope, field=field, fetch=fetch)
    return install(target, interceptor, fetch=fetch)


def unprotect(target: Luxand) -> Luxand:
    """See `Adapter.unprotect`."""
    client: Luxand = unwrap(target)
    return client


def install(target: Luxand, interceptor: CloudInterceptor, *, fetch: Fetch | None = None) -> Luxand:
    """`protect`, with an interceptor that is there already."""
    return put_in_front(target, Luxand, LuxandFront(interceptor, fetch))


class LuxandFront(Front):
    passes: ClassVar[frozenset[str]] = frozenset({"person", "people"})
    replies: ClassVar[Mapping[str, type[Reply]]] = {
        "add_person": Person,
        "add_face": Face,
        "delete_person": Status,
        "delete_face": Status,
        "people": People,
        "search": Matches,
    }
    limit = LIMIT

    def _on_add_person(self, call: Call[Any], send: Send) -> Any:
        whose = self.interceptor.whose_call(call.fields["name"], collection=COLLECTION, enrol=True)
        return self._enrolled(call, send, whose, "", "person/{}")

    def _on_add_face(self, call: Call[Any], send: Send) -> Any:
        whose, person = self.interceptor.whose_call(collection=COLLECTION, enrol=True), call.about["person"]
        return self._enrolled(call, send, whose, f"{person}/", f"v2/person/{quote(person, safe='')}/face/{{}}")

    def _enrolled(self, call: Call[Any], send: Send, whose: Whose, above: str, path: str) -> Any:
        """Send, and record the entry under its id and what stands above it; `path` deletes it."""
        _ = self.interceptor.registry
        mixed, faces = self.mixed(call, whose)
        answer: Face | Person = send(mixed)

        def undo(_: list[str]) -> None:
            gone: Status = send(Call("undo", Status, "DELETE", path.format(quote(answer.uuid, safe=""))))
            if not gone.done:
                raise BackEndError("the deletion was not confirmed", where=NAME)

        made = [(f"{above}{answer.uuid}", faces["photos"], whose)]
        self.interceptor.keep(made, collection=COLLECTION, undo=undo)
        return answer

    def _on_search(self, call: Call[Any], send: Send) -> Any:
        return send(self.mixed(call, self.interceptor.whose_call(collection=COLLECTION))[0])

    _on_verify = _on_search
    _on_similarity = _on_search

    def _on_delete_person(self, call: Call[Any], send: Send) -> Any:
        answer, person = send(call), call.about["person"]
        if answer.done:
            self.interceptor.gone(COLLECTION, lambda name: name.split("/")[0] == person)
        return answer

    def _on_delete_face(self, call: Call[Any], send: Send) -> Any:
        answer = send(call)
        if answer.done:
            self.interceptor.forget_entry(COLLECTION, f"{call.about['person']}/{call.about['face']}")
        return answer
