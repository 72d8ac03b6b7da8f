"""DeepFace offline, for the conformance suite and the drill: SFace, no detector, an SQLite database."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from anonymix_adapters.deepface._adapter import SDKS, ProtectedDeepFace, protect
from anonymix_adapters.deepface._cuts import cut
from anonymix_adapters.deepface._databases import Database
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule
from anonymix_adapters.local import Recorder
from anonymix_adapters.protocol import Answer, Leaked, Rehearsal
from anonymix_plugin.claims import claim_within, claimed
from anonymix_plugin.faces import YuNet
from anonymix_plugin.images import PhotoSource, decode_photo
from anonymix_plugin.models import locate

_MODEL = {"model_name": "SFace", "detector_backend": "skip"}


class _DeepFaceRehearsal:
    """DeepFace with an SQLite database: register, identify, search."""

    def __init__(self, client: ProtectedDeepFace, path: Path, recorder: Recorder) -> None:
        self.client, self.interceptor = client, client._interceptor
        self._raw, self._recorder, self._detector = client._target, recorder, YuNet(locate("yunet"))
        self._store = {"database_type": "sqlite", "connection_details": str(path)}
        self._path, self._made = path, 0
        self._rows()  # makes the tables
        self.collection = Database.of(self._store).name(self.interceptor, settle=True)

    @property
    def searches(self) -> bool:
        return self.interceptor.keys == "gallery"

    def enrol(self, subject: str, photo: PhotoSource) -> str:
        self._made += 1
        name = f"{subject}-{self._made}"
        self.client.register(photo, name, subject=subject, **_MODEL, **self._store)
        return name

    def verify(self, subject: str, photo: PhotoSource) -> Answer:
        with claimed(claim_within(subject)):
            rows = [number for number, name, _ in self._rows() if self._subject(name) == subject]
            if not rows:
                self.client.represent(photo, **_MODEL)  # an unknown subject must be told, entry or not
            answers = [self.client.identify(photo, number, subject=subject, **_MODEL, **self._store) for number in rows]
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
            crop = cut(self._detector, decode_photo(photo).pixels, "SFace")
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
        with Database.of(self._store).sqlite() as connection:
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
