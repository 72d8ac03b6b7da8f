"""The one object that users hold: photo and subject in, cancelable face out."""

from __future__ import annotations

import collections.abc
import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, Self, TypedDict, Unpack, cast, overload

import cv2
import numpy as np

from anonymix_keystore import Anchor, Keystore, KeystoreError, SubjectKey, Unlock
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.configuration import load_configuration
from anonymix_plugin.errors import AnonymixError, DamagedModelError, ModelError, UsageError, naming_extras
from anonymix_plugin.faces import Detector, FacePolicy, Scrfd, YuNet
from anonymix_plugin.generator import (
    Engine,
    Generator,
    load_generator,
    load_reference_generator,
    pictures_of,
)
from anonymix_plugin.images import ChannelOrder, ImageLimits, PhotoSource
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.fingerprint import fingerprint
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
from anonymix_plugin.mixer.roads import FastRoad, RefineRoad, Road
from anonymix_plugin.mixer.weights import MixerWeights, load_mixer_weights
from anonymix_plugin.models import load_checked, weights_hash
from anonymix_plugin.pipeline import Reader, Stopwatch
from anonymix_plugin.quality import LEAST_QUALITY
from anonymix_plugin.recognisers import MeasuringRecogniser, load_recogniser, torch_recogniser
from anonymix_plugin.streaming import Stream, in_two_stages
from anonymix_plugin.unlocking import anchor_in_use, unlock_without_asking
from anonymix_plugin.values import CancelableFace, Face, Floats, Pixels, ReadFace, Timings
from anonymix_plugin.words import shown

if TYPE_CHECKING:  # these import torch, which takes seconds and which the fast road does without
    from anonymix_plugin.encoder import Encoder
    from anonymix_plugin.mixer.presets import PresetName
    from anonymix_plugin.mixer.refine import RefineSettings, RefineStep

RoadName = Literal["fast", "refine"]
DetectorName = Literal["yunet", "scrfd-500m"]

_RECOGNISERS = ("arcface-mbf", "sface")
_RECOGNISER_THREADS = min(2, os.cpu_count() or 1)  # a third does nothing for networks of this size


class KeySource(Protocol):
    """Where keys come from: a keystore, or whatever else hands out 256-bit keys by subject and version."""

    def current(self, subject: str, scope: str = ...) -> SubjectKey:
        """Return the active key; raise if there is none."""
        ...

    def current_or_issue(self, subject: str, scope: str = ...) -> SubjectKey:
        """Return the active key, after issuing a first one if there never was one."""
        ...

    def at(self, subject: str, version: int, scope: str = ...) -> SubjectKey:
        """Return the key of one version; raise if it is not usable."""
        ...

    def gallery(self, scope: str = ...) -> SubjectKey:
        """Return the one key of a scope for searches without a claimed identity."""
        ...

    def close(self) -> None:
        """Let go of files and secrets."""
        ...


@dataclass(frozen=True, eq=False)
class PhotoRequest:
    """One photo of many, and whose it is; `Anonymixer.protect` says what the fields mean."""

    image: PhotoSource = field(repr=False)
    subject: str | None = field(default=None, repr=False)
    scope: str = "default"
    version: int | None = None
    enrol: bool = False
    channel_order: ChannelOrder = "rgb"

    @property
    def source(self) -> str:
        """The photo in words: a path, or what else it is (`words.shown`)."""
        return shown(self.image)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one photo of many.

    Attributes:
        source: The photo in words: a path, or what else it is (`words.shown`).
        faces: Its cancelable faces; empty after an error.
        error: What went wrong, or None.
    """

    source: str
    faces: tuple[CancelableFace, ...]
    error: AnonymixError | KeystoreError | None


class MixerOptions(TypedDict, total=False):
    """Options of `Anonymixer`, which says what they mean."""

    road: RoadName
    policy: MixingPolicy | None
    faces: FacePolicy
    detector: DetectorName
    engine: Engine
    generator: Path | None
    size: int | None
    limits: ImageLimits | None
    threads: int
    mixer_weights: Path | None
    encoder_weights: Path | None
    refinement: RefineSettings | PresetName | None
    progress: Callable[[RefineStep], None] | None
    min_quality: float


class Anonymixer:
    """Turns photos into cancelable faces.

    Args:
        keystore: Where the keys are. It stays the caller's to close, unless `open` made it.
        road: "fast" is one forward pass; "refine" adds the paper's optimisation (slow without a GPU).
        policy: What of the photo is kept, and how strongly person and key speak.
        faces: What to do where a photo shows several faces: "largest", "central", "all" or "error". For "all"
            and "error" the photo is searched thoroughly, which takes some tenths of a second.
        detector: "yunet" (permissive licence) or "scrfd-500m".
        engine: What draws: "auto" (the fastest that this machine's processor can run), "openvino", "torch"
            (the reference), or "cuda".
        generator: A StyleGAN2 checkpoint of your own in the place of MobileStyleGAN; it needs mixer weights
            that were learned for it, see docs/own-generator.md.
        size: Side of the cancelable faces in pixels, one of the generator's sizes (512 or 1024 for
            MobileStyleGAN); None takes 512, or what a smaller generator draws.
        limits: What is refused before decoding; None takes those of the configuration file.
        threads: CPU threads of the generator; 0 lets it decide.
        mixer_weights: Safetensors file made by `anonymix train mapper` for a generator of your own; None
            takes the shipped one.
        encoder_weights: The same, made by `anonymix train encoder`.
        refinement: Settings of the refine road, from the fast road's code on, or the name of a preset:
            "quick" (the default: 8 steps towards the keyed anchor), "anchored" (the paper's weights and
            schedule towards it), "paper" and "paper-code" (FaceAnonyMixer by the paper and by the
            authors' code; they start from the photo's own code, whatever the policy says).
        progress: Called after each step of the refine road.
        min_quality: The least quality of a face, the same at enrolment and probe; 0 takes every face. The
            measure and what the default refuses stand in `anonymix_plugin.quality`.

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
    def __init__(
        self,
        keystore: KeySource,
        *,
        road: RoadName = "fast",
        policy: MixingPolicy | None = None,
        faces: FacePolicy = "largest",
        detector: DetectorName = "yunet",
        engine: Engine = "auto",
        generator: Path | None = None,
        size: int | None = None,
        limits: ImageLimits | None = None,
        threads: int = 0,
        mixer_weights: Path | None = None,
        encoder_weights: Path | None = None,
        refinement: RefineSettings | PresetName | None = None,
        progress: Callable[[RefineStep], None] | None = None,
        min_quality: float = LEAST_QUALITY,
    ) -> None:
        self._keystore, self._owns_keystore = keystore, False
        self._policy, self._faces = policy or MixingPolicy(), faces
        weights = load_mixer_weights(mixer_weights) if mixer_weights else load_mixer_weights()
        # Compiling is most of what opening takes, and the compilers leave the interpreter alone.
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="anonymix-load") as pool:
            drawing = pool.submit(_generator, generator, engine, threads)
            seeing = [pool.submit(_measuring, name) for name in _RECOGNISERS]
            finder = _detector(detector, faces)
            own_code = road == "refine" and refinement in {"paper", "paper-code"}
            encoder = self._encoder(encoder_weights, needed=own_code)
            arcface, sface = (future.result() for future in seeing)
            self._generator: Generator = drawing.result()
        self._reader = Reader(
            detector=finder,
            arcface=arcface,
            sface=sface,
            subspace=weights.subspace,
            encoder=encoder,
            attributes=AttributePolicy.FULL if own_code else self._policy.attributes,
            faces=faces,
            limits=limits,
            framing=road == "refine",
            min_quality=min_quality,
        )
        self._size = min(512, max(self._generator.sizes)) if size is None else size
        if self._size not in self._generator.sizes:
            raise UsageError(f"faces are drawn at {self._generator.sizes} px, not {size}", where="size")
        if encoder is not None and encoder.generator_hash != self._generator.weights_hash():
            raise DamagedModelError(
                "the encoder's weights were learned for another generator",
                fix="train them for yours: anonymix train encoder",
            )
        mixer = FastMixer(self._generator, weights, self._policy)
        self._road: Road = FastRoad(mixer)
        if road == "refine":
            self._road = _refine_road(mixer, weights, _detector(detector), refinement, progress, generator)
        used = {"generator": self._generator.weights_hash(), "mixer": weights.sha256}
        used |= {name: weights_hash(name) for name in (*_RECOGNISERS, detector)}
        if encoder is not None:
            used["encoder"] = encoder.sha256
        self._fingerprint = fingerprint(used, self._policy.describe(), self._road.describe())

    @classmethod
    def open(
        cls,
        keystore: str | os.PathLike[str],
        *,
        unlock: Unlock | None = None,
        passphrase: str | None = None,
        anchor: Anchor | None = None,
        accept_clock: bool = False,
        **options: Unpack[MixerOptions],
    ) -> Self:
        """Open a keystore and the weights.

        Args:
            keystore: Path of the keystore; `anonymix keys init` makes one.
            unlock: How to unlock it. Without it: `passphrase`, else what the store names, with secrets from
                the environment (ANONYMIX_PASSPHRASE, ANONYMIX_KEYFILE, ...). Nothing is asked for.
            passphrase: The passphrase, where the store is locked by one.
            anchor: The anchor that the store is tied to; the file that ANONYMIX_ANCHOR names by default.
            accept_clock: Take the clock as right, though it stands before the store's last change or far
                after it.
            options: Arguments of the class.

        Raises:
            KeystoreError: The store is missing, stays locked, or is damaged.
            ModelError: Weights are missing or damaged.
        """
        store = Keystore.open(
            keystore,
            unlock_without_asking(keystore, passphrase) if unlock is None else unlock,
            anchor=anchor_in_use() if anchor is None else anchor,
            busy_timeout=load_configuration().keystore.busy_timeout,
            accept_clock=accept_clock,
        )
        try:
            mixer = cls(store, **options)
        except BaseException:
            store.close()
            raise
        mixer._owns_keystore = True
        return mixer

    @property
    def fingerprint(self) -> str:
        """The mixer fingerprint, 32 hex digits."""
        return self._fingerprint

    @property
    def keystore(self) -> KeySource:
        """The keystore that keys come from."""
        return self._keystore

    @property
    def generator(self) -> Generator:
        """What draws the faces, on the engine in use."""
        return self._generator

    @property
    def engine(self) -> str:
        """Which engine draws: faces of one engine are the same bytes, faces of two the same face."""
        return str(getattr(self._generator, "engine", type(self._generator).__name__))

    @property
    def policy(self) -> MixingPolicy:
        """The mixing policy."""
        return self._policy

    @property
    def face_policy(self) -> FacePolicy:
        """What is done where a photo shows several faces."""
        return self._faces

    def _encoder(self, path: Path | None, *, needed: bool) -> Encoder | None:
        if self._policy.attributes is AttributePolicy.NONE and not needed:
            return None
        from anonymix_plugin.encoder import load_encoder, load_own_encoder

        return load_encoder() if path is None else load_own_encoder(path)

    def close(self) -> None:
        """Forget what was derived from keys, and close the keystore if `open` opened it."""
        self._road.forget()
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

    def subject(
        self, subject: str, *, scope: str | None = None, enrol: bool = False
    ) -> AbstractContextManager[Claim]:
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

        Args:
            image: Path, bytes, binary file, PIL image, or array (RGB unless `channel_order` says BGR); or a
                list or tuple of those. If one of several can't be used, the whole call raises; `protect_many`
                goes on.
            subject: Whose key. None takes the gallery key of the scope, for search without a claimed name.
            scope: The application or gallery that the key belongs to.
            version: Version of the key; None takes the active one.
            enrol: Issue a first key if the subject has none. Leave it False for probes: a probe of an
                unknown person must fail, not make a key.
            channel_order: Order of the channels of an array.

        Returns:
            The cancelable face, that of the largest face where the policy for several faces is "all"; for a
            list or tuple of photos a list, in the same order.

        Raises:
            PhotoError: The photo can't be used: no image, no face, too large, already protected, ...
            KeystoreError: There is no usable key: unknown subject, revoked, locked, ...
            ModelError: Weights are missing or damaged.
        """
        whose = _Whose(subject, scope, version, enrol)
        if isinstance(image, list | tuple):
            self._key(whose)
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
        return self._protect(image, _Whose(subject, scope, version, enrol), channel_order)

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
        """
        self._key(_Whose(subject, scope, version, enrol))
        requests = (PhotoRequest(image, subject, scope, version, enrol, channel_order) for image in images)
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
            Whatever `requests` raise, and errors that are not about one photo.
        """
        return Stream(self._outcomes(requests, ahead=ahead))

    def _outcomes(
        self, requests: Iterable[PhotoRequest], *, ahead: int
    ) -> collections.abc.Generator[Outcome, None, None]:
        batch = int(getattr(self._generator, "batch", 1))
        if batch == 1:
            yield from in_two_stages(requests, self._read, self._drawn, ahead=ahead)
            return
        # A generator that draws many at once (a GPU) is fed by several readers, group after group.
        readers = max(1, min(batch, (os.cpu_count() or 2) - 1))
        with ThreadPoolExecutor(readers, thread_name_prefix="anonymix-reader") as pool:

            def read_all(group: tuple[PhotoRequest, ...]) -> list[_Waiting | Outcome]:
                return list(pool.map(self._read, group))

            groups = in_two_stages(_grouped(requests, batch), read_all, self._drawn_together, ahead=1)
            with closing(groups):
                for outcomes in groups:
                    yield from outcomes

    def _read(self, request: PhotoRequest) -> _Waiting | Outcome:
        # What is about this one photo: its values, its key, the photo itself. All else ends the stream.
        if not isinstance(request, PhotoRequest):
            what = f"a {type(request).__name__} is no PhotoRequest"
            return Outcome(shown(request), (), UsageError(what, fix="give PhotoRequest(image, subject)"))
        try:
            whose = _Whose(request.subject, request.scope, request.version, request.enrol)
            return self._waiting(request.image, whose, request.channel_order)
        except (AnonymixError, KeystoreError) as error:
            return Outcome(request.source, (), error)

    def _waiting(self, image: PhotoSource, whose: _Whose, order: ChannelOrder) -> _Waiting:
        """Read a photo. Its key is asked for first, so that without one nothing is looked at."""
        self._key(whose)
        watch, known = Stopwatch(), cast("ChannelOrder", _as_text(order, "channel_order"))
        photo = self._reader.decode(image, watch, known)
        return _Waiting(photo.source, whose, self._reader.read(photo, watch), watch)

    def _drawn(self, item: _Waiting | Outcome) -> Outcome:
        if isinstance(item, Outcome):
            return item
        try:
            return Outcome(item.source, tuple(self._faces_of(item)), None)
        except (AnonymixError, KeystoreError) as error:
            return Outcome(item.source, (), error)

    def _drawn_together(self, group: Sequence[_Waiting | Outcome]) -> list[Outcome]:
        """Draw the faces of all photos that could be read in one call of the generator."""
        mixed = [self._mixed_or_not(item) if isinstance(item, _Waiting) else item for item in group]
        codes = [code for item in mixed if isinstance(item, _Mixed) for code in item.codes]
        pictures, seconds = self._pictures(codes)
        outcomes = []
        for item in mixed:
            if isinstance(item, _Mixed):
                mine, pictures = pictures[: len(item.codes)], pictures[len(item.codes) :]
                outcomes.append(self._outcome(item, mine, seconds))
            else:
                outcomes.append(item)
        return outcomes

    def _mixed_or_not(self, item: _Waiting) -> _Mixed | Outcome:
        try:
            made = [self._mixed(face, item.whose, item.watch) for face in item.faces]
        except (AnonymixError, KeystoreError) as error:
            return Outcome(item.source, (), error)
        return _Mixed(item, [key for key, _ in made], [code for _, code in made])

    def _outcome(self, item: _Mixed, pictures: Floats, seconds: float) -> Outcome:
        waiting = item.waiting
        try:
            faces = [
                self._face(read, key, picture, waiting.watch, seconds)
                for read, key, picture in zip(waiting.faces, item.keys, pictures, strict=True)
            ]
        except AnonymixError as error:
            return Outcome(waiting.source, (), error)
        return Outcome(waiting.source, tuple(faces), None)

    def _faces_of(self, item: _Waiting) -> Iterator[CancelableFace]:
        """Mix and draw the faces of a photo one by one, each only when it is asked for."""
        for read in item.faces:
            watch = item.watch.copy()
            key, code = self._mixed(read, item.whose, watch)
            pictures, seconds = self._pictures([code])
            yield self._face(read, key, pictures[0], watch, seconds)

    def _mixed(self, read: ReadFace, whose: _Whose, watch: Stopwatch) -> tuple[SubjectKey, Floats]:
        """The code of a face under the key that is valid when its drawing begins, and that key.

        A key that is revoked while photos wait, or while one is optimised, makes no other face than the one
        that is in drawing. A lookup costs microseconds, a face a tenth of a second.
        """
        key = self._key(whose.known)
        while True:
            with watch.stage("mix"):
                code = self._road.code(read, KeySchedule(key.material), key.material)
            now = self._key(whose.known)
            if now == key:
                return key, code
            key = now  # rotated meanwhile

    def _key(self, whose: _Whose) -> SubjectKey:
        subject, scope, version = whose.subject, whose.scope, whose.version
        if subject is None:
            if version is not None:
                raise UsageError("a version is given without a subject", where="version")
            return self._keystore.gallery(scope)
        if version is not None:
            return self._keystore.at(subject, version, scope)
        if whose.enrol:
            return self._keystore.current_or_issue(subject, scope)
        return self._keystore.current(subject, scope)

    def _protect(
        self, image: PhotoSource, whose: _Whose, order: ChannelOrder, *, most: int | None = None
    ) -> list[CancelableFace]:
        return list(islice(self._faces_of(self._waiting(image, whose, order)), most))

    def _pictures(self, codes: Sequence[Floats]) -> tuple[Floats, float]:
        """Draw all of them; returns pictures and seconds for each."""
        if not codes:
            return np.zeros((0, 3, self._size, self._size), np.float32), 0.0
        started = time.perf_counter()
        pictures = pictures_of(self._generator, np.stack(codes), self._size)
        return pictures, (time.perf_counter() - started) / len(codes)

    def _face(
        self, read: ReadFace, key: SubjectKey, picture: Floats, watch: Stopwatch, drawing: float
    ) -> CancelableFace:
        started = time.perf_counter()
        pixels = _to_pixels(picture)
        drawing += time.perf_counter() - started
        seconds = {**watch.seconds, "generate": drawing}
        seconds["total"] = sum(seconds.values())
        return CancelableFace(
            pixels=pixels,
            box=_stored(read.face),
            subject=key.subject,
            scope=key.scope,
            key_version=key.version,
            fingerprint=self._fingerprint,
            road=self._road.name,
            engine=self.engine,
            quality=read.quality,
            source=read.face.photo.source,
            timings=Timings(seconds),
        )


def _stored(face: Face) -> tuple[float, float, float, float]:
    """The box of a face in pixels of the source, even if that was decoded smaller."""
    x0, y0, x1, y1 = (value * face.photo.shrunk for value in face.box)
    return x0, y0, x1, y1


@dataclass(frozen=True, repr=False)
class _Whose:
    """Which key is meant, in values of the plain types, whatever subclasses of them came in.

    Raises:
        UsageError: A value is of another type.
    """

    subject: str | None
    scope: str
    version: int | None
    enrol: bool

    def __post_init__(self) -> None:
        if self.subject is not None:
            object.__setattr__(self, "subject", _as_text(self.subject, "subject"))
        object.__setattr__(self, "scope", _as_text(self.scope, "scope"))
        if self.version is not None:
            object.__setattr__(self, "version", _as_number(self.version, "version"))
        object.__setattr__(self, "enrol", _as_truth(self.enrol, "enrol"))

    @property
    def known(self) -> _Whose:
        """The same for a key that was had a moment ago: it is not issued again."""
        return replace(self, enrol=False) if self.enrol else self


def _as_text(value: object, name: str) -> str:
    """A text of exactly the type `str`: tables and enumerations hand on subclasses of it."""
    if not isinstance(value, str):
        raise UsageError(f"it is a text, not a {type(value).__name__}", where=name, fix="give a str")
    return str.__str__(value)


def _as_number(value: object, name: str) -> int:
    """A whole number of exactly the type `int`; those of numpy count, truth values don't."""
    if not isinstance(value, bool):
        with suppress(TypeError):
            return int(operator.index(value))  # type: ignore[arg-type]
    raise UsageError(f"it is a whole number, not a {type(value).__name__}", where=name, fix="give an int")


def _as_truth(value: object, name: str) -> bool:
    try:
        return bool(value)
    except (TypeError, ValueError):  # an array, or what tables write where nothing is known
        kind = type(value).__name__
    raise UsageError(f"it is true or false, not a {kind}", where=name, fix="give a bool")


@dataclass(frozen=True, eq=False, repr=False)
class _Waiting:
    """A photo that was read and waits for its faces to be drawn."""

    source: str
    whose: _Whose
    faces: list[ReadFace]
    watch: Stopwatch


@dataclass(frozen=True, eq=False, repr=False)
class _Mixed:
    """A photo whose faces are mixed, and are drawn together with others'."""

    waiting: _Waiting
    keys: list[SubjectKey]
    codes: list[Floats]


def _generator(file: Path | None, engine: Engine, threads: int) -> Generator:
    if file is None:
        return load_generator(engine, threads=threads)
    from anonymix_plugin.generator.stylegan2_engines import load_own_generator

    return load_own_generator(file, engine, threads=threads)


def _refine_road(
    mixer: FastMixer,
    weights: MixerWeights,
    detector: Detector,
    refinement: RefineSettings | PresetName | None,
    progress: Callable[[RefineStep], None] | None,
    generator: Path | None,
) -> Road:
    from anonymix_plugin.mixer.anchors import load_anchor_directions
    from anonymix_plugin.mixer.attributes import load_attribute_distance
    from anonymix_plugin.mixer.presets import PRESETS, RefinePreset
    from anonymix_plugin.mixer.refine import Refiner, RefineSettings
    from anonymix_plugin.mixer.swap import LayerSwap
    from anonymix_plugin.mixer.swap_road import SwapRoad

    reference = _generator(generator, "torch", 0) if generator else load_reference_generator()
    size = min(512, max(reference.sizes))
    if isinstance(refinement, RefineSettings):
        preset = RefinePreset(refinement)
    else:
        if refinement is not None and refinement not in PRESETS:
            raise UsageError(
                f"there is no preset {refinement!r}",
                where="refinement",
                fix="use one of " + ", ".join(PRESETS),
            )
        preset = PRESETS[refinement or "quick"]
        layers = preset.settings.layers
        if preset.whole:
            end = weights.identity_end
            layers = range(reference.layers.identity.stop if end is None else end)
        preset = replace(preset, settings=replace(preset.settings, size=size, layers=layers))
    # Another mixer's faces reach other directions; its anchors are rotations into the whole space.
    directions = load_anchor_directions()
    attributes = load_attribute_distance()
    refiner = Refiner(
        reference,
        {name: torch_recogniser(name) for name in _RECOGNISERS},
        preset.settings,
        attributes=attributes,
        detector=detector,
        directions=directions if directions.mixer == weights.sha256 else None,
    )
    if preset.swap is None or preset.inversion is None:
        return RefineRoad(mixer, refiner, progress)
    swap = LayerSwap(reference, weights.centre, preset.swap)
    inversion = replace(preset.inversion, size=size)
    return SwapRoad(reference, swap, refiner, inversion, attributes, progress)


def _measuring(name: str) -> MeasuringRecogniser:
    recogniser = load_recogniser(name, threads=_RECOGNISER_THREADS)
    if not isinstance(recogniser, MeasuringRecogniser):
        raise ModelError("this recogniser does not measure how well it sees a face", where=name)
    return recogniser


def _grouped(requests: Iterable[PhotoRequest], size: int) -> Iterator[tuple[PhotoRequest, ...]]:
    """Groups of `size`, the last one smaller."""
    rest = iter(requests)
    while group := tuple(islice(rest, size)):
        yield group


def _detector(name: DetectorName, faces: FacePolicy = "largest") -> Detector:
    # Whether a photo shows one person, or whom it shows, is answered only by whoever has looked everywhere.
    thorough = faces in {"all", "error"}
    if name == "yunet":
        return YuNet(load_checked("yunet"), thorough=thorough)
    return Scrfd(load_checked("scrfd-500m"), thorough=thorough)


def _to_pixels(picture: Floats) -> Pixels:
    """Turn (3, S, S) float32 in [-1, 1] into (S, S, 3) uint8; refuse a picture that is no picture."""
    if not np.isfinite(picture).all():
        raise AnonymixError("the generator drew something that is no picture; nothing was made")
    scaled = picture.clip(-1, 1)
    scaled += 1
    scaled *= 127.5
    np.rint(scaled, out=scaled)
    return np.asarray(cv2.merge(list(scaled.astype(np.uint8))), np.uint8)  # four times as fast as transposing
