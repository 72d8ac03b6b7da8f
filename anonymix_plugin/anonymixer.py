"""The one object that users hold: photo and subject in, cancelable face out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, Unpack, overload

from anonymix_plugin.assembly import assemble
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.configuration import load_configuration
from anonymix_plugin.errors import UsageError, naming_extras
from anonymix_plugin.faces import FacePolicy
from anonymix_plugin.first_keys import attempt
from anonymix_plugin.generator import Generator
from anonymix_plugin.images import ChannelOrder, PhotoSource
from anonymix_plugin.keys import KeyChoice, KeySource
from anonymix_plugin.keyservice import service_address
from anonymix_plugin.mixer.policy import MixingPolicy
from anonymix_plugin.options import GivenOptions, MixerOptions
from anonymix_plugin.production import Outcome, PhotoRequest, Production, many
from anonymix_plugin.streaming import Stream
from anonymix_plugin.values import CancelableFace

if TYPE_CHECKING:
    from anonymix_keystore import Anchor, Keystore, Unlock
    from anonymix_plugin.keyservice import RemoteKeystore, ServiceCredentials


class Anonymixer:
    """Turns photos into cancelable faces.

    Args:
        keystore: Where the keys are. It stays the caller's to close, unless `open` made it.
        options: What the mixer is to be like; the defaults if it is left out.
        given: Fields of `MixerOptions` by name; they count before those of `options`.

    Raises:
        MissingModelError: Weights are not on this machine.
        DamagedModelError: Weights are not the ones that are expected.
        MissingPackageError: An option needs a package of an extra that is not installed.

    The rule of every method: if anything goes wrong between photo and cancelable face, it raises, and the
    caller has no picture at all. No method returns the photo, or any part of it.

    The same photo, key and fingerprint give the same bytes on one engine and device kind, in batches, in
    streams and alone, on any number of threads. Another engine gives the same face (to recognisers, a
    cosine of .999 or more), but not the same bytes; `engine` says which one is in use.
    """

    @naming_extras()
    def __init__(self, keystore: KeySource, options: MixerOptions | None = None, **given: Unpack[GivenOptions]) -> None:
        self._keystore, self._owns_keystore = keystore, False
        self._options = replace(options or MixerOptions(), **given)
        self._parts = assemble(self._options)
        self._production = Production(self._parts, keystore)

    @classmethod
    def open(
        cls,
        keystore: str | os.PathLike[str],
        *,
        unlock: Unlock | None = None,
        passphrase: str | None = None,
        anchor: Anchor | None = None,
        second_unlock: Unlock | None = None,
        accept_clock: bool = False,
        credentials: ServiceCredentials | None = None,
        **options: Unpack[GivenOptions],
    ) -> Self:
        """Open a keystore, or the line to a key service, and the weights.

        Args:
            keystore: Path of the keystore; `anonymix keys init` makes one. Or "https://HOST:PORT", the address of
                a key service (`anonymix keys serve`), which opens its store itself.
            unlock: How to unlock it. Without it: `passphrase`, else what the store names, with secrets from
                the environment (ANONYMIX_PASSPHRASE, ANONYMIX_KEYFILE, ...). Nothing is asked for.
            passphrase: The passphrase, where the store is locked by one.
            anchor: The anchor that the store is tied to; the file that ANONYMIX_ANCHOR names by default.
            second_unlock: How to unlock the second secret, which opens sealed references. Without it, and if
                a scope keeps references: what the store names, with secrets from the environment
                (ANONYMIX_SECOND_PASSPHRASE, ANONYMIX_SECOND_KEYFILE, ...). Where there is none, photos of
                those scopes are refused.
            accept_clock: Take the clock as right, though it stands before the store's last change or far
                after it.
            credentials: The client certificate that a key service is shown. Without it: what
                ANONYMIX_CLIENT_CERTIFICATE, ANONYMIX_CLIENT_KEY and ANONYMIX_SERVICE_CA name.
            options: Fields of `options.MixerOptions`.

        Raises:
            KeystoreError: The store is missing, stays locked, or is damaged.
            ModelError: Weights are missing or damaged.
            UsageError: A key service is named, and how to open a store besides; or the other way round.
        """
        remote = service_address(keystore) is not None
        of_stores = (unlock, passphrase, anchor, second_unlock, accept_clock or None)
        if remote and any(value is not None for value in of_stores):
            raise UsageError("a key service opens its store itself", fix="give credentials alone")
        if credentials is not None and not remote:
            raise UsageError("credentials are for a key service", where="keystore", fix="give https://HOST:PORT")
        store: Keystore | RemoteKeystore
        if remote:
            from anonymix_plugin.keyservice import RemoteKeystore

            store = RemoteKeystore(os.fspath(keystore), credentials)
        else:
            store = _opened(keystore, unlock, passphrase, anchor, second_unlock, accept_clock=accept_clock)
        try:
            mixer = cls(store, **options)
        except BaseException:
            store.close()
            raise
        mixer._owns_keystore = True
        return mixer

    def with_keystore(self, keystore: KeySource) -> Anonymixer:
        """The same mixer over other keys, with the same weights in memory.

        It is for keys that are not the application's: those of a drill, or of a look at what a new key would
        draw. It is good for as long as this one is open.

        Args:
            keystore: Where the other keys are. It stays the caller's to close.
        """
        other = object.__new__(Anonymixer)
        other._keystore, other._owns_keystore = keystore, False
        other._options, other._parts = self._options, self._parts
        other._production = Production(self._parts, keystore)
        return other

    @property
    def fingerprint(self) -> str:
        """The mixer fingerprint, 32 hex digits; of faces that no sealed reference had a say in."""
        return self._parts.fingerprint

    @property
    def guided_fingerprint(self) -> str:
        """The same with the guiding curve, of faces drawn by a sealed reference; "" on the refine method."""
        return "" if self._parts.guide is None else self._parts.guide.fingerprint

    @property
    def subspace(self) -> str:
        """Hash of the identity subspace that sealed references belong to; "" on the refine method."""
        return "" if self._parts.guide is None else self._parts.guide.subspace

    @property
    def keystore(self) -> KeySource:
        """The keystore that keys come from."""
        return self._keystore

    @property
    def generator(self) -> Generator:
        """What draws the faces, on the engine in use."""
        return self._parts.generator

    @property
    def engine(self) -> str:
        """Which engine draws: faces of one engine are the same bytes, faces of two the same face."""
        return self._production.engine

    @property
    def policy(self) -> MixingPolicy:
        """The mixing policy."""
        return self._options.policy or MixingPolicy()

    @property
    def face_policy(self) -> FacePolicy:
        """What is done where a photo shows several faces."""
        return self._options.faces

    def close(self) -> None:
        """Forget what was derived from keys, and close the keystore if `open` opened it."""
        self._parts.method.forget()
        if self._owns_keystore:
            self._keystore.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an Anonymixer can't be pickled or copied: open one in each process")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def subject(self, subject: str, *, scope: str | None = None, enrol: bool = False) -> AbstractContextManager[Claim]:
        """Say for a block of code whose face adapters will see: `with mixer.subject("alice"): ...`.

        It is for calls that an adapter takes over and that carry no name themselves; the methods of this
        class take theirs as an argument. The claim ends with the block. Each thread and each asyncio task has
        its own; a generator keeps its own to itself. See docs/frameworks.md.

        Args:
            subject: The person's id.
            scope: Scope of the key; None leaves it to the adapter.
            enrol: Issue a first key if the subject has none.

        Raises:
            UsageError: On entry: the id is no text, or empty. On leaving, unless an error is under way: a
                block inside is still open, or the block was entered in another context.
        """
        return claimed(Claim(subject, scope, enrol))

    @overload
    def protect(
        self,
        image: PhotoSource,
        *,
        subject: str | None = ...,
        scope: str = ...,
        version: int | None = ...,
        enrol: bool = ...,
        channel_order: ChannelOrder = ...,
    ) -> CancelableFace: ...

    @overload
    def protect(
        self,
        image: list[PhotoSource] | tuple[PhotoSource, ...],
        *,
        subject: str | None = ...,
        scope: str = ...,
        version: int | None = ...,
        enrol: bool = ...,
        channel_order: ChannelOrder = ...,
    ) -> list[CancelableFace]: ...

    def protect(
        self,
        image: PhotoSource | list[PhotoSource] | tuple[PhotoSource, ...],
        *,
        subject: str | None = None,
        scope: str = "default",
        version: int | None = None,
        enrol: bool = False,
        channel_order: ChannelOrder = "rgb",
    ) -> CancelableFace | list[CancelableFace]:
        """Turn one photo of one person, or several photos of the same person, into cancelable faces.

        In a scope that keeps sealed references, a subject's first enrolment keeps the photo's code, and each
        later photo that claims to be the subject is turned towards it or away from it before it is drawn
        (`anonymix_plugin.mixer.guide`). It stays for as long as the version of the key, unless several photos
        enrol the subject again. Everywhere else the photo alone is drawn.

        Several photos with `enrol=True` are one enrolment: one face is drawn, from the mean of their codes,
        and is returned for each of them. Its `left_out` tells which photos look like somebody else.

        Args:
            image: Path, bytes, binary file, PIL image, or array (RGB unless `channel_order` says BGR); or a
                list or tuple of those. If one of several can't be used, the whole call raises; `protect_many`
                goes on.
            subject: Whose key. None takes the gallery key of the scope, for search without a claimed name.
            scope: The application or gallery that the key belongs to.
            version: Version of the key; None takes the active one.
            enrol: This is an enrolment: issue a first key if the subject has none. Leave it False for probes:
                a probe of an unknown person must fail, not make a key. An enrolment that fails leaves none.
            channel_order: Order of the channels of an array.

        Returns:
            The cancelable face, that of the largest face where the policy for several faces is "all"; for a
            list or tuple of photos a list, in the same order.

        Raises:
            PhotoError: The photo can't be used: no image, no face, too large, already protected, ...
            DifferentPeopleError: No majority of the photos of an enrolment shows one person.
            KeystoreError: There is no usable key: unknown subject, revoked, locked, ...; or the scope keeps
                references and their secret is not there (OriginalsError), or the subject's was made for
                another mixer (OutdatedReferenceError).
            ModelError: Weights are missing or damaged.
        """
        whose = KeyChoice(subject, scope, version, enrol)
        if isinstance(image, list | tuple):
            whose.checked(self._keystore)
            if image and whose.enrol:
                with attempt():
                    return [self._production.enrolled(image, whose, channel_order)] * len(image)
            return [self._protect(one, whose, channel_order, most=1)[0] for one in image]
        return self._protect(image, whose, channel_order, most=1)[0]

    def protect_all(
        self,
        image: PhotoSource,
        *,
        subject: str | None = None,
        scope: str = "default",
        version: int | None = None,
        enrol: bool = False,
        channel_order: ChannelOrder = "rgb",
    ) -> list[CancelableFace]:
        """Turn all faces of one photo that the policy selects into cancelable faces, under one key.

        Arguments and errors are those of `protect`; the largest face comes first.
        """
        return self._protect(image, KeyChoice(subject, scope, version, enrol), channel_order)

    def protect_many(
        self,
        images: Iterable[PhotoSource],
        *,
        subject: str | None = None,
        scope: str = "default",
        version: int | None = None,
        enrol: bool = False,
        channel_order: ChannelOrder = "rgb",
    ) -> Stream[Outcome]:
        """Turn many photos of one subject into cancelable faces; one bad photo does not stop the rest.

        Arguments are those of `protect`. While one face is drawn, the next photos are read; see
        `protect_stream`.

        Yields:
            An outcome for each photo, in order.

        Raises:
            KeystoreError: There is no usable key; nothing was looked at then.
            UsageError: `images` is a single photo.
        """
        photos = many(images, "images")
        KeyChoice(subject, scope, version, enrol).checked(self._keystore)
        requests = (PhotoRequest(image, subject, scope, version, enrol, channel_order) for image in photos)
        return self.protect_stream(requests)

    def protect_stream(self, requests: Iterable[PhotoRequest], *, ahead: int = 2) -> Stream[Outcome]:
        """Turn any number of photos of any subjects into cancelable faces, in constant memory.

        Photos are read (decode, detect, align, embed) in one thread and drawn in another, while the caller
        uses the face before; a generator that draws in batches (a GPU) is given whole batches, which several
        threads read. A photo or a key that can't be used makes an outcome with an error and does
        not stop the rest. Leaving the loop or closing the iterator stops both threads.

        Args:
            requests: Photos and whose they are. They are asked for in another thread, a few in advance:
                at most 3 + 2 * `ahead` before their outcome is taken, or five batches.
            ahead: How many photos may wait between two stations; each may be as large as `limits` allow.

        Yields:
            An outcome for each request, in order; the bytes are those that `protect` makes. Its error is a
            KeystoreError where there is no usable key, a PhotoError where the photo can't be used.

        Raises:
            UsageError: `requests` is a single photo or request.
            Whatever `requests` raise, and errors that are not about one photo.
        """
        return Stream(self._production.outcomes(many(requests, "requests"), ahead=ahead))

    def _protect(
        self, image: PhotoSource, whose: KeyChoice, order: ChannelOrder, *, most: int | None = None
    ) -> list[CancelableFace]:
        with attempt():
            return list(islice(self._production.faces_of(self._production.waiting(image, whose, order)), most))


def _opened(
    path: str | os.PathLike[str],
    unlock: Unlock | None,
    passphrase: str | None,
    anchor: Anchor | None,
    second_unlock: Unlock | None,
    *,
    accept_clock: bool,
) -> Keystore:
    """Open a keystore and, where it has any, the references in it; arguments are those of `Anonymixer.open`."""
    # Database and cryptography, which a source of keys of the application's own does without.
    from anonymix_keystore import Keystore
    from anonymix_plugin.unlocking import anchor_in_use, unlock_references_without_asking, unlock_without_asking

    store = Keystore.open(
        path,
        unlock_without_asking(path, passphrase) if unlock is None else unlock,
        anchor=anchor_in_use() if anchor is None else anchor,
        busy_timeout=load_configuration().busy_timeout,
        accept_clock=accept_clock,
    )
    try:
        if second_unlock is None:
            unlock_references_without_asking(store)
        else:
            store.originals.unlock(second_unlock)
    except BaseException:
        store.close()
        raise
    return store
