"""face_recognition: each encoding that comes out is the adapter's, however the call is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from remembering import RememberingMixer
from test_conformance import loaded

from anonymix_adapters import AdapterError, BypassError, SubjectNeededError
from anonymix_adapters import face_recognition as adapter
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore
from anonymix_plugin import Anonymixer, SeveralFacesError
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import Photo

subject = Anonymixer.subject.__get__(object())


def in_small() -> Any:
    """The package's calls with its parameters, on YuNet and SFace, for where it is not installed."""
    detector, recogniser = YuNet(locate("yunet")), load_recogniser("sface")

    def found(picture: Any) -> Any:
        return detector.detect(Photo(np.ascontiguousarray(picture), "photo"))

    def face_locations(img: Any, number_of_times_to_upsample: int = 1, model: str = "hog") -> Any:
        boxes = [[round(side) for side in face.box] for face in found(img)]
        return [(y0, x1, y1, x0) for x0, y0, x1, y1 in boxes]

    def face_encodings(
        face_image: Any, known_face_locations: Any = None, num_jitters: int = 1, model: str = "small"
    ) -> Any:
        assert num_jitters > 0
        assert model in {"small", "large"}
        places = face_locations(face_image) if known_face_locations is None else known_face_locations
        faces = [
            min(found(face_image), key=lambda face: abs(face.box[0] - left) + abs(face.box[1] - top))
            for top, right, bottom, left in places
        ]
        return [recogniser.embed(recogniser_crop(face)[None])[0].astype(np.float64) for face in faces]

    return SimpleNamespace(
        face_locations=face_locations,
        face_encodings=face_encodings,
        face_distance=lambda face_encodings, face_to_compare: np.linalg.norm(
            np.asarray(face_encodings) - face_to_compare, axis=1
        ),
    )


@pytest.fixture(params=["in small", "the package"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if request.param == "in small":
        monkeypatch.setattr(Sdk, "check", lambda _: "")
        yield in_small()
    else:
        loaded("face_recognition")
        import face_recognition

        yield face_recognition


@pytest.fixture
def photos(londoners: list[Person], adapter_store: Keystore) -> list[np.ndarray]:
    for person in londoners[:2]:
        adapter_store.current_or_issue(person.name)
    return [decode_photo(person.enrolled).pixels for person in londoners[:2]]


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "alone": lambda it, photo, places: it.face_encodings(photo),
    "by name": lambda it, photo, places: it.face_encodings(face_image=photo),
    "places": lambda it, photo, places: it.face_encodings(photo, places),
    "places by name": lambda it, photo, places: it.face_encodings(photo, known_face_locations=places),
    "places, read once": lambda it, photo, places: it.face_encodings(photo, iter(places)),
    "places, an array": lambda it, photo, places: it.face_encodings(photo, np.array(places)),
    "jitters": lambda it, photo, places: it.face_encodings(photo, places, 2),
    "large": lambda it, photo, places: it.face_encodings(photo, num_jitters=1, model="large"),
}


@pytest.mark.parametrize("way", CALLS)
def test_an_encoding_is_that_of_the_cancelable_face(
    way: str,
    package: Any,
    photos: list[np.ndarray],
    adapter_mixer: RememberingMixer,
    londoners: list[Person],
) -> None:
    places, before = package.face_locations(photos[0]), photos[0].copy()
    (plain,) = package.face_encodings(photos[0], places)
    client = adapter.protect(package, adapter_mixer)
    with subject(londoners[0].name):
        (made,) = CALLS[way](client, photos[0], places)
    assert package.face_distance([made], plain)[0] > adapter.TOLERANCE
    with pytest.raises(SubjectNeededError):
        CALLS[way](client, photos[0], places)
    assert np.array_equal(photos[0], before)


def test_two_faces_get_an_encoding_each_under_the_gallery_key_and_none_under_one_persons(
    package: Any, photos: list[np.ndarray], adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    both = np.concatenate(photos, axis=1)
    places = sorted(package.face_locations(both), key=lambda it: it[3])
    plain = package.face_encodings(both, places)
    made = adapter.protect(package, adapter_mixer, keys="gallery").face_encodings(both, places)
    assert len(made) == 2
    # Drawn strangers come as near as 0.55 to a photo now and then; two photos of one person lie at 0.13 to 0.28.
    for one in made:
        assert package.face_distance(plain, one).min() > 0.5
    own = adapter.protect(package, adapter_mixer)
    with pytest.raises(SeveralFacesError):
        own.face_encodings(both, places, subject=londoners[0].name)
    assert own.face_encodings(both, [], subject=londoners[0].name) == []


def test_a_package_that_makes_another_number_of_encodings_gives_none(
    photos: list[np.ndarray],
    adapter_mixer: RememberingMixer,
    londoners: list[Person],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sdk, "check", lambda _: "")
    package = in_small()
    package.face_encodings = lambda *_: [np.zeros(128)] * 2
    with pytest.raises(AdapterError, match="2 encodings"):
        adapter.protect(package, adapter_mixer).face_encodings(photos[0], subject=londoners[0].name)


def test_the_packages_inner_parts_are_refused(package: Any, adapter_mixer: RememberingMixer) -> None:
    client = adapter.protect(package, adapter_mixer)
    for name in ("api", "face_encoder", "pose_predictor_68_point", "_raw_face_landmarks", "dlib"):
        with pytest.raises((BypassError, AttributeError)):
            getattr(client, name)
