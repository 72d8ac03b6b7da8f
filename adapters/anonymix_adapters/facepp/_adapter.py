"""The mixer in front of Face++.

A photo becomes a token at Face++, and from then on calls name the token. So the adapter remembers which
tokens it had made, of which face: only those may be compared, searched for and put into face sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from threading import Lock
from typing import Any, ClassVar, Final

from cachetools import FIFOCache

from anonymix_adapters._rest import Call, Reply, Send
from anonymix_adapters._rest_front import Front, put_in_front
from anonymix_adapters._rest_interceptor import CloudInterceptor, Entry, FieldRule
from anonymix_adapters._rest_pictures import Fetch, refused
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import BackEndError, BypassError, SubjectNeededError
from anonymix_adapters.facepp._client import (
    Added,
    Compared,
    Detected,
    DetectedFace,
    FacePlusPlus,
    FaceSet,
    FaceToken,
    Searched,
)
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule, Whose
from anonymix_adapters.wrapping import interceptor_of, unwrap
from anonymix_plugin.errors import UsageError
from anonymix_plugin.values import CancelableFace

__all__ = ["LIMIT", "NAME", "SDKS", "install", "interceptor_of", "protect", "unprotect"]

NAME: Final = "facepp"
SDKS: Final = (FacePlusPlus.SDK,)

LIMIT: Final = ImageLimit("JPEG", max_bytes=2 * 1024 * 1024, min_side=48, max_side=4096, min_face=150)
"""Of Face++'s documents: at most 2 MB, sides of 48 to 4096 px, faces from 150 px on to compare and search."""

_TOKENS: Final = 10_000
_NOBODY: Final = Whose(None, "", gallery=False)


def protect(
    target: FacePlusPlus,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    fetch: Fetch | None = None,
    field: FieldRule = "subject",
) -> FacePlusPlus:
    """Put the mixer in front of a Face++ client, in place.

    Args:
        target: The client.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Interceptor`.
        scope: Scope of the keys, or a function of the face set's outer_id. Detect and compare name no face
            set; for them it is called with "".
        fetch: Fetches photos that are given as `Url`. Without it they are refused.
        field: What the user_id of `set_user_id` is; see `FieldRule`.

    Returns:
        The same client.

    Raises:
        AdapterError: As `put_in_front` says.
    """
    interceptor = CloudInterceptor(mixer, NAME, keys=keys, scope=scope, field=field, fetch=fetch)
    return install(target, interceptor, fetch=fetch)


def unprotect(target: FacePlusPlus) -> FacePlusPlus:
    """See `Adapter.unprotect`."""
    client: FacePlusPlus = unwrap(target)
    return client


def install(target: FacePlusPlus, interceptor: CloudInterceptor, *, fetch: Fetch | None = None) -> FacePlusPlus:
    """`protect`, with an interceptor that is there already."""
    return put_in_front(target, FacePlusPlus, FacePlusPlusFront(interceptor, fetch))


class FacePlusPlusFront(Front):
    passes: ClassVar[frozenset[str]] = frozenset({"create", "getdetail", "face"})
    replies: ClassVar[Mapping[str, type[Reply]]] = {
        "detect": Detected,
        "compare": Compared,
        "search": Searched,
        "addface": Added,
        "removeface": Added,
        "delete": FaceSet,
    }
    limit = LIMIT

    def __init__(self, interceptor: CloudInterceptor, fetch: Fetch | None = None) -> None:
        super().__init__(interceptor, fetch)
        self._made: FIFOCache[str, tuple[CancelableFace, Whose] | None] = FIFOCache(_TOKENS)
        self._lock = Lock()

    def passed(self, given: Any) -> Any | None:
        """A token that the adapter had made; others are refused."""
        if not isinstance(given, FaceToken):
            return None
        self._origin(given.token)
        return given

    def _on_detect(self, call: Call[Any], send: Send) -> Any:
        return self._shown(call, send, self.interceptor.whose_call(), ("faces",))

    def _on_compare(self, call: Call[Any], send: Send) -> Any:
        if all(isinstance(given, FaceToken) for given in call.pictures.values()):
            return send(self.mixed(call, _NOBODY)[0])  # no key is needed
        return self._shown(call, send, self.interceptor.whose_call(), ("faces1", "faces2"))

    def _on_search(self, call: Call[Any], send: Send) -> Any:
        if isinstance(call.pictures[""], FaceToken):
            return send(self.mixed(call, _NOBODY)[0])
        whose = self.interceptor.whose_call(collection=call.fields["outer_id"])
        return self._shown(call, send, whose, ("faces",))

    def _on_setuserid(self, call: Call[Any], send: Send) -> Any:
        origin, name = self._origin(call.fields["face_token"]), self.interceptor.person(call.fields["user_id"])
        if origin is not None and origin[1].subject is not None and name not in {None, origin[1].subject}:
            raise UsageError(
                "the user_id is not whom the token was detected for; nothing was sent",
                where=NAME,
                fix="give the subject's id, or protect with field='label' if a user_id is no subject's id",
            )
        answer = send(call)
        if origin is not None and origin[1].subject is None and name is not None:  # under the gallery key
            with self._lock:
                self._made[call.fields["face_token"]] = (origin[0], replace(origin[1], subject=name))
        return answer

    def _on_addface(self, call: Call[Any], send: Send) -> Any:
        collection = call.fields["outer_id"]
        _ = self.interceptor.registry
        origins = {token: self._owned(token) for token in call.fields["face_tokens"].split(",")}
        answer: Added = send(call)
        failed = {item.face_token for item in answer.failure_detail}
        added = [token for token in origins if token not in failed]
        if answer.face_added < len(added):  # it does not say which were there already
            recorded = {entry.external_id for entry in self.interceptor.entries(collection)}
            added = [token for token in self._held(send, collection) - recorded if token in added]
        made: list[Entry] = [(token, *origins[token]) for token in added]
        self.interceptor.keep(made, collection=collection, undo=lambda names: self._remove(send, collection, names))
        return answer

    def _owned(self, token: str) -> tuple[CancelableFace, Whose]:
        """The face of a token that may be put into a face set, and whose it is."""
        origin = self._origin(token)
        if origin is None:
            raise refused(self.interceptor, "a token", "was made before this client was", "detect the photo again")
        if origin[1].subject is None:
            raise SubjectNeededError(
                "nobody said whose face this is when it was detected; nothing was added",
                where=NAME,
                fix="detect it inside `with mixer.subject(ID, enrol=True):`",
            )
        return origin

    def _on_removeface(self, call: Call[Any], send: Send) -> Any:
        collection, tokens = call.fields["outer_id"], set(call.fields["face_tokens"].split(","))
        answer: Added = send(call)
        everything = "RemoveAllFaceTokens" in tokens
        sure = not everything and not answer.failure_detail and answer.face_removed == len(tokens)
        held = set() if sure else self._held(send, collection)
        self.interceptor.gone(collection, lambda name: name not in held and (everything or name in tokens))
        return answer

    def _on_delete(self, call: Call[Any], send: Send) -> Any:
        answer: FaceSet = send(call)
        if answer.outer_id == call.fields["outer_id"]:
            self.interceptor.gone(answer.outer_id)
        return answer

    def _remove(self, send: Send, collection: str, tokens: list[str]) -> None:
        fields = {"outer_id": collection, "face_tokens": ",".join(tokens)}
        send(Call("removeface", Added, "POST", "faceset/removeface", fields=fields))
        if self._held(send, collection) & set(tokens):
            raise BackEndError("the tokens are still in the face set", where=NAME)

    def _held(self, send: Send, collection: str) -> set[str]:
        """All tokens of a face set, page by page."""
        found: set[str] = set()
        start: int | None = 1
        while start is not None:
            fields = {"outer_id": collection, "start": str(start)}
            page: FaceSet = send(Call("getdetail", FaceSet, "POST", "faceset/getdetail", fields=fields))
            found |= set(page.face_tokens)
            start = page.next if page.next is not None and page.next > start else None
        return found

    def _shown(self, call: Call[Any], send: Send, whose: Whose, fields: tuple[str, ...]) -> Any:
        """Mix, send, and remember the tokens that Face++ gave the cancelable faces."""
        mixed, faces = self.mixed(call, whose)
        answer = send(mixed)
        for face, field in zip(faces.values(), _fields_of(faces, fields), strict=True):
            self._remember(getattr(answer, field), face, whose)
        return answer

    def _remember(self, found: Iterable[DetectedFace], face: CancelableFace, whose: Whose) -> None:
        light = replace(face, pixels=face.pixels[:0])
        with self._lock:
            for item in found:
                self._made[item.face_token] = (light, whose)

    def _origin(self, token: str) -> tuple[CancelableFace, Whose] | None:
        """The face that a token was made of; None where only its record is known.

        Raises:
            BypassError: The token may be that of a photo.
        """
        with self._lock:
            if token in self._made:
                return self._made[token]
        if not any(entry.external_id == token for entry in self.interceptor.entries()):
            raise BypassError(
                "this token was not made through the mixer, so that it may be that of a photo",
                where=NAME,
                fix="detect the photo through the protected client",
            )
        with self._lock:
            self._made[token] = None
        return None


def _fields_of(faces: dict[str, CancelableFace], fields: tuple[str, ...]) -> list[str]:
    """The answer's field for each photo of a call: `faces`, or `faces1` and `faces2`."""
    return [next(field for field in fields if field.endswith(name)) for name in faces]
