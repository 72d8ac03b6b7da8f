"""The mixer in front of Face++.

A photo becomes a token at Face++, and from then on calls name the token. So the adapter remembers which
tokens it had made, of which face: only those may be compared, searched for and put into face sets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from threading import Lock
from typing import Any, ClassVar, Final

from anonymix_adapters._rest import Call, Send
from anonymix_adapters._rest_front import Front, put_in_front
from anonymix_adapters._rest_gate import CloudGate
from anonymix_adapters._rest_pictures import Fetch, refused
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import BypassError, SubjectNeededError
from anonymix_adapters.facepp._client import DetectedFace, FacePlusPlus, FaceToken
from anonymix_adapters.gate import FaceMixer, Gate, KeyUse, ScopeRule, Whose
from anonymix_adapters.wrapping import gate_of, unwrap
from anonymix_plugin.values import CancelableFace

__all__ = ["LIMIT", "NAME", "SDKS", "gate_of", "install", "protect", "unprotect"]

NAME: Final = "facepp"
SDKS: Final = (FacePlusPlus.SDK,)

LIMIT: Final = ImageLimit("JPEG", max_bytes=2 * 1024 * 1024, min_side=48, max_side=4096, min_face=150)
"""Of Face++'s documents: at most 2 MB, sides of 48 to 4096 px, faces from 150 px on to compare and search."""

_TOKENS: Final = 10_000


def protect(
    target: FacePlusPlus,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    fetch: Fetch | None = None,
) -> FacePlusPlus:
    """Put the mixer in front of a Face++ client, in place.

    Args:
        target: The client.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Gate`.
        scope: Scope of the keys, or a function of the face set's outer_id. Detect and compare name no face
            set; for them it is called with "".
        fetch: Fetches photos that are given as `Url`. Without it they are refused.

    Returns:
        The same client.

    Raises:
        AdapterError: As `put_in_front` says.
    """
    gate = CloudGate(mixer, NAME, keys=keys, scope=scope, fetch=fetch)
    return install(target, gate, fetch=fetch)


def unprotect(target: FacePlusPlus) -> FacePlusPlus:
    """See `Adapter.unprotect`."""
    client: FacePlusPlus = unwrap(target)
    return client


def install(target: FacePlusPlus, gate: Gate, *, fetch: Fetch | None = None) -> FacePlusPlus:
    """`protect`, with a gate that is there already."""
    return put_in_front(target, FacePlusPlus, _Front(gate, fetch))


class _Front(Front):
    passes: ClassVar[frozenset[str]] = frozenset({"create", "getdetail", "setuserid", "face"})
    limit = LIMIT

    def __init__(self, gate: Gate, fetch: Fetch | None = None) -> None:
        super().__init__(gate, fetch)
        self._made: OrderedDict[str, tuple[CancelableFace, Whose] | None] = OrderedDict()
        self._lock = Lock()

    def passed(self, given: Any) -> Any | None:
        """A token that the adapter had made; others are refused."""
        if not isinstance(given, FaceToken):
            return None
        self._origin(given.token)
        return given

    def _on_detect(self, call: Call[Any], send: Send) -> Any:
        return self._shown(call, send, self.gate.whose(), ("faces",))

    def _on_compare(self, call: Call[Any], send: Send) -> Any:
        if all(isinstance(given, FaceToken) for given in call.pictures.values()):
            return send(self.mixed(call, Whose(None, "", gallery=False))[0])  # no key is needed
        return self._shown(call, send, self.gate.whose(), ("faces1", "faces2"))

    def _on_search(self, call: Call[Any], send: Send) -> Any:
        if isinstance(call.pictures[""], FaceToken):
            return send(self.mixed(call, Whose(None, "", gallery=False))[0])
        whose = self.gate.whose(collection=call.fields["outer_id"])
        return self._shown(call, send, whose, ("faces",))

    def _on_addface(self, call: Call[Any], send: Send) -> Any:
        collection, tokens = call.fields["outer_id"], call.fields["face_tokens"].split(",")
        _ = self.gate.book
        origins = {token: self._origin(token) for token in tokens}
        for token, origin in origins.items():
            if origin is None:
                raise refused(
                    self.gate, f"token {token}", "was made before this client was", "detect it anew"
                )
            if origin[1].subject is None:
                raise SubjectNeededError(
                    "nobody said whose face this is when it was detected; nothing was added",
                    where=NAME,
                    fix="detect it inside `with mixer.subject(ID, enrol=True):`",
                )
        answer = send(call)
        failed = {item.face_token for item in answer.failure_detail}
        added = [token for token in tokens if token not in failed]
        try:
            for token in added:
                face, whose = origins[token] or (None, None)
                assert face is not None and whose is not None  # noqa: S101, PT018 - looked at above
                self.gate.record(face, whose, collection=collection, external_id=token)
        except Exception as error:
            back = replace(
                call,
                name="removeface",
                path="faceset/removeface",
                fields={"outer_id": collection, "face_tokens": ",".join(added)},
            )
            self.gate.take_back(lambda: send(back), error)
            raise
        return answer

    def _on_removeface(self, call: Call[Any], send: Send) -> Any:
        answer = send(call)
        tokens = set(call.fields["face_tokens"].split(","))
        everything = "RemoveAllFaceTokens" in tokens
        self.mark_removed(call.fields["outer_id"], lambda name: everything or name in tokens)
        return answer

    def _on_delete(self, call: Call[Any], send: Send) -> Any:
        answer = send(call)
        self.mark_removed(call.fields["outer_id"])
        return answer

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
            while len(self._made) > _TOKENS:
                self._made.popitem(last=False)

    def _origin(self, token: str) -> tuple[CancelableFace, Whose] | None:
        """The face that a token was made of; None where only its record is known.

        Raises:
            BypassError: The token may be that of a photo.
        """
        with self._lock:
            if token in self._made:
                return self._made[token]
        if not any(entry.external_id == token for entry in self.gate.entries()):
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
