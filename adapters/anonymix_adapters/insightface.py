"""InsightFace's `FaceAnalysis`.

    app = protect(FaceAnalysis(name="buffalo_l"), mixer)
    with mixer.subject("alice"):
        face = app.get(photo)[0]

Detection sees the photo; recognition sees the cancelable face alone, found anew by the app's own detector.
Other models of the pack (landmarks, age) see the photo and stay on this machine. Where a photo shows several
faces and each subject has a key of their own, only the largest is the claimed subject's: the others come back
without an embedding. Under the gallery key all of them get one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymix_adapters.errors import AdapterError, BypassError
from anonymix_adapters.gate import FaceMixer, Gate, KeyUse, ScopeRule, Whose
from anonymix_adapters.local import Recorder, VectorRehearsal, bgr, cosine, face_in_box
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import gate_of, need_gate, unwrap, wrap
from anonymix_plugin.errors import NoFaceError, UsageError
from anonymix_plugin.models import locate
from anonymix_plugin.values import Pixels
from anonymix_plugin.verification import named_threshold

__all__ = ["NAME", "SDKS", "gate_of", "protect", "rehearse", "unprotect"]

NAME = "insightface"
SDKS = (Sdk("insightface", ("insightface",), "insightface", ">=2.1,<2.2"),)

_LOOK = (192, 192)  # a cancelable picture is framed alike always, so that a small look finds the face

_WAITING: ContextVar[list[Any] | None] = ContextVar("anonymix_insightface_waiting", default=None)
_INSIDE: ContextVar[bool] = ContextVar("anonymix_insightface_inside", default=False)


def protect(target: Any, mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Any:
    """Put the mixer in front of the recognition model of a `FaceAnalysis`, in place.

    Args:
        target: The app, prepared or not.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery".
        scope: Scope of the keys.

    Returns:
        The app.

    Raises:
        SdkMissingError, SdkVersionError: InsightFace is not there, or not as tested.
        UsageError: The app has no recognition model, or one that is not known.
        DoubleProtectionError: It is protected already, in another way.
    """
    SDKS[0].check()
    models = getattr(target, "models", None)
    if not isinstance(models, dict) or "recognition" not in models:
        raise UsageError("this is no FaceAnalysis with a recognition model", where=NAME)
    missing = [name for name in ("get", "get_feat", "forward") if not hasattr(models["recognition"], name)]
    if missing:
        raise UsageError(f"the recognition model lacks {', '.join(missing)}", where=NAME)
    gate = Gate(mixer, NAME, keys=keys, scope=scope)
    return wrap(target, gate, lambda app: _install(app, gate))


unprotect = unwrap


def _install(app: Any, gate: Gate) -> Callable[[], object]:
    model = app.models["recognition"]
    app_get, get, get_feat, forward = app.get, model.get, model.get_feat, model.forward
    before = [(it, name, vars(it).get(name)) for it, name in _hooked(app, model)]

    def embed(
        picture: Pixels, face: Any, whose: Whose, *, largest: bool | None = None
    ) -> npt.NDArray[np.float32]:
        x0, y0, x1, y1 = (float(value) for value in face.bbox)
        made = bgr(face_in_box(gate, picture, (x0, y0, x1, y1), whose, channel_order="bgr", largest=largest))
        _, points = app.det_model.detect(made, input_size=_LOOK, max_num=1)
        if points is None or not len(points):
            raise NoFaceError(
                "the app's detector finds no cancelable face", where=NAME, fix="use another photo"
            )
        stand_in = type(face)(kps=points[0])
        token = _INSIDE.set(True)
        try:
            face.embedding = get(made, stand_in)
        finally:
            _INSIDE.reset(token)
        embedding: npt.NDArray[np.float32] = face.embedding
        return embedding

    def protected_get(picture: Pixels, face: Any) -> Any:
        waiting = _WAITING.get()
        if waiting is not None:
            waiting.append(face)
            return None
        return embed(picture, face, gate.whose())

    def protected_app_get(img: Pixels, *args: Any, **kwargs: Any) -> Any:
        whose = gate.whose()  # before anything is looked at
        waiting: list[Any] = []
        token = _WAITING.set(waiting)
        try:
            found = app_get(img, *args, **kwargs)
        finally:
            _WAITING.reset(token)
        sized = sorted(waiting, key=_area, reverse=True)
        for number, face in enumerate(sized if whose.gallery else sized[:1]):
            embed(img, face, whose, largest=number == 0)
        return found

    def guarded(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not _INSIDE.get():
                raise BypassError(
                    "crops given straight to the recognition model pass the mixer by",
                    where=NAME,
                    fix="use get()",
                )
            return inner(*args, **kwargs)

        return call

    app.get, model.get = protected_app_get, protected_get
    model.get_feat, model.forward = guarded(get_feat), guarded(forward)

    def undo() -> None:
        for it, name, value in before:
            if value is None:
                delattr(it, name)
            else:
                setattr(it, name, value)

    return undo


def _hooked(app: Any, model: Any) -> list[tuple[Any, str]]:
    return [(app, "get"), (model, "get"), (model, "get_feat"), (model, "forward")]


def _area(face: Any) -> float:
    x0, y0, x1, y1 = (float(value) for value in face.bbox)
    return (x1 - x0) * (y1 - y0)


@contextmanager
def rehearse(mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Iterator[Rehearsal]:
    """`FaceAnalysis` with ArcFace w600k_mbf and SCRFD of the registry as its model pack.

    InsightFace names no threshold for it: it is that of FMR .01 % on Labeled Faces in the Wild. Cancelable
    faces are more alike than people, so that the one of FMR .1 % lets one old entry in seventy match after a
    rotation.
    """
    SDKS[0].load()
    from insightface.app import FaceAnalysis

    threshold = named_threshold("arcface-mbf", "fmr-0.01%").value
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory()
        )  # models are loaded from it when first used
        for name in ("arcface-mbf", "scrfd-500m"):
            path = locate(name)
            shutil.copyfile(path, Path(folder) / path.name)
        app = FaceAnalysis(name=folder, providers=["CPUExecutionProvider"])
        app.prepare(ctx_id=-1)
        recorder, model = Recorder(), app.models["recognition"]
        plain = model.get_feat

        def get_feat(crops: Any) -> Any:
            for crop in crops if isinstance(crops, list) else [crops]:
                recorder.note(crop[..., ::-1])
            return plain(crops)

        model.get_feat = get_feat
        protect(app, mixer, keys=keys, scope=scope)

        def embed(pixels: Pixels) -> npt.NDArray[np.float32]:
            return _largest(app.get(np.ascontiguousarray(pixels[..., ::-1])))

        def embed_original(pixels: Pixels) -> npt.NDArray[np.float32]:
            photo = np.ascontiguousarray(pixels[..., ::-1])
            boxes, points = app.det_model.detect(photo, max_num=1)
            if not len(boxes):
                raise NoFaceError("no face was found", where=NAME, fix="use another photo")
            from insightface.utils import face_align

            return np.asarray(plain(face_align.norm_crop(photo, landmark=points[0])), np.float32).ravel()

        yield VectorRehearsal(
            need_gate(app),
            app,
            embed=embed,
            embed_original=embed_original,
            score=cosine,
            accepts=lambda score: score >= threshold,
            higher_is_closer=True,
            recorder=recorder,
        )


def _largest(faces: list[Any]) -> npt.NDArray[np.float32]:
    embedded = [face for face in faces if face.embedding is not None]
    if not faces:
        raise NoFaceError("no face was found", where=NAME, fix="use another photo")
    if not embedded:
        raise AdapterError("no face was embedded", where=NAME)
    return np.asarray(max(embedded, key=_area).normed_embedding, np.float32)
