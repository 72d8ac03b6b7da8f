"""The mixer in front of CompreFace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import quote

from anonymix_adapters._rest import Call, Reply, Send
from anonymix_adapters._rest_front import Front, put_in_front
from anonymix_adapters._rest_interceptor import CloudInterceptor, FieldRule
from anonymix_adapters._rest_pictures import Fetch, refused
from anonymix_adapters.compreface._client import (
    CompreFace,
    Deleted,
    Example,
    Examples,
    Removed,
    Subject,
    Updated,
)
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import BackEndError
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.wrapping import interceptor_of, unwrap
from anonymix_plugin.errors import UsageError

__all__ = ["LIMIT", "NAME", "SDKS", "install", "interceptor_of", "protect", "unprotect"]

NAME: Final = "compreface"
SDKS: Final = (CompreFace.SDK,)

LIMIT: Final = ImageLimit("JPEG", max_bytes=5 * 1024 * 1024)
"""Of CompreFace's documents: at most 5 MB."""

Detection = Literal["refuse", "protect"]


def protect(
    target: CompreFace,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    detect: Detection = "refuse",
    field: FieldRule = "subject",
) -> CompreFace:
    """Put the mixer in front of a CompreFace client, in place.

    Args:
        target: The client.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Interceptor`.
        scope: Scope of the keys, or a function of the client's `collection`.
        detect: What becomes of `detect`: "refuse", or "protect", which finds a cancelable face.
        field: What `subject` of `add_face` is; see `FieldRule`.

    Returns:
        The same client.

    Raises:
        AdapterError: As `put_in_front` says.
    """
    if detect not in {"refuse", "protect"}:
        raise UsageError(f"detect can't be {detect!r}", where="detect", fix="use 'refuse' or 'protect'")
    interceptor = CloudInterceptor(mixer, NAME, keys=keys, scope=scope, field=field, detect=detect)
    return install(target, interceptor, detect=detect)


def unprotect(target: CompreFace) -> CompreFace:
    """See `Adapter.unprotect`."""
    client: CompreFace = unwrap(target)
    return client


def install(target: CompreFace, interceptor: CloudInterceptor, *, detect: Detection = "refuse") -> CompreFace:
    """`protect`, with an interceptor that is there already."""
    collection = getattr(target, "collection", "")
    return put_in_front(target, CompreFace, CompreFaceFront(interceptor, collection, detect))


class CompreFaceFront(Front):
    passes: ClassVar[frozenset[str]] = frozenset({"faces", "subjects", "picture", "add_subject"})
    replies: ClassVar[Mapping[str, type[Reply]]] = {
        "add_face": Example,
        "faces": Examples,
        "delete_face": Example,
        "delete_many": Removed,
        "delete_faces": Deleted,
        "delete_subject": Subject,
        "rename_subject": Updated,
    }
    limit = LIMIT

    def __init__(self, interceptor: CloudInterceptor, collection: str, detect: Detection) -> None:
        super().__init__(interceptor)
        self._collection, self._detect = collection, detect

    @classmethod
    def behind(cls, interceptor: CloudInterceptor, *, collection: str, fetch: Fetch | None = None) -> Self:
        """See `Front.behind`."""
        del fetch  # CompreFace takes no addresses
        return cls(interceptor, collection, "protect")

    def _on_add_face(self, call: Call[Any], send: Send) -> Any:
        whose = self.interceptor.whose_call(call.query["subject"], collection=self._collection, enrol=True)
        _ = self.interceptor.registry
        mixed, faces = self.mixed(call, whose)
        answer: Example = send(mixed)

        def undo(_: list[str]) -> None:
            path = f"recognition/faces/{quote(answer.image_id, safe='')}"
            gone: Example = send(Call("delete_face", Example, "DELETE", path))
            if gone.image_id != answer.image_id:
                raise BackEndError("another example was deleted", where=NAME)

        made = [(answer.image_id, faces["file"], whose)]
        self.interceptor.keep(made, collection=self._collection, undo=undo)
        return answer

    def _on_recognize(self, call: Call[Any], send: Send) -> Any:
        return send(self.mixed(call, self.interceptor.whose_call(collection=self._collection))[0])

    _on_verify_face = _on_recognize
    _on_verify = _on_recognize

    def _on_detect(self, call: Call[Any], send: Send) -> Any:
        if self._detect == "refuse":
            raise refused(self.interceptor, "detect", "describes a photo", "protect with detect='protect'")
        return self._on_recognize(call, send)

    def _on_delete_face(self, call: Call[Any], send: Send) -> Any:
        answer: Example = send(call)
        if answer.image_id == call.about["image_id"]:
            self.interceptor.forget_entry(self._collection, answer.image_id)
        return answer

    def _on_delete_many(self, call: Call[Any], send: Send) -> Any:
        answer: Removed = send(call)
        for example in answer.items:
            self.interceptor.forget_entry(self._collection, example.image_id)
        return answer

    def _on_rename_subject(self, call: Call[Any], send: Send) -> Any:
        """Rename, and write the examples down under the new name; their key is the gallery's either way."""
        old, new = call.about["subject"], call.fields["subject"]
        if self.interceptor.keys == "own":
            raise refused(
                self.interceptor, "renaming", "would part a person from their key", "enrol under the new name"
            )
        names = self._examples(send, old)
        answer: Updated = send(call)
        kept = names & self._examples(send, new)
        for entry in self.interceptor.entries(self._collection):
            if entry.external_id in kept and entry.subject != new:
                self.interceptor.renamed(entry, new)
        return answer

    def _on_delete_faces(self, call: Call[Any], send: Send) -> Any:
        return self._deleted(call, send, call.query.get("subject"))

    def _on_delete_subject(self, call: Call[Any], send: Send) -> Any:
        return self._deleted(call, send, call.about["subject"])

    def _deleted(self, call: Call[Any], send: Send, subject: str | None) -> Any:
        """Delete what CompreFace keeps of a subject, or of all, and write down what it no longer lists.

        Records name people, who may be called otherwise at CompreFace by now: the examples' ids count.
        """
        before = self._examples(send, subject)
        answer = send(call)
        for name in before - self._examples(send, subject):
            self.interceptor.forget_entry(self._collection, name)
        return answer

    def _examples(self, send: Send, subject: str | None) -> set[str]:
        found: set[str] = set()
        page, pages = 0, 1
        while page < pages:
            query = {"page": str(page), "size": "100"} | ({} if subject is None else {"subject": subject})
            answer: Examples = send(Call("faces", Examples, "GET", "recognition/faces", query=query))
            found |= {example.image_id for example in answer.faces}
            page, pages = page + 1, answer.total_pages
        return found
