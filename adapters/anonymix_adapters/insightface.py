"""InsightFace's `FaceAnalysis`.

    app = protect(FaceAnalysis(name="buffalo_l"), mixer)
    with mixer.subject("alice"):
        face = app.get(photo)[0]

Detection sees the photo; recognition sees the cancelable face alone, found again by the app's own detector.
Other models of the pack (landmarks, age) see the photo and stay on this machine. Where a photo shows several
faces and each subject has a key of their own, only the largest is the claimed subject's: the others come back
without an embedding. Under the gallery key all of them get one.

What comes back is checked: a face that has a vector which the adapter did not make (by a second recognition
model, say) loses it, and BypassError is raised. The recognition model, and its ONNX Runtime session, take
nothing but what comes from the adapter. Copies of the app, the model or the session are protected as well.
"""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
import threading
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymix_adapters._networks import public_methods, shut, swap_session
from anonymix_adapters.errors import AdapterError, BypassError, DoubleProtectionError
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule, Whose
from anonymix_adapters.local import Recorder, VectorRehearsal, bgr, cosine, face_in_box
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.swapping import INSIDE, plainly, swap, swap_back
from anonymix_adapters.wrapping import interceptor_of, need_interceptor, unwrap, wrap_class
from anonymix_plugin.errors import NoFaceError, UsageError
from anonymix_plugin.models import locate
from anonymix_plugin.values import Pixels
from anonymix_plugin.verification import named_threshold

__all__ = ["NAME", "SDKS", "interceptor_of", "protect", "rehearse", "unprotect"]

NAME = "insightface"
SDKS = (Sdk("insightface", ("insightface",), "insightface", ">=2.1,<2.2"),)

_LOOK = (192, 192)  # a cancelable picture is framed alike always, so that a small look finds the face

_DETECTOR = "_anonymix_detector"
_VECTOR = 64  # numbers of which a vector may be an embedding; landmarks have two dimensions, boxes four numbers
_PACKED = 2048  # numbers at most of an embedding that is laid out as a table
_HARMLESS = frozenset({"compute_sim", "prepare"})


class _Waiting(threading.local):
    """The faces that `FaceAnalysis.get`, at work in this very thread, brought to the recognition model."""

    faces: list[Any] | None = None

    @contextmanager
    def collecting(self) -> Iterator[list[Any]]:
        before, self.faces = self.faces, []
        try:
            yield self.faces
        finally:
            self.faces = before


_WAITING = _Waiting()


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
    interceptor = Interceptor(mixer, NAME, keys=keys, scope=scope)
    return wrap_class(target, interceptor, lambda app: _swap_app(app, interceptor))


unprotect = unwrap


def _swap_app(app: Any, interceptor: Interceptor) -> None:
    def get(it: Any, img: Pixels, *args: Any, subject: str | None = None, **kwargs: Any) -> Any:
        whose = interceptor.whose(argument=subject)  # before anything is looked at
        _only_known(it, interceptor)
        with _WAITING.collecting() as waiting:
            found = plainly(it, "get")(img, *args, **kwargs)
        foreign = {name for face in (*found, *waiting) for name in _strip(face)}
        if foreign:
            raise BypassError(
                f"the app made {', '.join(sorted(foreign))} from the photo itself; the faces have lost it",
                where=NAME,
                fix="take the model that makes it out of app.models",
            )
        sized = sorted(waiting, key=_area, reverse=True)
        for number, face in enumerate(sized if whose.gallery else sized[:1]):
            _embed(it.models["recognition"], it.det_model, interceptor, img, face, whose, largest=number == 0)
        return found

    if interceptor_of(app.models["recognition"]) is not None:
        raise DoubleProtectionError(
            "the app's recognition model is protected already", where=NAME, fix="unprotect it first"
        )
    _swap_model(app.models["recognition"], app.det_model, interceptor)
    try:
        swap(
            app,
            interceptor,
            {"get": get},
            again=lambda it: _swap_app(it, interceptor),
            undo=lambda it: _release(it, interceptor),
        )
    except AdapterError:
        swap_back(app.models["recognition"])
        raise


def _release(app: Any, interceptor: Interceptor) -> None:
    for model in app.models.values():
        if interceptor_of(model) is interceptor:
            swap_back(model)


def _only_known(app: Any, interceptor: Interceptor) -> None:
    """Refuse models that make embeddings and were put into the app behind the adapter's back."""
    for name, model in app.models.items():
        embeds = getattr(model, "taskname", name) == "recognition" or hasattr(model, "get_feat")
        if (embeds or name == "recognition") and interceptor_of(model) is not interceptor:
            raise BypassError(
                "a recognition model was put into the app after it was protected; it would embed the photo",
                where=f"app.models[{name!r}]",
                fix="unprotect the app, put the one model that you want at app.models['recognition'], and "
                "protect the app again",
            )


def _swap_model(model: Any, detector: Any, interceptor: Interceptor) -> None:
    def get(it: Any, img: Pixels, face: Any, *, subject: str | None = None) -> Any:
        if _WAITING.faces is not None:
            _WAITING.faces.append(face)
            return None
        return _embed(it, vars(it)[_DETECTOR], interceptor, img, face, interceptor.whose(argument=subject))

    shut_ones = [name for name in public_methods(type(model)) if name not in _HARMLESS]
    hooks = {name: shut(name, interceptor) for name in shut_ones} | {"get": get}
    session = getattr(model, "session", None)
    if hasattr(session, "run"):
        swap_session(session, interceptor, None)
    swap(model, interceptor, hooks, again=lambda it: _swap_model(it, detector, interceptor), undo=_release_model)
    vars(model)[_DETECTOR] = detector


def _release_model(model: Any) -> None:
    vars(model).pop(_DETECTOR, None)
    swap_back(getattr(model, "session", None))


def _embed(
    model: Any,
    detector: Any,
    interceptor: Interceptor,
    picture: Pixels,
    face: Any,
    whose: Whose,
    *,
    largest: bool | None = None,
) -> npt.NDArray[np.float32]:
    """Embed the cancelable face of a face, and put the embedding into it; it has none if that fails."""
    _strip(face)
    x0, y0, x1, y1 = (float(value) for value in face.bbox)
    made = bgr(face_in_box(interceptor, picture, (x0, y0, x1, y1), whose, channel_order="bgr", largest=largest))
    _, points = detector.detect(made, input_size=_LOOK, max_num=1)
    if points is None or not len(points):
        raise NoFaceError("the app's detector finds no cancelable face", where=NAME, fix="use another photo")
    stand_in = type(face)(kps=points[0])
    with INSIDE.of(interceptor):
        embedding: npt.NDArray[np.float32] = plainly(model, "get")(made, stand_in)
    face.embedding = embedding
    return embedding


def _strip(face: Any) -> list[str]:
    """Take everything out of a face that may be an embedding, and return what it was called."""
    values = {**vars(face), **(face if isinstance(face, dict) else {})}
    found = [name for name, value in values.items() if name == "embedding" or _holds_vector(value)]
    found = [name for name in found if values[name] is not None]
    for name in found:
        setattr(face, name, None)
    return found


def _holds_vector(value: Any) -> bool:
    """Whether a value may be an embedding, or hold one, however it is packed."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        return len(value) >= 4 * _VECTOR  # as many numbers, of four bytes each
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.ravel().tolist()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque | array):
        numbers = sum(isinstance(it, int | float | np.number) for it in value)
        return numbers >= _VECTOR or any(map(_holds_vector, value))
    sides = [side for side in getattr(value, "shape", ()) if side > 1]
    # Points have two or three numbers each, pixels up to four, and masks are larger.
    packed = len(sides) == 1 or (len(sides) > 1 and min(sides) > 4 and math.prod(sides) <= _PACKED)
    return packed and math.prod(sides) >= _VECTOR


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
        folder = stack.enter_context(tempfile.TemporaryDirectory())  # models are loaded from it when first used
        for name in ("arcface-mbf", "scrfd-500m"):
            path = locate(name)
            shutil.copyfile(path, Path(folder) / path.name)
        app = FaceAnalysis(name=folder, providers=["CPUExecutionProvider"])
        app.prepare(ctx_id=-1)
        recorder, model = Recorder(), app.models["recognition"]
        original, plain = copy.deepcopy(model), model.get_feat

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

            return np.asarray(original.get_feat(face_align.norm_crop(photo, landmark=points[0])), np.float32).ravel()

        yield VectorRehearsal(
            need_interceptor(app),
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
