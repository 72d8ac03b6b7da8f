"""The one way from an adapter to the mixer: whose key, which face, what is written down."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from anonymix_adapters.errors import AdapterError, EnrolmentError, SubjectNeededError, kind_in_words
from anonymix_keystore import EnrolmentInfo, NewEnrolment
from anonymix_plugin.claims import claim_within, claimed, current_claim, current_notes
from anonymix_plugin.errors import UsageError
from anonymix_plugin.first_keys import attempt
from anonymix_plugin.guiding import KeepsReferences
from anonymix_plugin.images import ChannelOrder, PhotoSource
from anonymix_plugin.values import CancelableFace

T = TypeVar("T")

KeyUse: TypeAlias = Literal["own", "gallery"]
"""own: each subject's key, for enrolment and 1:1. gallery: one key for all of a scope, for 1:N search."""

ScopeRule: TypeAlias = str | Callable[[str], str]
"""The scope of the keys, or a function from the back end's collection to its scope."""


class FaceMixer(Protocol):
    """What adapters ask of a mixer; `anonymix_plugin.Anonymixer` meets it."""

    @property
    def fingerprint(self) -> str:
        """The mixer fingerprint."""
        ...

    @property
    def keystore(self) -> Any:
        """Where the keys, and the enrolment records, are."""
        ...

    def protect(
        self,
        image: Any,
        *,
        subject: str | None = ...,
        scope: str = ...,
        version: int | None = ...,
        enrol: bool = ...,
        channel_order: ChannelOrder = ...,
    ) -> CancelableFace:
        """Turn a photo into a cancelable face, or raise.

        A list of photos with `enrol=True` gives a list of one and the same face, drawn from all of them.
        """
        ...


class MixerAround:
    """A mixer that passes everything on to another one: for those that watch, time or remember.

    Args:
        mixer: The other one.
    """

    def __init__(self, mixer: FaceMixer) -> None:
        self.mixer = mixer

    @property
    def fingerprint(self) -> str:
        """The mixer fingerprint."""
        return self.mixer.fingerprint

    @property
    def guided_fingerprint(self) -> str:
        """The fingerprint of guided faces; "" where there are none."""
        return str(getattr(self.mixer, "guided_fingerprint", ""))

    @property
    def keystore(self) -> Any:
        """Where the keys, and the enrolment records, are."""
        return self.mixer.keystore

    def protect(self, image: Any, **how: Any) -> Any:
        """See `FaceMixer.protect`."""
        return self.mixer.protect(image, **how)


@runtime_checkable
class EnrolmentRegistry(Protocol):
    """The part of a keystore that keeps enrolment records; `anonymix_keystore.Keystore` meets it."""

    def record_enrolment(
        self,
        subject: str,
        scope: str = ...,
        *,
        adapter: str,
        collection: str,
        external_id: str,
        version: int,
        fingerprint: str,
        gallery: bool = ...,
    ) -> str:
        """Write down an entry."""
        ...

    def mark_removed(self, entry: str) -> bool:
        """Write down that an entry is gone."""
        ...

    def enrolment(self, *, adapter: str, collection: str, external_id: str) -> EnrolmentInfo | None:
        """The record of one entry."""
        ...

    def enrolments(self, scope: str | None = ...) -> Iterator[EnrolmentInfo]:
        """All records."""
        ...

    def due(self, scope: str | None = ..., *, fingerprint: str | None = ...) -> Iterator[EnrolmentInfo]:
        """Records that leave work to do."""
        ...


@dataclass(frozen=True)
class Whose:
    """Whose face a photo shows, and with which key it is protected.

    Attributes:
        subject: The person's id; None where nobody is claimed (a search under the gallery key).
        scope: Scope of the key.
        gallery: Whether the scope's gallery key is used, in place of the subject's own.
        enrol: Whether a first key may be issued.
    """

    subject: str | None
    scope: str
    gallery: bool
    enrol: bool = False


class _Notes(list[tuple["Interceptor", CancelableFace, Whose]]):
    """What was protected inside a block; and the one face that an enrolment from several photos hands on."""

    def __init__(
        self, interceptor: Interceptor | None = None, face: CancelableFace | None = None, whose: Whose | None = None
    ):
        super().__init__()
        self._interceptor, self._face, self._whose = interceptor, face, whose

    def again(self) -> _Notes:
        """Empty notes of a block inside, with the same face."""
        return _Notes(self._interceptor, self._face, self._whose)

    def entry_for(self, interceptor: Interceptor, whose: Whose) -> CancelableFace | None:
        """The face that stands for all photos of this enrolment, if it is this interceptor's and this person's."""
        meant = self._whose
        if self._interceptor is not interceptor or meant is None or not whose.enrol:
            return None
        same = (whose.scope, whose.gallery) == (meant.scope, meant.gallery)
        return self._face if same and _same(whose.subject or "", meant.subject or "") else None


_TOGETHER: ContextVar[list[NewEnrolment] | None] = ContextVar("anonymix_recorded_together", default=None)


@contextmanager
def recorded_together(entries: list[NewEnrolment]) -> Iterator[None]:
    """Put what interceptors write down within the block on a list: whoever has it writes all of it down in one step."""
    token = _TOGETHER.set(entries)
    try:
        yield
    finally:
        _TOGETHER.reset(token)


class Interceptor:
    """Stands between one protected client and the mixer. Safe to use from many threads.

    Args:
        mixer: Makes the cancelable faces.
        adapter: Name of the adapter, for the enrolment records.
        keys: "own" for a key each; "gallery" for one key of the scope, which 1:N search needs.
        scope: Scope of the keys; or a function that maps the back end's collection to its scope, so that
            two collections can't be linked.

    Raises:
        UsageError: There is no such use of keys, or what is given as the mixer is none.
    """

    def __init__(self, mixer: FaceMixer, adapter: str, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> None:
        if keys not in {"own", "gallery"}:
            raise UsageError(f"there is no use of keys {keys!r}", where="keys", fix="use 'own' or 'gallery'")
        if not callable(getattr(mixer, "protect", None)):
            what = f"a {type(mixer).__name__} is no mixer"
            raise UsageError(what, where=adapter, fix="give the client first, then the mixer: protect(client, mixer)")
        self.mixer, self.adapter, self.keys = mixer, adapter, keys
        self.scope_rule = scope

    def same_as(self, other: Interceptor) -> bool:
        """Whether the other interceptor does the same in the same way."""
        mine = (id(self.mixer), self.adapter, self.keys, self.scope_rule)
        return mine == (id(other.mixer), other.adapter, other.keys, other.scope_rule)

    def scope(self, collection: str = "") -> str:
        """Scope of the keys of a collection."""
        return self.scope_rule(collection) if callable(self.scope_rule) else self.scope_rule

    # --- whose ------------------------------------------------------------------------------------

    def whose(
        self,
        *,
        argument: str | None = None,
        field: str | None = None,
        collection: str = "",
        enrol: bool = False,
        named: bool | None = None,
    ) -> Whose:
        """Find out whose key a call needs.

        The subject is said by an argument of the adapter's own, by the field of the SDK's call that names a
        person, or by `with mixer.subject(...)` around the call. All that is said must be the same. A block's
        scope counts before the interceptor's; its scope and `enrol` count for whoever it names and nobody else.

        Args:
            argument: The subject, as an argument of the adapter says it.
            field: The subject, as a field of the SDK's call says it (ExternalImageId, say).
            collection: The back end's collection.
            enrol: Whether this call enrols: a first key may be issued.
            named: Whether a subject is needed. None: wherever each has a key of their own, and at every
                enrolment, because an entry that nobody is named for could not be renewed.

        Raises:
            SubjectNeededError: A subject is needed, and nobody said who.
            UsageError: Two different people are named, or one by an empty text; or the block that named one
                has ended.
        """
        try:
            claim = current_claim()
        except UsageError:
            if argument is None and field is None:
                raise
            claim = None  # a block that has ended says nothing, and this call need not go by it
        subject = self._one(
            {
                "subject=": argument,
                "a field of the call": field,
                "the block around it": claim.subject if claim else None,
            }
        )
        gallery = self.keys == "gallery"
        scope = (claim.scope if claim else None) or self.scope(collection)
        enrol = enrol or bool(claim and claim.enrol)
        if named is None:
            named = not gallery or enrol
        if subject is None and (named or not gallery):
            raise SubjectNeededError(
                "nobody said whose face this is, so that no key can be chosen; nothing was sent",
                where=self.adapter,
                fix="name the subject in the call, or put it in `with mixer.subject(ID):` where the call is "
                "made; for 1:N search protect with keys='gallery'",
            )
        return Whose(subject, scope, gallery, enrol)

    def _one(self, said: dict[str, str | None]) -> str | None:
        """The one subject that is named, whoever names it."""
        named = [(where, name) for where, name in said.items() if name is not None]
        for where, name in named:
            if name == "":
                raise UsageError(
                    f"{where} names a subject by an empty text; nothing was sent",
                    where=self.adapter,
                    fix="leave it out, or give an id",
                )
            if not _same(name, named[0][1]):
                raise UsageError(
                    f"{named[0][0]} and {where} name two different people; nothing was sent",
                    where=self.adapter,
                    fix="name one person, or the same in both places",
                )
        return named[0][1] if named else None

    # --- faces ------------------------------------------------------------------------------------

    def protect(self, image: PhotoSource, whose: Whose, *, channel_order: ChannelOrder = "rgb") -> CancelableFace:
        """Turn a photo into a cancelable face under the key that was found.

        Args:
            image: Path, bytes, binary file, PIL image or array.
            whose: What `whose` returned.
            channel_order: Order of the channels of an array.

        Raises:
            PhotoError: The photo can't be used, or is protected already.
            KeystoreError: There is no usable key.
        """
        return self._noted(self._made(image, whose, channel_order), whose)

    def _made(self, image: PhotoSource, whose: Whose, channel_order: ChannelOrder) -> CancelableFace:
        return self.mixer.protect(
            image,
            subject=None if whose.gallery else whose.subject,
            scope=whose.scope,
            enrol=whose.enrol and not whose.gallery,
            channel_order=channel_order,
        )

    def _noted(self, face: CancelableFace, whose: Whose) -> CancelableFace:
        notes = current_notes()
        if isinstance(notes, _Notes) and (entry := notes.entry_for(self, whose)) is not None:
            # Where the face was found stays this photo's: adapters answer with it.
            face = replace(entry, box=face.box, source=face.source)
        if notes is not None:
            notes.append((self, face, whose))
        return face

    @staticmethod
    def discard(face: CancelableFace) -> None:
        """Say that a face that was just made is not used, so that no enrolment counts it."""
        notes = current_notes()
        if notes is not None:
            notes[:] = [entry for entry in notes if entry[1] is not face]

    async def protect_async(
        self, image: PhotoSource, whose: Whose, *, channel_order: ChannelOrder = "rgb"
    ) -> CancelableFace:
        """`protect` in a thread of its own, so that an event loop goes on meanwhile."""
        return self._noted(await asyncio.to_thread(self._made, image, whose, channel_order), whose)

    @contextmanager
    def together(
        self,
        subject: str,
        photos: Sequence[PhotoSource],
        *,
        collection: str = "",
        channel_order: ChannelOrder = "rgb",
    ) -> Iterator[CancelableFace]:
        """Enrol a subject from several photos: enrolling calls inside hand on one face, drawn from all.

            with interceptor_of(client).together("alice", [one, two, three]):
                client.index_faces(CollectionId="staff", Image={"Bytes": one}, ExternalImageId="alice")

        The photo that a call inside carries has to be usable itself. Where the scope keeps references, the
        mean of the photos becomes the subject's.

        Args:
            subject: Whose face they show.
            photos: One or more.
            collection: The back end's collection, where the scope depends on it.
            channel_order: Order of the channels of arrays.

        Yields:
            The face; its `left_out` tells which photos look like somebody else.

        Raises:
            DifferentPeopleError: No majority of the photos shows one person.
            PhotoError, KeystoreError: As for `protect`.
            UsageError: Another person is named around the block.
        """
        whose = self.whose(argument=subject, collection=collection, enrol=True)
        with attempt():
            face = self._of_several(photos, whose, channel_order)
            with claimed(claim_within(subject, enrol=True), _Notes(self, face, whose)):
                yield face

    def _of_several(self, photos: Sequence[PhotoSource], whose: Whose, channel_order: ChannelOrder) -> CancelableFace:
        several: Any = self.mixer.protect(
            list(photos),
            subject=None if whose.gallery else whose.subject,
            scope=whose.scope,
            enrol=True,
            channel_order=channel_order,
        )
        if not several:
            raise UsageError("no photo is given", where=self.adapter, fix="give one or more of the person")
        return cast("CancelableFace", several[0])

    # --- records ----------------------------------------------------------------------------------

    @property
    def registry(self) -> EnrolmentRegistry:
        """Where enrolments are written down.

        Raises:
            AdapterError: The mixer's source of keys keeps no records.
        """
        registry = self.mixer.keystore
        if not isinstance(registry, EnrolmentRegistry):
            raise AdapterError(
                "this source of keys keeps no enrolment records: a rotation could not say what to renew",
                where=self.adapter,
                fix="use anonymix_keystore.Keystore",
            )
        return registry

    def record(self, face: CancelableFace, whose: Whose, *, collection: str, external_id: str) -> str:
        """Write down that the back end holds an entry made from a face.

        Returns:
            The record's name; "" within `recorded_together`.

        Raises:
            SubjectNeededError: It is not known whose entry it is.
            EnrolmentError: There is no id, so that the back end confirmed no entry.
            KeystoreError: The key was rotated since the face was made (KeyRevokedError), and so on.
        """
        if whose.subject is None:
            raise SubjectNeededError("an enrolment needs a subject", where=self.adapter, fix="name it")
        if external_id is None or external_id == "":
            raise EnrolmentError(
                "the back end did not name the entry that it was to make; nothing was written down",
                where=self.adapter,
                fix="look in the back end for an entry that no record names, and delete it",
            )
        made: dict[str, Any] = {"version": face.key_version, "fingerprint": face.fingerprint, "gallery": whose.gallery}
        made |= {"adapter": self.adapter, "collection": collection, "external_id": external_id}
        if (together := _TOGETHER.get()) is not None:
            together.append(NewEnrolment(whose.subject, whose.scope, **made))
            return ""
        return self.registry.record_enrolment(whose.subject, whose.scope, **made)

    def enrol(
        self,
        image: PhotoSource,
        whose: Whose,
        *,
        collection: str,
        send: Callable[[CancelableFace], T],
        external_id: Callable[[T], str],
        undo: Callable[[T], object],
        channel_order: ChannelOrder = "rgb",
    ) -> T:
        """Protect, send, write down; and take the entry back if it could not be written down.

        A key that is rotated between the two is the usual reason: its entry must not stay.

        Args:
            image: The photo.
            whose: Whose it is.
            collection: The back end's collection.
            send: Sends the face and returns the back end's answer.
            external_id: The id of the entry in that answer, under which it is deleted later.
            undo: Deletes the entry from the back end.
            channel_order: Order of the channels of an array.

        Returns:
            What `send` returned.

        Raises:
            EnrolmentError: The entry could not be recorded and could not be deleted either.
        """
        _ = self.registry  # asked before anything is sent
        if whose.subject is None:
            raise SubjectNeededError("an enrolment needs a subject", where=self.adapter, fix="name it")
        with attempt():
            face = self.protect(image, whose, channel_order=channel_order)
            answer = send(face)
            try:
                self.record(face, whose, collection=collection, external_id=external_id(answer))
            except Exception as error:
                self.roll_back(lambda: undo(answer), error)
                raise
        return answer

    @contextmanager
    def enrolment(
        self,
        subject: str,
        *,
        collection: str,
        external_id: str | Callable[[], str],
        undo: Callable[[], object] | None = None,
        photos: Sequence[PhotoSource] = (),
        channel_order: ChannelOrder = "rgb",
    ) -> Iterator[None]:
        """Enrol in the host's own code, with a library that knows nothing of names.

            with interceptor.enrolment("alice", collection="door", external_id="alice-1"):
                vectors["alice-1"] = app.get(photo)[0].normed_embedding

        The subject's key is used inside (a first one is issued), and what was made is written down at the
        end. An exception inside is passed on, and nothing is written down.

        Args:
            subject: Whose face it is.
            collection: The host's collection.
            external_id: The entry's id there; or a function that returns it, which is called at the end.
            undo: Deletes the entry, if it can't be written down (its key was rotated meanwhile).
            photos: Several photos of the person, from whose mean the entry is drawn, whichever of them the
                library is handed inside; see `together`.
            channel_order: Order of the channels of arrays among them.

        Raises:
            EnrolmentError: No face went through this interceptor inside the block, or faces of several keys, or of
                somebody else; the entry has no id; or it could neither be written down nor deleted.
            UsageError: Another person is named around the block, or inside it by a call.
            KeystoreError: The entry can't be written down.
        """
        _ = self.registry
        with attempt():
            made = self._notes(subject, photos, collection, channel_order)
            done = False
            try:
                with claimed(claim_within(subject, enrol=True), made):
                    yield
                    done = True
                mine = [(face, whose) for interceptor, face, whose in made if interceptor is self]
                if len({(face.key_version, whose) for face, whose in mine}) != 1 or not all(
                    _same(whose.subject or "", subject) for _, whose in mine
                ):
                    raise EnrolmentError(
                        f"{len(mine)} faces were protected, and not all with this person's one key: it can't be "
                        "written down which key the entry was made with",
                        where=self.adapter,
                        fix="enrol one person at a time, through the protected client",
                    )
                name = external_id() if callable(external_id) else external_id
                self.record(*mine[-1], collection=collection, external_id=name)
            except Exception as error:
                if done and undo is not None:
                    self.roll_back(undo, error)
                raise

    def _notes(
        self, subject: str, photos: Sequence[PhotoSource], collection: str, channel_order: ChannelOrder
    ) -> _Notes:
        if not photos:
            outer = current_notes()  # of `together` around it
            return outer.again() if isinstance(outer, _Notes) else _Notes()
        whose = self.whose(argument=subject, collection=collection, enrol=True)
        return _Notes(self, self._of_several(photos, whose, channel_order), whose)

    def roll_back(self, undo: Callable[[], object], cause: Exception) -> None:
        """Delete an entry that could not be recorded.

        Raises:
            EnrolmentError: That failed, too. It names the kinds of both errors, and not what an SDK says in
                them, which may hold a request.
        """
        try:
            undo()
        except Exception as error:
            raise EnrolmentError(
                f"an entry was made, could not be recorded ({kind_in_words(cause)}) and could not be deleted "
                f"({kind_in_words(error)})",
                where=self.adapter,
                fix="delete it in the back end by hand",
            ) from error

    def entries(self, collection: str | None = None) -> list[EnrolmentInfo]:
        """The records of this adapter's entries, those of one collection or all."""
        return [item for item in self.registry.enrolments() if self._mine(item, collection)]

    def entry(self, collection: str, external_id: str) -> EnrolmentInfo | None:
        """The record of one entry, by its id in the back end; looked up, however many there are."""
        return self.registry.enrolment(adapter=self.adapter, collection=collection, external_id=external_id)

    def due(self, collection: str | None = None) -> list[EnrolmentInfo]:
        """The records that leave work: entries to delete, subjects to enrol again.

        Raises:
            DamagedError: Some records can't be read; `each_due` gives all others first.
        """
        return list(self.each_due(collection))

    def each_due(self, collection: str | None = None) -> Iterator[EnrolmentInfo]:
        """The records that leave work, one by one.

        Raises:
            DamagedError: At the end: some records were passed over, since they can't be read.
        """
        names = {"fingerprint": self.mixer.fingerprint}
        if isinstance(self.registry, KeepsReferences):
            # Faces of subjects with a sealed reference have another fingerprint, and are as up to date.
            names["guided_fingerprint"] = str(getattr(self.mixer, "guided_fingerprint", ""))
        for item in self.registry.due(**names):
            if self._mine(item, collection):
                yield item

    def removed(self, entry: EnrolmentInfo) -> None:
        """Write down that an entry was deleted from the back end."""
        self.registry.mark_removed(entry.entry)

    def renamed(self, entry: EnrolmentInfo, subject: str) -> None:
        """Write down that the back end calls an entry's person otherwise now.

        It is for entries under a gallery key: a key of one's own belongs to its subject.
        """
        self.removed(entry)
        self.registry.record_enrolment(
            subject,
            entry.scope,
            adapter=entry.adapter,
            collection=entry.collection,
            external_id=entry.external_id,
            version=entry.version,
            fingerprint=entry.fingerprint,
            gallery=entry.gallery,
        )

    def forget_entry(self, collection: str, external_id: str) -> bool:
        """Write down that an entry was deleted, by its id in the back end; False if none was recorded."""
        found = self.entry(collection, external_id)
        if found is not None:
            self.removed(found)
        return found is not None

    def _mine(self, item: EnrolmentInfo, collection: str | None) -> bool:
        return item.adapter == self.adapter and collection in {None, item.collection}


def _same(one: str, other: str) -> bool:
    """Whether two texts are one name, as the keystore sees it: composed and decomposed spellings are."""
    return one == other or unicodedata.normalize("NFC", str(one)) == unicodedata.normalize("NFC", str(other))
