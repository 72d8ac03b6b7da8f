"""DeepFace.

    deepface = protect(DeepFace, mixer)
    with mixer.subject("alice"):
        deepface.verify("alice.jpg", "at-the-door.jpg", model_name="SFace", detector_backend="skip")

What `protect` returns has DeepFace's functions and is used in its place. Each picture is mixed once, before
DeepFace sees it, so that no function loads, caches or stores the photo: the crop that `register` keeps is one
of the cancelable face. Addresses, embeddings and functions that would pass the mixer by are refused.

`find` reads a folder of pictures. Only files that `enrol_file` wrote there are let through, told by their
SHA-256 in the keystore's records; after a rotation they are refused until they are renewed, and DeepFace's
cached embeddings of them (`ds_model_*`) are deleted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from anonymix_adapters.errors import AdapterError, BackEndError, BypassError
from anonymix_adapters.gate import FaceMixer, Gate, KeyUse, ScopeRule, Whose
from anonymix_adapters.local import Recorder, bgr, finder
from anonymix_adapters.protocol import Answer, Leaked, Rehearsal
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import StandIn, gate_of, stand_in, unwrap
from anonymix_plugin.claims import Claim, claimed, current_claim
from anonymix_plugin.errors import NoFaceError, UsageError
from anonymix_plugin.faces import Detector, YuNet, box_crop, recogniser_crop
from anonymix_plugin.images import PhotoSource, decode_photo, save_cancelable
from anonymix_plugin.models import locate
from anonymix_plugin.values import CancelableFace, Face, Photo, Pixels

__all__ = ["NAME", "SDKS", "ProtectedDeepFace", "gate_of", "protect", "rehearse", "unprotect"]

NAME = "deepface"
SDKS = (
    Sdk("deepface", ("deepface",), "deepface", ">=0.0.93,<0.0.104"),
    Sdk("werkzeug", ("Werkzeug",), "deepface", ">=3,<4"),  # DeepFace imports it and does not ask for it
)

_ALIGNED: Final = frozenset({"SFace", "ArcFace", "Buffalo_L", "GhostFaceNet"})
_CROP = 224
_MARGIN = 0.1
_CACHES = "ds_model_*"
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_DATA = re.compile(r"\Adata:image/[\w.+-]+;base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"\A\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DEFAULT_MODEL = "VGG-Face"
_DEFAULT_DETECTOR = "opencv"


class ProtectedDeepFace(StandIn):
    """Stands in for the module `DeepFace`, with its functions.

    All of them take `subject`, too: whose face it is, where no `with mixer.subject(...)` says so.
    """

    def __init__(self, target: Any, gate: Gate) -> None:
        super().__init__(target, gate)
        self._detector = finder()

    # --- pictures ---------------------------------------------------------------------------------

    def verify(
        self, img1_path: Any, img2_path: Any, *args: Any, subject: str | None = None, **kw: Any
    ) -> Any:
        """Compare two photos of the subject; as DeepFace's."""
        whose = self._gate.whose(argument=subject)
        options = _named(args, kw, ("model_name", "detector_backend"))
        first, second = (self._mixed(image, whose, options) for image in (img1_path, img2_path))
        return self._target.verify(first, second, *args, **kw)

    def represent(self, img_path: Any, *args: Any, subject: str | None = None, **kw: Any) -> Any:
        """Embed a photo, or several of the subject; as DeepFace's."""
        whose = self._gate.whose(argument=subject)
        options = _named(args, kw, ("model_name", "enforce_detection", "detector_backend"))
        return self._target.represent(self._all_mixed(img_path, whose, options), *args, **kw)

    def extract_faces(self, img_path: Any, *args: Any, subject: str | None = None, **kw: Any) -> Any:
        """Find and cut out the cancelable face; as DeepFace's."""
        whose = self._gate.whose(argument=subject)
        options = {"model_name": "", **_named(args, kw, ("detector_backend",))}
        return self._target.extract_faces(self._mixed(img_path, whose, options), *args, **kw)

    # --- folders ----------------------------------------------------------------------------------

    def enrol_file(self, photo: PhotoSource, db_path: str | os.PathLike[str], subject: str) -> Path:
        """Write a cancelable face into a folder for `find`, and write that down.

        Args:
            photo: The photo.
            db_path: The folder; each subject gets one of its own in it.
            subject: Whose face it is.

        Returns:
            The file.
        """
        folder = Path(db_path).resolve()
        whose = self._gate.whose(argument=subject, collection=str(folder), enrol=True)
        name = hashlib.sha256(subject.encode()).hexdigest()[:16]
        path = folder / name / f"{secrets.token_hex(8)}.png"

        def send(face: CancelableFace) -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            cut = self._cut(face, {"detector_backend": "skip"})
            save_cancelable(_with_pixels(face, np.ascontiguousarray(cut[..., ::-1])), path)
            return _digest(path)

        self._gate.enrol(
            photo,
            whose,
            collection=str(folder),
            send=send,
            external_id=lambda digest: digest,
            undo=lambda _: path.unlink(missing_ok=True),
        )
        return path

    def delete_file(self, db_path: str | os.PathLike[str], digest: str) -> None:
        """Delete an enrolled file, named by its SHA-256, and DeepFace's caches of the folder."""
        folder = Path(db_path).resolve()
        for path in _pictures(folder):
            if _digest(path) == digest:
                path.unlink(missing_ok=True)
        self.invalidate(folder)

    @staticmethod
    def invalidate(db_path: str | os.PathLike[str]) -> int:
        """Delete DeepFace's cached embeddings of a folder; returns how many files there were."""
        caches = [path for path in Path(db_path).glob(_CACHES) if path.is_file()]
        for path in caches:
            path.unlink(missing_ok=True)
        return len(caches)

    def find(self, img_path: Any, db_path: Any, *args: Any, subject: str | None = None, **kw: Any) -> Any:
        """Search a folder of enrolled cancelable faces; as DeepFace's.

        Raises:
            BypassError: The folder holds a picture that `enrol_file` did not write, or is no local folder.
            BackEndError: It holds pictures of old keys.
        """
        if _ADDRESS.match(os.fspath(db_path)):
            raise BypassError("a store that is not on this machine can't be checked", where="db_path")
        folder = Path(db_path).resolve()
        whose = self._gate.whose(argument=subject, collection=str(folder))
        if kw.get("refresh_database", True) is not True:
            raise BypassError("a cache that is not refreshed may hold old keys", where="refresh_database")
        self._check_folder(folder)
        options = _named(args, kw, ("model_name", "distance_metric", "enforce_detection", "detector_backend"))
        return self._target.find(self._mixed(img_path, whose, options), str(folder), *args, **kw)

    def _check_folder(self, folder: Path) -> None:
        records = {item.external_id: item for item in self._gate.entries(str(folder))}
        stale = {item.external_id for item in self._gate.due(str(folder)) if item.delete}
        there = {_digest(path): path for path in _pictures(folder)}
        foreign = [path for digest, path in there.items() if digest not in records]
        if foreign:
            raise BypassError(
                f"{len(foreign)} pictures were not enrolled through the mixer, {foreign[0].name} first",
                where=str(folder),
                fix="enrol them with enrol_file(), or take them away",
            )
        if stale & there.keys():
            self.invalidate(folder)
            raise BackEndError(
                f"{len(stale & there.keys())} pictures were made with old keys",
                where=str(folder),
                fix="renew them: anonymix_adapters.renew with delete_file and enrol_file",
            )
        digest = hashlib.sha256("".join(sorted(there)).encode()).hexdigest()
        note = folder / ".anonymix"  # what the caches were made from
        if not note.is_file() or note.read_text() != digest:
            self.invalidate(folder)
            note.write_text(digest)

    # --- databases --------------------------------------------------------------------------------

    def register(
        self, img: Any, img_name: str | None = None, *args: Any, subject: str | None = None, **kw: Any
    ) -> Any:
        """Enrol a photo in a database; as DeepFace's.

        The subject is `subject`, the one of `with mixer.subject(...)`, or `img_name`. A copy of the crop that
        DeepFace keeps shows the cancelable face.
        """
        claim = current_claim()
        owner = subject or (claim.subject if claim else None) or img_name
        place = _place(kw)
        whose = self._gate.whose(argument=owner, collection=place, enrol=True)
        name = img_name or whose.subject or ""
        options = _named(args, kw, ("model_name", "detector_backend"))
        if isinstance(img, list | tuple) or getattr(img, "ndim", 3) == 4:
            raise UsageError("one photo a call", where="img", fix="call register for each photo")

        def send(face: CancelableFace) -> Any:
            return self._target.register(self._cut(face, options), name, *args, **kw)

        return self._gate.enrol(
            _source(img),
            whose,
            collection=place,
            send=send,
            external_id=lambda _: name,
            undo=lambda _: self.delete(name, **kw),
            channel_order="bgr" if isinstance(img, np.ndarray) else "rgb",
        )

    def search(self, img: Any, *args: Any, subject: str | None = None, **kw: Any) -> Any:
        """Search a database; as DeepFace's."""
        whose = self._gate.whose(argument=subject, collection=_place(kw))
        options = _named(args, kw, ("model_name", "detector_backend"))
        return self._target.search(self._all_mixed(img, whose, options), *args, **kw)

    def identify(
        self, img: Any, identity_id: str | int, *args: Any, subject: str | None = None, **kw: Any
    ) -> Any:
        """Compare with one entry of a database; as DeepFace's.

        The subject is `subject`, or the one that the entry was registered for.
        """
        place = _place(kw)
        field = None if subject else self._owner(identity_id, place, args, kw)
        whose = self._gate.whose(argument=subject, field=field, collection=place)
        options = _named(args, kw, ("model_name", "detector_backend"))
        return self._target.identify(self._mixed(img, whose, options), identity_id, *args, **kw)

    def build_index(self, *args: Any, **kw: Any) -> Any:
        """Index what is registered; as DeepFace's."""
        return self._target.build_index(*args, **kw)

    def delete(self, img_name: str, *, database_type: str = "postgres", **kw: Any) -> int:
        """Delete an entry from an SQLite database, which DeepFace has no function for, and its indexes.

        Returns:
            How many rows were deleted.

        Raises:
            AdapterError: The database is another one; delete it there and call `gate.forget_entry`.
        """
        if database_type != "sqlite":
            raise AdapterError(
                f"entries of {database_type} are deleted in the database itself", where=NAME, fix="use SQL"
            )
        with _sqlite(kw) as connection, connection:
            gone = connection.execute("DELETE FROM embeddings WHERE img_name = ?", (img_name,)).rowcount
            connection.execute("DELETE FROM embeddings_index")
        return int(gone)

    def _owner(
        self, identity_id: str | int, place: str, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> str | None:
        from deepface.modules.database.inventory import database_inventory

        kind = kw.get("database_type", "postgres")
        connection = kw.get("connection")
        client = database_inventory[kind]["client"](
            connection_details=kw.get("connection_details"), connection=connection
        )
        try:
            names = ("model_name", "detector_backend")
            options = _named(args, kw, names)
            row = client.fetch_embedding(
                identity_id=identity_id,
                aligned=kw.get("align", True),
                l2_normalized=kw.get("l2_normalize", False),
                **options,
            )
        finally:
            if connection is None:
                client.close()
        name = None if row is None else row.get("img_name")
        return next((it.subject for it in self._gate.entries(place) if it.external_id == name), None)

    # --- the way through the mixer ----------------------------------------------------------------

    def _all_mixed(self, image: Any, whose: Whose, options: Mapping[str, Any]) -> Any:
        if isinstance(image, list | tuple) and image and not isinstance(image[0], int | float):
            return [self._mixed(one, whose, options) for one in image]
        if isinstance(image, np.ndarray) and image.ndim == 4:
            return [self._mixed(one, whose, options) for one in image]
        return self._mixed(image, whose, options)

    def _mixed(self, image: Any, whose: Whose, options: Mapping[str, Any]) -> Pixels:
        order = "bgr" if isinstance(image, np.ndarray) else "rgb"
        return self._cut(self._gate.protect(_source(image), whose, channel_order=order), options)  # type: ignore[arg-type]

    def _cut(self, face: CancelableFace, options: Mapping[str, Any]) -> Pixels:
        """What DeepFace is given: the whole picture, or the face cut out where it does not look for one."""
        if options.get("detector_backend") != "skip":
            return bgr(face)
        return _crop(self._detector, face.pixels, str(options.get("model_name", "")))

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return self._target.__version__
        if name.startswith("_") or not hasattr(self._target, name):
            raise AttributeError(name)
        raise BypassError(
            f"DeepFace.{name} may pass the mixer by",
            where=NAME,
            fix="use verify, represent, find, register, ...",
        )


def protect(target: Any, mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Any:
    """Put the mixer in front of DeepFace.

    Args:
        target: The module `deepface.DeepFace`.
        mixer: Makes the cancelable faces.
        keys: "own" for verify and identify; "gallery" for find and search.
        scope: Scope of the keys.

    Returns:
        An object with DeepFace's functions, for use in its place.

    Raises:
        SdkMissingError, SdkVersionError: DeepFace, or Werkzeug, is not there, or not as tested.
        DoubleProtectionError: It is protected already, in another way.
    """
    for sdk in SDKS:
        sdk.check()
    return stand_in(target, Gate(mixer, NAME, keys=keys, scope=scope), ProtectedDeepFace)


unprotect = unwrap


def _source(image: Any) -> PhotoSource:
    """DeepFace's kinds of images as ours; what would pass the mixer by is refused."""
    if isinstance(image, np.ndarray) and image.ndim < 2:
        raise BypassError("this is an embedding, not a picture", where=NAME, fix="give the photo")
    if isinstance(image, list | tuple):
        raise BypassError(
            "a list of numbers is an embedding, not a picture", where=NAME, fix="give the photo"
        )
    if isinstance(image, str):
        found = _DATA.match(image)
        if found:
            try:
                return base64.b64decode(image[found.end() :], validate=True)
            except binascii.Error:
                raise UsageError("the base64 of the picture is damaged", where="data:image/...") from None
        if _ADDRESS.match(image):
            raise BypassError(
                "addresses are not fetched", where=image.split(":", 1)[0] + ":...", fix="give the bytes"
            )
    source: PhotoSource = image
    return source


def _named(args: tuple[Any, ...], kw: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Options by name, wherever they stand in a call; `names` are those that come after the pictures."""
    found = dict(zip(names, args, strict=False)) | {name: kw[name] for name in names if name in kw}
    return {
        "model_name": found.get("model_name", _DEFAULT_MODEL),
        "detector_backend": found.get("detector_backend", _DEFAULT_DETECTOR),
    }


def _place(kw: Mapping[str, Any]) -> str:
    """The name of the database for records: its kind, and its file where it is one. No secret is in it."""
    kind = str(kw.get("database_type", "postgres"))
    details = kw.get("connection_details")
    if kind == "sqlite":
        path = details if isinstance(details, str) else os.environ.get("DEEPFACE_SQLITE_PATH", "")
        return f"sqlite:{Path(path).resolve()}" if path else "sqlite"
    return kind


@contextmanager
def _sqlite(kw: Mapping[str, Any]) -> Iterator[sqlite3.Connection]:
    connection = kw.get("connection")
    if connection is not None:
        yield connection
        return
    details = kw.get("connection_details") or os.environ.get("DEEPFACE_SQLITE_PATH", "")
    opened = sqlite3.connect(**details) if isinstance(details, dict) else sqlite3.connect(details)
    with closing(opened):
        yield opened


def _pictures(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _crop(detector: Detector, pixels: Pixels, model: str) -> Pixels:
    """The face as models want it where nothing looks for it, (224, 224, 3) uint8 BGR."""
    found = detector.detect(Photo(pixels, "picture"))
    if not found:
        raise NoFaceError("the picture has no face", where=NAME, fix="use another photo")
    face: Face = found[0]
    cut = recogniser_crop(face, _CROP) if model in _ALIGNED or not model else box_crop(face, _CROP, _MARGIN)
    return np.ascontiguousarray(cut[..., ::-1])


def _with_pixels(face: CancelableFace, pixels: Pixels) -> CancelableFace:
    from dataclasses import replace

    return replace(face, pixels=pixels)


# --- rehearsal ----------------------------------------------------------------------------------------

_MODEL = {"model_name": "SFace", "detector_backend": "skip"}


class _DeepFaceRehearsal:
    """DeepFace with an SQLite database: register, identify, search."""

    def __init__(self, client: ProtectedDeepFace, path: Path, recorder: Recorder) -> None:
        self.client, self.gate = client, client._gate
        self._raw, self._recorder, self._detector = client._target, recorder, YuNet(locate("yunet"))
        self._store = {"database_type": "sqlite", "connection_details": str(path)}
        self.collection = _place(self._store)
        self._path, self._made = path, 0
        self._rows()  # makes the tables

    @property
    def searches(self) -> bool:
        return self.gate.keys == "gallery"

    def enrol(self, subject: str, photo: PhotoSource) -> str:
        self._made += 1
        name = f"{subject}-{self._made}"
        self.client.register(photo, name, subject=subject, **_MODEL, **self._store)
        return name

    def verify(self, subject: str, photo: PhotoSource) -> Answer:
        with claimed(Claim(subject)):
            rows = [number for number, name, _ in self._rows() if self._subject(name) == subject]
            if not rows:
                self.client.represent(photo, **_MODEL)  # an unknown subject must be told, entry or not
            answers = [
                self.client.identify(photo, number, subject=subject, **_MODEL, **self._store)
                for number in rows
            ]
        return _best(answers)

    def search(self, photo: PhotoSource) -> Answer:
        found = self.client.search(photo, return_type="dict", **_MODEL, **self._store)[0]
        if not found:
            return Answer(False, float("inf"))
        best = min(found, key=lambda row: row["distance"])
        return Answer(True, float(best["distance"]), self._subject(best["img_name"]))

    def verify_original(self, subject: str, photo: PhotoSource) -> Answer:
        self._recorder.paused = True
        try:
            crop = _crop(self._detector, decode_photo(photo).pixels, "SFace")
            rows = [number for number, name, _ in self._rows() if self._subject(name) == subject]
            return _best([self._raw.identify(crop, number, **_MODEL, **self._store) for number in rows])
        finally:
            self._recorder.paused = False

    def delete(self, external_id: str) -> None:
        self.client.delete(external_id, **self._store)

    def entries(self) -> Mapping[str, str]:
        return {name: self._subject(name) for _, name, _ in self._rows()}

    def seen(self) -> Sequence[Any]:
        """What the model was given, and the crops that the database keeps."""
        kept = []
        with _sqlite(self._store) as connection:
            for blob, shape in connection.execute("SELECT face, face_shape FROM embeddings"):
                sides = [int(side) for side in re.findall(r"\d+", shape)]
                face = np.frombuffer(blob, np.float32).reshape(sides)
                kept.append(np.clip(face * (255 if face.max() <= 1 else 1), 0, 255).astype(np.uint8))
        return [*self._recorder.pictures, *kept, *(np.ascontiguousarray(it[..., ::-1]) for it in kept)]

    def leak(self) -> Sequence[Leaked]:
        return [Leaked(self._subject(name), name, vector) for _, name, vector in self._rows()]

    def match(self, leaked: Leaked, subject: str) -> Answer:
        return _best(
            [
                self._raw.verify(leaked.template, vector, model_name="SFace", silent=True)
                for _, name, vector in self._rows()
                if self._subject(name) == subject
            ]
        )

    @staticmethod
    def _subject(name: str) -> str:
        return name.rsplit("-", 1)[0]

    def _rows(self) -> list[tuple[int, str, list[float]]]:
        from deepface.modules.database.sqlite import SqliteClient

        client = SqliteClient(connection_details=str(self._path))
        try:
            rows = client.conn.execute("SELECT id, img_name, embedding FROM embeddings").fetchall()
        finally:
            client.close()
        return [(number, name, np.frombuffer(vector, "<f8").tolist()) for number, name, vector in rows]


def _best(answers: Sequence[Mapping[str, Any]]) -> Answer:
    if not answers:
        return Answer(False, float("inf"))
    best = min(answers, key=lambda answer: float(answer["distance"]))
    return Answer(bool(best["verified"]), float(best["distance"]))


@contextmanager
def rehearse(mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Iterator[Rehearsal]:
    """DeepFace offline: SFace's ONNX weights of the registry, no detector, an SQLite database."""
    for sdk in SDKS:
        sdk.check()
    before = os.environ.get("DEEPFACE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / ".deepface" / "weights"
        weights.mkdir(parents=True)
        shutil.copyfile(locate("sface"), weights / "face_recognition_sface_2021dec.onnx")
        os.environ["DEEPFACE_HOME"] = folder
        try:
            SDKS[0].load()
            from deepface import DeepFace

            client = protect(DeepFace, mixer, keys=keys, scope=scope)
            model = DeepFace.build_model("SFace")
            # DeepFace keeps one model for all: a rehearsal inside another records on top of it.
            recorder, plain, before_it = Recorder(), model.predict, vars(model).get("predict")

            def predict(crops: Any) -> Any:
                for crop in crops if crops.ndim == 4 else crops[None]:
                    recorder.note((crop * 255).astype(np.uint8)[..., ::-1])
                return plain(crops)

            model.predict = predict
            try:
                yield _DeepFaceRehearsal(client, Path(folder) / "faces.db", recorder)
            finally:
                if before_it is None:
                    del model.predict
                else:
                    model.predict = before_it
        finally:
            os.environ.pop("DEEPFACE_HOME")
            if before is not None:
                os.environ["DEEPFACE_HOME"] = before
