"""InsightFace: what comes out of a protected app is what the adapter made, whatever the app is made of."""

from __future__ import annotations

import asyncio
import base64
import copy
import pickle
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import insightface_like
import numpy as np
import pytest
from PIL import Image
from remembering import RememberingMixer
from test_conformance import loaded

from anonymix_adapters import BypassError, CopiedClientError, SubjectNeededError
from anonymix_adapters import insightface as adapter
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore
from anonymix_plugin import Anonymixer
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate

subject = Anonymixer.subject.__get__(object())
Fresh = Callable[[], Any]


@pytest.fixture(params=["in small", "the package"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fresh]:
    """Makes apps: the package's, and in any environment one with the same calls."""
    if request.param == "in small":
        monkeypatch.setattr(Sdk, "check", lambda _: "")
        yield insightface_like.FaceAnalysis
        return
    loaded("insightface")
    from insightface.app import FaceAnalysis

    for name in ("arcface-mbf", "scrfd-500m"):
        shutil.copyfile(locate(name), tmp_path / locate(name).name)

    def make() -> Any:
        app = FaceAnalysis(name=str(tmp_path), providers=["CPUExecutionProvider"])
        app.prepare(ctx_id=-1)
        return app

    yield make


@pytest.fixture
def photo(londoners: list[Person], adapter_store: Keystore) -> np.ndarray:
    adapter_store.current_or_issue(londoners[0].name)
    return np.ascontiguousarray(decode_photo(londoners[0].enrolled).pixels[..., ::-1])


@pytest.fixture
def app(fresh: Fresh, adapter_mixer: RememberingMixer) -> Any:
    return adapter.protect(fresh(), adapter_mixer)


@pytest.fixture
def name(londoners: list[Person]) -> str:
    return londoners[0].name


def similarity(faces: Any, originals: Any) -> float:
    """The greatest cosine of an embedding that came out to one of the photo itself."""
    ours = [face.normed_embedding for face in faces if face.embedding is not None]
    return max((float(a @ b.normed_embedding) for a in ours for b in originals), default=-1.0)


PACKED: dict[str, Callable[[np.ndarray], Any]] = {
    "list": np.ndarray.tolist,
    "nested": lambda it: {"v": it},
    "packed": lambda it: it.tobytes(),
    "text": lambda it: base64.b64encode(it).decode(),
    "table": lambda it: it.reshape(16, -1),
    "objects": lambda it: np.array([it, None], object),
    "numbered": lambda it: {f"number {place}": value for place, value in enumerate(it.tolist())},
    "queue": lambda it: deque(it.tolist()),
}


class Second:
    """A model that embeds under another name, and calls the vector something else."""

    def __init__(self, model: Any, attribute: str) -> None:
        self._model, self._attribute = model, attribute

    def prepare(self, ctx_id: int, **kwargs: Any) -> None:
        pass

    def get(self, img: Any, face: Any) -> None:
        twin = type(face)(bbox=face.bbox, kps=face.kps)
        self._model.get(img, twin)
        vector = twin.embedding
        face[self._attribute] = PACKED.get(self._attribute, lambda it: it)(vector)


def _exchanged(app: Any, other: Any) -> None:
    app.models["recognition"] = other.models["recognition"]


def _replaced_whole(app: Any, other: Any) -> None:
    app.models = other.models


def _beside(app: Any, other: Any) -> None:
    app.models["second"] = other.models["recognition"]


def _before(app: Any, other: Any) -> None:
    app.models = {"first": other.models["recognition"], **app.models}


EXCHANGED: dict[str, Callable[[Any, Any], None]] = {
    "exchanged": _exchanged,
    "all exchanged": _replaced_whole,
    "beside it": _beside,
    "before it": _before,
    **{
        f"another kind, {attribute}": lambda app, other, attribute=attribute: app.models.update(
            other=Second(other.models["recognition"], attribute)
        )
        for attribute in ("embedding", "feature", *PACKED)
    },
}


@pytest.mark.parametrize("way", EXCHANGED)
def test_a_model_that_was_put_in_later_gives_nothing_away(
    way: str, fresh: Fresh, app: Any, photo: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fresh()
    EXCHANGED[way](app, other)
    seen: list[Any] = []
    kind = type(other.get(photo)[0])
    plain = kind.__init__
    monkeypatch.setattr(kind, "__init__", lambda it, *a, **k: (seen.append(it), plain(it, *a, **k))[1])
    with subject(name), pytest.raises(BypassError):
        app.get(photo)
    with pytest.raises(SubjectNeededError):
        app.get(photo)
    made = [face for face in seen if face.det_score is not None]  # the app's own; not those of `Second`
    assert all(face.embedding is None and face.feature is None for face in made)
    assert all(getattr(face, attribute) is None for face in made for attribute in PACKED)


def test_landmarks_masks_and_thumbnails_of_other_models_are_left_in_the_face(
    app: Any, photo: np.ndarray, name: str
) -> None:
    kept = {
        "landmark_2d_106": np.zeros((106, 2), np.float32),
        "landmark_3d_68": np.zeros((68, 3), np.float32),
        "pose": np.zeros(3),
        "mask": np.zeros((112, 112), np.float32),
        "thumbnail": np.zeros((32, 32, 3), np.uint8),
        "label": "a face of middle size",
    }

    class Landmarks:
        def get(self, img: Any, face: Any) -> None:
            for key, value in kept.items():
                face[key] = value

    app.models["landmarks"] = Landmarks()
    (face,) = app.get(photo, subject=name)
    assert face.embedding is not None
    assert all(face[key] is value for key, value in kept.items())


def test_of_two_people_with_own_keys_the_second_has_no_embedding(
    fresh: Fresh, app: Any, photo: np.ndarray, londoners: list[Person]
) -> None:
    both = np.full((640, 1000, 3), 200, np.uint8)
    both[: len(photo), : len(photo)] = photo
    with Image.open(Path(str(londoners[1].enrolled))) as other:
        both[200:560, 640:] = np.asarray(other.convert("RGB").resize((360, 360)))[..., ::-1]
    with subject(londoners[0].name):
        faces = sorted(app.get(both), key=lambda face: face.bbox[0])
    assert [face.embedding is None for face in faces] == [False, True]
    assert faces[1].normed_embedding is None
    assert similarity(faces, fresh().get(both)) < 0.5


def test_the_model_and_its_session_take_nothing_past_the_adapter(
    app: Any, fresh: Fresh, photo: np.ndarray, name: str
) -> None:
    original = fresh().get(photo)
    model, crop = app.models["recognition"], np.zeros((112, 112, 3), np.uint8)
    blob = np.zeros((1, 3, 112, 112), np.float32)
    copies = [
        copy.deepcopy(app).models["recognition"],
        copy.deepcopy(model),
        copy.copy(app).models["recognition"],
    ]
    for it in (model, *copies):
        for call in (
            lambda it=it: it.get_feat(crop),
            lambda it=it: it.get_feat(imgs=[crop]),
            lambda it=it: it.forward(batch_data=blob),
            lambda it=it: it.session.run(None, {it.input_name: blob}),
            lambda it=it: it.session.run(output_names=None, input_feed={it.input_name: blob}),
            lambda it=it: it.session.run_with_iobinding(None),
            lambda it=it: copy.deepcopy(it.session).run(None, {it.input_name: blob}),
            lambda it=it: setattr(it, "get_feat", None),
            lambda it=it: setattr(it.session, "run", None),
        ):
            with subject(name), pytest.raises(BypassError):
                call()
        with pytest.raises(SubjectNeededError):
            it.get(photo, original[0])
        face = type(original[0])(bbox=original[0].bbox, kps=original[0].kps)
        again = it.get(img=photo, face=face, subject=name)
        assert abs(float(again @ original[0].normed_embedding) / np.linalg.norm(again)) < 0.5
    for it in (app, model, model.session):
        with pytest.raises(CopiedClientError):
            pickle.dumps(it)
    assert model.compute_sim(original[0].embedding, original[0].embedding) > 0.99


def test_a_face_handed_back_loses_what_it_had_if_it_can_not_be_protected(
    app: Any, fresh: Fresh, photo: np.ndarray, name: str
) -> None:
    face = fresh().get(photo)[0]
    face.bbox = np.array([0, 0, 20, 20], np.float32)  # nobody is there
    with pytest.raises(Exception, match="face"):
        app.models["recognition"].get(photo, face, subject=name)
    assert face.embedding is None
    assert face.normed_embedding is None


def test_an_app_stays_protected_when_it_is_prepared_again_copied_or_gets_another_detector(
    app: Any, fresh: Fresh, photo: np.ndarray, name: str
) -> None:
    original = fresh().get(photo)
    wanted = app.get(photo, subject=name)[0].normed_embedding
    app.prepare(ctx_id=-1)
    app.det_model = fresh().det_model
    for it in (app, copy.copy(app), copy.deepcopy(app)):
        with pytest.raises(SubjectNeededError):
            it.get(photo)
        with subject(name):
            faces = it.get(img=photo, max_num=1)
        assert similarity(faces, original) < 0.5
        assert float(faces[0].normed_embedding @ wanted) > 0.99
    twin = copy.deepcopy(app)
    adapter.unprotect(twin)
    assert similarity(twin.get(photo), original) > 0.99
    assert similarity(app.get(photo, subject=name), original) < 0.5
    adapter.unprotect(app)
    assert similarity(app.get(photo), original) > 0.99
    app.models["recognition"].get_feat(np.zeros((112, 112, 3), np.uint8))


def test_nothing_that_is_started_inside_inherits_it(app: Any, fresh: Fresh, photo: np.ndarray, name: str) -> None:
    """A model of the app's that starts a thread, a task or a generator: none gets past the adapter."""
    model, crop = app.models["recognition"], np.zeros((112, 112, 3), np.uint8)
    out: list[Any] = []
    later: list[Any] = []

    def call() -> None:
        try:
            out.append(model.get_feat(crop))
        except BypassError as error:
            out.append(error)

    def generator() -> Iterator[None]:
        yield call()

    class Starting:
        def get(self, img: Any, face: Any) -> None:
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
            later.append(generator())

    async def in_a_loop() -> list[Any]:
        async def task() -> None:
            call()

        app.models["starting"] = Starting()
        faces = app.get(photo, subject=name)
        await asyncio.create_task(task())
        return faces

    faces = asyncio.run(in_a_loop())
    for it in later:
        next(it)
    assert len(out) >= 3
    assert all(isinstance(it, BypassError) for it in out)
    assert similarity(faces, fresh().get(photo)) < 0.5
