"""What an adapter is, and what a back end is to the conformance suite and the breach drill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse
from anonymix_adapters.sdk import Sdk
from anonymix_plugin.images import PhotoSource


@dataclass(frozen=True)
class Answer:
    """What a back end says to a comparison.

    Attributes:
        accepted: Its own verdict, at its own threshold.
        score: Its score or distance, in its own unit.
        subject: Whom it found, for a search; "" for nobody.
    """

    accepted: bool
    score: float
    subject: str = ""


@dataclass(frozen=True, eq=False)
class Leaked:
    """A template as a thief takes it out of a back end.

    Attributes:
        subject: Whose it is.
        external_id: The entry's id.
        template: The embedding, the picture, or whatever the back end holds.
    """

    subject: str
    external_id: str
    template: Any = field(repr=False)


class BackEnd(Protocol):
    """A collection of a back end with the adapter in front of it, as bulk renewal needs it.

    Faces and probes go through the protected client. With more than one call at a time, all of it is called from
    several threads.
    """

    @property
    def interceptor(self) -> Interceptor:
        """What stands in front of the back end."""
        ...

    @property
    def collection(self) -> str:
        """The back end's collection that entries go to."""
        ...

    def enrol(self, subject: str, photo: PhotoSource) -> str:
        """Enrol a photo, write the enrolment down, and return the entry's id in the back end."""
        ...

    def verify(self, subject: str, photo: PhotoSource) -> Answer:
        """Hold a photo, under the subject's key, against the subject's entries; the best answer counts.

        A subject without an entry is an answer that accepts nothing, not an error.
        """
        ...

    def delete(self, external_id: str) -> None:
        """Delete an entry from the back end; one that is gone already is no error.

        The record stays: whoever renews writes that down.
        """
        ...

    def entries(self) -> Mapping[str, str]:
        """What the back end holds now: entry id to subject, as asked from the back end itself."""
        ...


class Rehearsal(BackEnd, Protocol):
    """A back end on which enrolling, leaking and renewing is rehearsed; its collection is one that no record names.

    Everything goes through the protected client, except what says otherwise.
    """

    @property
    def client(self) -> Any:
        """The protected client or model, as `protect` returned it."""
        ...

    @property
    def searches(self) -> bool:
        """Whether `search` works with the keys in use."""
        ...

    def search(self, photo: PhotoSource) -> Answer:
        """Ask who a photo shows, under the gallery key."""
        ...

    def verify_original(self, subject: str, photo: PhotoSource) -> Answer:
        """The same as `verify`, past the adapter: the photo as it is. For measuring alone."""
        ...

    def seen(self) -> Sequence[Any]:
        """All that came out behind the adapter so far, in order: uint8 pictures, or bytes on the wire.

        It is recorded where the back end begins. `verify_original` is left out.
        """
        ...

    def leak(self) -> Sequence[Leaked]:
        """Copies of all templates, as a thief gets them."""
        ...

    def match(self, leaked: Leaked, subject: str) -> Answer:
        """Hold a leaked template against what the back end holds of a subject now; the best answer."""
        ...


@runtime_checkable
class Inspectable(Protocol):
    """What a rehearsal shows besides, of a back end behind a client with parts and calls of its own.

    The conformance suite asks for it where it is there; every adapter of a service has it.
    """

    def pairs(self) -> Sequence[tuple[Any, Any]]:
        """The protected client and an unprotected one, and so each object on them that has calls."""
        ...

    def verify_named(self, subject: str, photo: PhotoSource) -> Answer:
        """`Rehearsal.verify`, with the subject as the call's `subject=` in place of a block around it."""
        ...

    def exchanges(self, photo: bytes) -> Mapping[str, Callable[[], AbstractContextManager[None]]]:
        """Ways, by name, in which a host can exchange parts of the protected client after `protect`.

        Inside each block the part in question puts the original photo in the place of what was to be sent.
        A part that can't be exchanged raises on entry.
        """
        ...


@runtime_checkable
class Adapter(Protocol):
    """An adapter. A module with these names meets it; see docs/writing-an-adapter.md."""

    NAME: str
    """The name under which enrolments are recorded; the entry point has the same."""

    SDKS: tuple[Sdk, ...]
    """The packages it stands in front of."""

    def protect(self, target: Any, mixer: FaceMixer, **options: Any) -> Any:
        """Put the mixer in front of a client or model, and return what the host uses from now on.

        Options that all adapters take: `keys` ("own" or "gallery") and `scope`. Protecting twice with the
        same mixer and options does nothing; with others it raises DoubleProtectionError.

        Raises:
            SdkMissingError, SdkVersionError: The SDK is not there, or not as tested.
        """
        ...

    def unprotect(self, target: Any) -> Any:
        """Undo it, and return the client or model as it was.

        Raises:
            NotProtectedError: There is nothing to undo.
        """
        ...

    def interceptor_of(self, target: Any) -> Interceptor | None:
        """What stands in front of a client or model; None where nothing does."""
        ...

    def rehearse(self, mixer: FaceMixer, *, keys: KeyUse = ..., **options: Any) -> AbstractContextManager[Rehearsal]:
        """Open an empty back end with the adapter in front, for the conformance suite and the drill."""
        ...
