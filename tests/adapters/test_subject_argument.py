"""Every call that a protected recogniser takes a photo in takes `subject=`, beside `with mixer.subject(...)`.

Services have `conformance.takes_the_subject_as_an_argument`; here are the recognisers on this machine.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from remembering import RememberingMixer
from test_conformance import LOCAL, loaded

from anonymix_adapters import StandIn, SubjectNeededError
from anonymix_adapters.crops import CropLayout
from anonymix_adapters.facenet import STANDARDISED
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.swapping import swapped
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import KeystoreError
from anonymix_plugin import UsageError
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.values import Pixels

Calls = Mapping[str, Callable[..., Any]]


def _opencv(stage: Rehearsal, photo: Pixels, _: Path) -> Calls:
    detector = cv2.FaceDetectorYN.create(str(locate("yunet")), "", (photo.shape[1], photo.shape[0]))
    row = detector.detect(photo)[1][0]
    return {"alignCrop": lambda **who: stage.client.alignCrop(photo, row, **who)}


def _crop(photo: Pixels, size: int) -> Pixels:
    found = YuNet(locate("yunet")).detect(decode_photo(photo, channel_order="bgr"))[0]
    return recogniser_crop(found, size)[None]


def _crops(stage: Rehearsal, photo: Pixels, _: Path) -> Calls:
    feed = {stage.client.get_inputs()[0].name: CropLayout().from_pixels(_crop(photo, 112))}
    return {"run": lambda **who: stage.client.run(None, feed, **who)}


def _facenet(stage: Rehearsal, photo: Pixels, _: Path) -> Calls:
    import torch

    crops = torch.from_numpy(STANDARDISED.from_pixels(_crop(photo, 160)))
    return {
        "forward": lambda **who: stage.client.forward(crops, **who),
        "__call__": lambda **who: stage.client(crops, **who),
    }


def _insightface(stage: Rehearsal, photo: Pixels, _: Path) -> Calls:
    from insightface.app.common import Face

    app, model = stage.client, stage.client.models["recognition"]
    box = YuNet(locate("yunet")).detect(decode_photo(photo, channel_order="bgr"))[0].box
    face = Face(bbox=np.array(box, np.float32))
    return {
        "get": lambda **who: app.get(photo, **who),
        "recognition.get": lambda **who: model.get(photo, face, **who),
    }


def _deepface(stage: Rehearsal, photo: Pixels, folder: Path) -> Calls:
    client, model = stage.client, {"model_name": "SFace", "detector_backend": "skip"}
    store = {"database_type": "sqlite", "connection_details": str(folder / "faces.db")}
    return {
        "verify": lambda **who: client.verify(photo, photo, **model, **who),
        "represent": lambda **who: client.represent(photo, **model, **who),
        "extract_faces": lambda **who: client.extract_faces(photo, detector_backend="skip", **who),
        "find": lambda **who: client.find(photo, str(folder), **model, **who),
        "search": lambda **who: client.search(photo, **model, **store, **who),
    }


def _face_recognition(stage: Rehearsal, photo: Pixels, _: Path) -> Calls:
    return {"face_encodings": lambda **who: stage.client.face_encodings(photo[..., ::-1], **who)}


CALLS = {
    "opencv": _opencv,
    "crops": _crops,
    "facenet": _facenet,
    "insightface": _insightface,
    "deepface": _deepface,
    "face_recognition": _face_recognition,
}


WITHOUT_A_PHOTO = {
    "opencv": {"feature", "match"},  # crops and features that were somebody's when they were made
    "deepface": {"build_index", "collection_of", "delete", "delete_file", "invalidate"},
    "face_recognition": {"load_image_file"},
}
REFUSED = {
    "crops": {
        "io_binding",
        "run_async",
        "run_with_iobinding",
        "run_with_ort_values",
        "run_with_ortvaluevector",
    },
    "insightface": {"recognition.forward", "recognition.get_feat"},
}
NAMED_OTHERWISE = {"deepface": {"enrol_file", "identify", "register"}}  # subject= is needed, or an entry's own
"""Public calls that `CALLS` has not: what each is, is said here."""


def _listed(stage: Rehearsal) -> dict[str, Any]:
    """The public calls of a protected client, from the code."""
    client = stage.client
    if isinstance(client, StandIn):
        kinds = [kind for kind in type(client).__mro__ if issubclass(kind, StandIn)]
        names = {"": {name for kind in kinds for name in vars(kind)}}
        objects = {"": client}
    else:
        objects = {"": client}
        if "recognition" in getattr(client, "models", {}):
            objects["recognition."] = client.models["recognition"]
        names = {where: set(swapped(it).names) for where, it in objects.items()}  # type: ignore[union-attr]
    return {
        f"{where}{name}": getattr(it, name)
        for where, it in objects.items()
        for name in names[where]
        if not name.startswith("_") and callable(getattr(it, name))
    }


@pytest.fixture(params=LOCAL)
def stage(
    request: pytest.FixtureRequest, adapter_mixer: RememberingMixer, londoners: list[Person]
) -> Iterator[Rehearsal]:
    with loaded(request.param).rehearse(adapter_mixer) as stage:
        yield stage


def test_every_call_that_takes_a_photo_takes_subject(stage: Rehearsal, londoners: list[Person], tmp_path: Path) -> None:
    name = stage.interceptor.adapter
    photo = np.ascontiguousarray(decode_photo(londoners[0].enrolled).pixels[..., ::-1])
    calls, listed = CALLS[name](stage, photo, tmp_path), _listed(stage)
    others = [kinds.get(name, set()) for kinds in (WITHOUT_A_PHOTO, REFUSED, NAMED_OTHERWISE)]
    assert listed.keys() | {"__call__"} == calls.keys() | {"__call__"} | set.union(*others)
    without = {call for call, function in listed.items() if "subject" not in inspect.signature(function).parameters}
    assert without <= others[0]
    unknown, before = f"nobody who is known {secrets.token_hex(4)}", len(stage.seen())
    for said, call in calls.items():
        with pytest.raises(SubjectNeededError):
            call()
        with pytest.raises(KeystoreError):
            call(subject=unknown)
        with claimed(Claim(unknown)), pytest.raises(KeystoreError):
            call(subject=unknown)
        with claimed(Claim("somebody else")), pytest.raises(UsageError, match="two different people"):
            call(subject=unknown)
        assert len(stage.seen()) == before, said


def test_every_adapter_on_this_machine_is_listed() -> None:
    assert CALLS.keys() == set(LOCAL)
