"""What stands in for the module `DeepFace`.

Each picture is mixed once, before DeepFace sees it, so that no function loads, caches or stores the photo:
the crop that `register` keeps is one of the cancelable face. Addresses, embeddings that this client did not
give out, and functions that would pass the mixer by are refused.

Crops that `extract_faces` gave out may be handed back, as DeepFace's usual two steps do; they are not mixed
again. All places (`facial_area`, `target_x`, ...) are in the cancelable picture and not in the photo.

`find` reads a folder of pictures. Only files that `enrol_file` wrote there are let through, told by their
SHA-256 in the keystore's records; after a rotation they are refused until they are renewed, and DeepFace's
cached embeddings of them (`ds_model_*`) are deleted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymix_adapters.deepface._calls import Call, Wrapped
from anonymix_adapters.deepface._cuts import SKIP, cut, finder_for
from anonymix_adapters.deepface._databases import Database
from anonymix_adapters.deepface._folders import Folder, digest_of
from anonymix_adapters.deepface._given import GIVEN, Origin
from anonymix_adapters.deepface._pictures import batch, is_address, is_vector, order_of, source
from anonymix_adapters.errors import AdapterError, BypassError, DoubleProtectionError, EnrolmentError
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule, Whose
from anonymix_adapters.local import bgr, finder
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import StandIn, interceptor_of, stand_in, unwrap
from anonymix_plugin.claims import current_claim
from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import PhotoSource

__all__ = ["NAME", "SDKS", "ProtectedDeepFace", "interceptor_of", "protect", "unprotect"]

NAME = "deepface"
SDKS = (
    Sdk("deepface", ("deepface",), "deepface", ">=0.0.93,<0.0.104"),
    Sdk("werkzeug", ("Werkzeug",), "deepface", ">=3,<4"),  # DeepFace imports it and does not ask for it
)

Prepared = npt.NDArray[Any]

_REFUSED: Mapping[str, str] = {
    "analyze": "age, gender, emotion and race of a cancelable face are not the person's",
    "stream": "it reads the camera itself",
    "build_model": "a model by itself embeds whatever it is given",
}
_BATCH = 50  # DeepFace commits a hundred rows at a time; one that fails leaves those before it
# DeepFace's detectors, and dlib's model, are one object for all threads.
_DEEPFACE = threading.Lock()


@dataclass(frozen=True)
class _Ready:
    """A picture as DeepFace is given it, and what it was made from."""

    pixels: Prepared
    origin: Origin


class ProtectedDeepFace(StandIn):
    """Stands in for the module `DeepFace`, with its functions under their own signatures.

    All of them take `subject`, too: whose face it is, where no `with mixer.subject(...)` says so.

    Args:
        target: The module.
        interceptor: What stands in front of it.
        database: What databases are called in the records whose place can't be told.
        unerasable: Whether to enrol into databases from which no entry can be deleted here.
    """

    def __init__(self, target: Any, interceptor: Interceptor, *, database: str = "", unerasable: bool = False) -> None:
        super().__init__(target, interceptor)
        self._options = (database, unerasable)
        self._database, self._unerasable = database, unerasable
        self._detector = finder()
        self._folders: dict[Path, Folder] = {}
        self._lock = threading.Lock()

    # --- pictures ---------------------------------------------------------------------------------

    @Wrapped
    def verify(self, call: Call) -> Any:
        """Compare two photos of the subject; as DeepFace's. Embeddings that `represent` gave out pass."""
        whose = self._later(call)
        pair: dict[str, Any] = {}
        for name in ("img1_path", "img2_path"):
            image = call[name]
            if is_vector(image) and GIVEN.gave_vector(image):
                pair[name] = [float(it) for it in image]
            else:
                pair[name] = self._ready(image, whose, call).pixels
        return self._run(call, **pair)

    @Wrapped
    def represent(self, call: Call) -> Any:
        """Embed a photo, or several of the subject; as DeepFace's."""
        ready = self._all_ready(call["img_path"], self._later(call), call)
        return self._noted(self._run(call, img_path=_pixels(ready)), ready, bgr_faces=True)

    @Wrapped
    def extract_faces(self, call: Call) -> Any:
        """Find and cut out the cancelable face, or the faces of several photos; as DeepFace's.

        With detector "skip" the face is the whole cancelable picture, as it is the whole photo in DeepFace.
        The faces are `ProtectedFace`: handed back to this client they are not mixed again.
        """
        ready = self._all_ready(call["img_path"], self._later(call), call, whole=True)
        found = self._run(call, img_path=_pixels(ready))
        whole = call["detector_backend"] == SKIP
        return self._noted(found, ready, bgr_faces=call["color_face"] == "bgr", whole=whole)

    def _noted(self, found: Any, ready: Any, *, bgr_faces: bool, whole: bool = False) -> Any:
        """Note the crops and the embeddings in an answer, so that they may be handed back."""
        several = isinstance(ready, list)
        groups = found if several and found and isinstance(found[0], list) else [found]
        for faces, picture in zip(groups, ready if several else [ready], strict=True):
            for face in faces:
                if isinstance(face.get("face"), np.ndarray):
                    face["face"] = GIVEN.give(
                        face["face"], self._interceptor, picture.origin, bgr=bgr_faces, whole=whole
                    )
                if is_vector(face.get("embedding")):
                    GIVEN.give_vector(face["embedding"])
        return found

    # --- folders ----------------------------------------------------------------------------------

    def enrol_file(self, photo: PhotoSource, db_path: str | os.PathLike[str], subject: str) -> Path:
        """Write a cancelable picture into a folder for `find`, and write that down.

        Args:
            photo: The photo, of any kind that `represent` takes; an array is BGR.
            db_path: The folder; each subject gets one of its own in it.
            subject: Whose face it is.

        Returns:
            The file.
        """
        folder = self._folder(db_path)
        folder.path.mkdir(parents=True, exist_ok=True)
        name = folder.name()
        whose = self._interceptor.whose(argument=subject, collection=name, enrol=True)
        made: list[Path] = []

        def send(face: Any) -> Path:
            made.append(folder.add(face, subject))
            return made[0]

        return self._interceptor.enrol(
            source(photo),
            whose,
            collection=name,
            send=send,
            external_id=digest_of,
            undo=lambda path: path.unlink(missing_ok=True),
            channel_order=order_of(photo),
        )

    def delete_file(self, db_path: str | os.PathLike[str], digest: str) -> None:
        """Delete an enrolled file, named by its SHA-256, and DeepFace's caches of the folder."""
        self._folder(db_path).remove(digest)

    def collection_of(self, db_path: str | os.PathLike[str]) -> str:
        """The name of a folder in the keystore's records.

        It is the path at which the folder was first used, and stays when it is moved.
        """
        return self._folder(db_path).name()

    @staticmethod
    def invalidate(db_path: str | os.PathLike[str]) -> int:
        """Delete DeepFace's cached embeddings of a folder; returns how many files there were."""
        return Folder.invalidate(Path(db_path))

    @Wrapped
    def find(self, call: Call) -> Any:
        """Search a folder of enrolled cancelable faces; as DeepFace's.

        Raises:
            BypassError: The folder holds a picture that `enrol_file` did not write, or is no local folder.
            BackEndError: It holds pictures of old keys.
        """
        path = os.fspath(call["db_path"])
        if is_address(path):
            raise BypassError("a store that is not on this machine can't be checked", where="db_path")
        if not (call["refresh_database"] is None or call["refresh_database"]):
            raise BypassError("a cache that is not refreshed may hold old keys", where="refresh_database")
        folder = self._folder(path)
        skip = call["detector_backend"] == SKIP
        with folder.lock:  # DeepFace writes its cache in place, where another thread may read it
            folder.check(str(call["detector_backend"]))
        ready = self._ready(call["img_path"], self._later(call, folder.name()), call, whole=True)
        changed: dict[str, Any] = {"img_path": _levels(ready.pixels), "db_path": str(folder.path)}
        if skip:  # DeepFace would embed whole pictures
            detector = finder_for(str(call["model_name"]))
            changed |= {"detector_backend": detector, "align": False, "expand_percentage": 0}
        with folder.lock:
            folder.check(str(call["detector_backend"]))
            try:
                return self._run(call, **changed)
            finally:
                folder.remember()

    def _folder(self, path: str | os.PathLike[str]) -> Folder:
        where = Path(path).resolve()
        with self._lock:
            return self._folders.setdefault(where, Folder(where, self._interceptor))

    # --- databases --------------------------------------------------------------------------------

    @Wrapped
    def register(self, call: Call) -> Any:
        """Enrol a photo, or several of one subject, in a database; as DeepFace's.

        The subject is `subject`, whatever `img_name` is; without it `img_name` and `with mixer.subject(...)`
        name the subject, and must name the same. A copy of the crop that DeepFace keeps shows the cancelable
        face. What the database did not take is not recorded: a photo that it holds already, under whatever
        name, is answered with `{"inserted": 0}`.

        Raises:
            AdapterError: Entries can't be deleted from this kind of database here.
            UsageError: The name is recorded for another subject, or two subjects are named.
        """
        database = Database.of(call)
        if not (database.erasable or self._unerasable):
            raise AdapterError(
                f"entries of {database.kind} can't be deleted here, so that a revoked face would stay in it",
                where=NAME,
                fix="use sqlite, or erase there yourself: protect(DeepFace, mixer, unerasable=True)",
            )
        place = database.name(self._interceptor, given=self._database, settle=True)
        field = (call["img_name"] or None) if call.subject is None else None
        whose = self._interceptor.whose(argument=call.subject, field=field, collection=place, enrol=True)
        name = str(call["img_name"] or whose.subject or "")
        self._interceptor.registry  # noqa: B018 - asked before anything is sent
        pictures, several = batch(call["img"]), True
        if pictures is None:
            pictures, several = [call["img"]], False
        ready = [self._ready(one, lambda: whose, call) for one in pictures]
        inserted, answer = 0, None
        for start in range(0, len(ready), _BATCH):
            part = ready[start : start + _BATCH]
            images = [one.pixels for one in part] if several else part[0].pixels
            answer = self._registered(call, database, place, whose, name, part, images)
            inserted += int(answer.get("inserted", 0))
        return {**(answer or {}), "inserted": inserted}

    def _registered(
        self,
        call: Call,
        database: Database,
        place: str,
        whose: Whose,
        name: str,
        part: Sequence[_Ready],
        images: Any,
    ) -> Mapping[str, Any]:
        origin = _one_origin([one.origin for one in part], whose)
        outdated = self._outdated(place, name, whose, origin)
        if outdated and not database.erasable:
            raise AdapterError("an entry of that name was made with an old key", where=NAME, fix="delete it first")
        last = database.last_row()
        answer: Mapping[str, Any] = self._run(call, img=images, img_name=name)
        if not answer.get("inserted"):
            return answer
        try:
            self._interceptor.record(origin, whose, collection=place, external_id=name)  # type: ignore[arg-type]
        except Exception as error:
            self._interceptor.roll_back(lambda: database.erase(name, after=last), error)
            raise
        if outdated:  # the new record stands for the name, so that nobody would delete the old rows later
            database.erase(name, until=last)
        return answer

    def _outdated(self, place: str, name: str, whose: Whose, origin: Origin) -> bool:
        there = self._interceptor.entry(place, name)
        if there is not None and there.subject != whose.subject:
            raise UsageError("that name is recorded for another subject", where="img_name", fix="use another name")
        made = (origin.key_version, origin.fingerprint)
        return there is not None and (there.version, there.fingerprint) != made

    @Wrapped
    def search(self, call: Call) -> Any:
        """Search a database; as DeepFace's.

        Raises:
            BypassError: It finds an entry that was not enrolled through the mixer.
        """
        place = self._place(call)
        ready = self._all_ready(call["img"], self._later(call, place), call)
        found = self._run(call, img=_pixels(ready))
        names: set[str] = set()
        for rows in found:
            listed = rows if isinstance(rows, list) else rows.to_dict("records")
            names |= {str(row["img_name"]) for row in listed if row.get("img_name") is not None}
        if names:
            self._check_recorded(place, names)
        return found

    @Wrapped
    def identify(self, call: Call) -> Any:
        """Compare with one entry of a database; as DeepFace's.

        The subject is `subject`, or the one that the entry was registered for.

        Raises:
            BypassError: The entry was not enrolled through the mixer.
        """
        place, field = self._place(call), None
        name = self._entry(call)
        if name is not None:
            owner = self._check_recorded(place, {name})
            field = owner if call.subject is None else None
        whose = self._interceptor.whose(argument=call.subject, field=field, collection=place)
        images = batch(call["img"])
        if images is not None and len(images) != 1:
            raise UsageError("one photo a call", where="img", fix="call identify for each photo")
        ready = self._ready(images[0] if images else call["img"], lambda: whose, call)
        return self._run(call, img=ready.pixels)

    @Wrapped
    def build_index(self, call: Call) -> Any:
        """Index what is registered; as DeepFace's."""
        return self._run(call)

    def delete(self, img_name: str, *, database_type: str = "postgres", **kw: Any) -> int:
        """Delete an entry from an SQLite database, which DeepFace has no function for, and its indexes.

        Returns:
            How many rows were deleted.

        Raises:
            AdapterError: The database is another one; delete it there and call `interceptor.forget_entry`.
        """
        return Database.of({"database_type": database_type, **kw}).erase(img_name)

    def _place(self, call: Call) -> str:
        return Database.of(call).name(self._interceptor, given=self._database)

    def _check_recorded(self, place: str, names: set[str]) -> str | None:
        """Refuse entries that have no record; returns whose entry it is, of one."""
        owners = {item.external_id: item.subject for item in self._interceptor.entries(place)}
        foreign = names - owners.keys()
        if foreign:
            raise BypassError(
                f"{len(foreign)} entries of this database were not enrolled through the mixer; they may show "
                "the person",
                where=place,
                fix="delete them from the database and register the people through this client",
            )
        return owners[next(iter(names))]

    def _entry(self, call: Call) -> str | None:
        """The `img_name` of the entry that `identify` asks for; None where there is no such entry."""
        from deepface.modules.database.inventory import database_inventory

        client = database_inventory[call["database_type"]]["client"](
            connection_details=call["connection_details"], connection=call["connection"]
        )
        try:
            row = client.fetch_embedding(
                identity_id=call["identity_id"],
                model_name=call["model_name"],
                detector_backend=call["detector_backend"],
                aligned=call["align"],
                l2_normalized=call["l2_normalize"],
            )
        finally:
            if call["connection"] is None:
                client.close()
        return None if row is None else str(row.get("img_name"))

    # --- the way through the mixer ----------------------------------------------------------------

    def _later(self, call: Call, collection: str = "") -> Callable[[], Whose]:
        """Whose key a call needs, asked when a photo is mixed: crops that come back need none."""
        return lambda: self._interceptor.whose(argument=call.subject, collection=collection)

    def _all_ready(
        self, image: Any, whose: Callable[[], Whose], call: Call, *, whole: bool = False
    ) -> _Ready | list[_Ready]:
        pictures = batch(image)
        if pictures is None:
            return self._ready(image, whose, call, whole=whole)
        return [self._ready(one, whose, call, whole=whole) for one in pictures]

    def _ready(self, image: Any, whose: Callable[[], Whose], call: Call, *, whole: bool = False) -> _Ready:
        """One picture as DeepFace is given it: mixed, or handed back; whole, or the face cut out.

        Args:
            image: The picture.
            whose: Whose it is.
            call: The call, whose detector and model say what is cut.
            whole: Leave the cutting to DeepFace or to a later call.
        """
        skip = call["detector_backend"] == SKIP
        handed = GIVEN.handed(image, self._interceptor)
        if handed is None:
            photo = source(image)
            handed = GIVEN.handed_as_file(photo, self._interceptor)
            if handed is None:
                known = whose()
                face = self._interceptor.protect(photo, known, channel_order=order_of(image))
                if skip and not whole:
                    return _Ready(self._cut(face.pixels, call), Origin.of(face, known))
                return _Ready(bgr(face), Origin.of(face, known))
        self._same_subject(handed.origin, call)
        if not skip:
            return _Ready(_levels(handed.pixels), handed.origin)
        if handed.whole and not whole:
            pixels = np.ascontiguousarray(_levels(handed.pixels)[..., ::-1])
            return _Ready(self._cut(pixels, call), handed.origin)
        return _Ready(_unit(handed.pixels), handed.origin)  # in the form that DeepFace itself would go on with

    def _cut(self, pixels: npt.NDArray[np.uint8], call: Call) -> npt.NDArray[np.uint8]:
        return cut(self._detector, pixels, str(call["model_name"] or ""))

    def _same_subject(self, origin: Origin, call: Call) -> None:
        said = call.subject
        if said is None:
            claim = current_claim()
            said = claim.subject if claim else None
        if said is not None and not origin.whose.gallery and said != origin.whose.subject:
            raise UsageError(
                "this crop was made under another subject's key than the one that is named",
                where=NAME,
                fix="extract it under the subject that it is compared as",
            )

    @contextmanager
    def _alone(self, call: Call) -> Iterator[None]:
        shared = call["detector_backend"] not in {SKIP, None} or call["model_name"] == "Dlib"
        with _DEEPFACE if shared else nullcontext():
            yield

    def _run(self, call: Call, **changed: Any) -> Any:
        with self._alone(call):
            return call.run(**changed)

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return self._target.__version__
        if (
            name.startswith("_")
            or not hasattr(self._target, name)
            or isinstance(type(self).__dict__.get(name), Wrapped)
        ):
            raise AttributeError(name)
        raise BypassError(
            f"DeepFace.{name} is not offered: {_REFUSED.get(name, 'it may pass the mixer by')}",
            where=NAME,
            fix="use verify, represent, find, register, ...",
        )


def protect(
    target: Any,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    database: str = "",
    unerasable: bool = False,
) -> Any:
    """Put the mixer in front of DeepFace.

    Args:
        target: The module `deepface.DeepFace`.
        mixer: Makes the cancelable faces.
        keys: "own" for verify and identify; "gallery" for find and search.
        scope: Scope of the keys.
        database: What databases are called in the records whose place can't be told by their details: an open
            connection, an API key.
        unerasable: Enrol into databases from which the adapter can't delete, all but SQLite: the host does
            that itself, as `interceptor_of(client).due()` says.

    Returns:
        An object with DeepFace's functions, for use in its place.

    Raises:
        SdkMissingError, SdkVersionError: DeepFace, or Werkzeug, is not there, or not as tested.
        DoubleProtectionError: It is protected already, in another way.
    """
    for sdk in SDKS:
        sdk.check()

    def stand(module: Any, interceptor: Interceptor) -> ProtectedDeepFace:
        return ProtectedDeepFace(module, interceptor, database=database, unerasable=unerasable)

    made = stand_in(target, Interceptor(mixer, NAME, keys=keys, scope=scope), stand)
    if made._options != (database, unerasable):
        raise DoubleProtectionError("this is protected already, with other options", fix="unprotect it first")
    return made


unprotect = unwrap


def _pixels(ready: _Ready | list[_Ready]) -> Any:
    return [one.pixels for one in ready] if isinstance(ready, list) else ready.pixels


def _levels(pixels: Prepared) -> npt.NDArray[np.uint8]:
    """Detectors take levels of 0..255."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * 255), np.uint8)


def _unit(pixels: Prepared) -> Prepared:
    """Floats in 0..1, which DeepFace hands from its detector to its models."""
    return pixels / 255 if pixels.dtype == np.uint8 else pixels


def _one_origin(origins: Sequence[Origin], whose: Whose) -> Origin:
    """What all crops of an enrolment were made from.

    Raises:
        EnrolmentError: A key was changed between two of them, or a crop that was handed back is of another.
    """
    first = origins[0]
    same = {(it.key_version, it.fingerprint, it.whose.scope, it.whose.gallery) for it in origins}
    if len(same) != 1 or (first.whose.scope, first.whose.gallery) != (whose.scope, whose.gallery):
        raise EnrolmentError(
            "the pictures were not all made with the key of this database, so that it can't be written down "
            "which key the entry was made with",
            where=NAME,
            fix="give the photos",
        )
    if not whose.gallery and any(it.whose.subject != whose.subject for it in origins):
        raise EnrolmentError("a crop is of another subject", where=NAME, fix="give the photo")
    return first
