"""Every way past the mixer that a recogniser on this machine has is closed; nothing of the photo gets out."""

from __future__ import annotations

import asyncio
import base64
import io
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from remembering import RememberingMixer
from test_conformance import loaded

from anonymix_adapters import BackEndError, BypassError, DoubleProtectionError, SubjectNeededError
from anonymix_adapters import crops as crops_adapter
from anonymix_adapters import opencv as opencv_adapter
from anonymix_adapters.crops import CropLayout
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.testing.conformance import Person, assert_nothing_original
from anonymix_keystore import Keystore, KeystoreError
from anonymix_plugin import Anonymixer, BadArrayError, NoFaceError, PhotoError, SeveralFacesError, UsageError
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.faces import YuNet, recogniser_crops
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import torch_recogniser
from anonymix_plugin.values import Pixels

subject = Anonymixer.subject.__get__(object())


class Stage:
    """A rehearsal of an adapter with one person enrolled, opened when it is asked for."""

    def __init__(self, mixer: RememberingMixer, people: list[Person], stack: ExitStack) -> None:
        self._mixer, self._stack, self.person, self.other = mixer, stack, people[0], people[1]

    def open(self, name: str, **options: Any) -> Rehearsal:
        stage = self._stack.enter_context(loaded(name).rehearse(self._mixer, **options))
        stage.enrol(self.person.name, self.person.enrolled)
        return stage

    @property
    def photo(self) -> Pixels:
        return decode_photo(self.person.enrolled).pixels


@pytest.fixture
def stage(adapter_mixer: RememberingMixer, londoners: list[Person]) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(adapter_mixer, londoners, stack)


def bgr(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[..., ::-1])


# --- OpenCV -----------------------------------------------------------------------------------------


def _row(pixels: Pixels) -> np.ndarray:
    """A photo's first face, as `FaceDetectorYN.detect` has it."""
    detector = cv2.FaceDetectorYN.create(str(locate("yunet")), "", (pixels.shape[1], pixels.shape[0]))
    return np.asarray(detector.detect(bgr(pixels))[1][0])


def test_opencv_embeds_nothing_but_its_own_crops(stage: Stage) -> None:
    rehearsal = stage.open("opencv")
    recogniser = rehearsal.client
    crop = bgr(recogniser_crops([YuNet(locate("yunet")).detect(decode_photo(stage.photo))[0]])[0])
    with subject(stage.person.name):
        made = recogniser.alignCrop(bgr(stage.photo), _row(stage.photo))
    before = len(rehearsal.seen())
    with pytest.raises(ValueError, match="read-only"):
        made[:] = crop
    for foreign in (crop, crop.view(opencv_adapter.ProtectedCrop), stage.photo, made * 0 + crop):
        with pytest.raises(BypassError):
            recogniser.feature(foreign)
    assert recogniser.feature(made[:, ::-1]).shape == (1, 128)  # a mirrored crop is still a protected one
    before += 1
    with pytest.raises(SubjectNeededError):
        recogniser.alignCrop(bgr(stage.photo), np.array([[100, 100, 200, 200, *[0] * 11]], np.float32))
    with subject(stage.person.name):
        for row in ([[np.nan] * 15], [[0, 0, 40, 40, *[0] * 11]], [[-900, -900, 5, 5, *[0] * 11]], [[1]]):
            with pytest.raises(PhotoError):
                recogniser.alignCrop(bgr(stage.photo), np.array(row, np.float32))
    assert len(rehearsal.seen()) == before


def test_opencv_embeds_no_crop_that_was_changed_since_it_was_made(stage: Stage) -> None:
    """However somebody writes the photo into it: no way out keeps the seal."""
    rehearsal = stage.open("opencv")
    recogniser = rehearsal.client
    other = opencv_adapter.protect(recogniser._target, stage._mixer)  # has made no such crop itself
    crop = bgr(recogniser_crops([YuNet(locate("yunet")).detect(decode_photo(stage.photo))[0]])[0])
    with subject(stage.person.name):
        made = recogniser.alignCrop(bgr(stage.photo), _row(stage.photo))
    wanted = recogniser.feature(made).copy()

    def copied() -> Any:
        return made.copy()

    def into_dst() -> Any:
        there = made.copy()
        cv2.copyTo(crop, None, dst=there)
        return there

    def unlocked() -> Any:
        there = made.copy()[:]
        there.setflags(write=True)
        return there

    before = len(rehearsal.seen())
    for make in (copied, unlocked, into_dst, lambda: np.empty_like(made), lambda: np.zeros_like(made)):
        changed = make()
        changed[:] = crop
        with pytest.raises(BypassError):
            recogniser.feature(changed)
    one_pixel = made.copy()
    one_pixel[0, 0, 0] ^= 1
    for changed in (one_pixel, made[:100, :100], made.astype(np.float32), made.ravel(), [made, made], None):
        with pytest.raises(BypassError):
            recogniser.feature(changed)
    with pytest.raises(BypassError):
        other.feature(made)  # another recogniser's
    assert len(rehearsal.seen()) == before
    file = io.BytesIO()
    np.save(file, made)
    file.seek(0)
    stored = cv2.imdecode(cv2.imencode(".png", made)[1], cv2.IMREAD_COLOR)
    plainly = (np.array(made), np.stack([made, made])[1], np.load(file), stored)
    for same in (made, made.copy(), made[:], *plainly):
        assert np.array_equal(recogniser.feature(aligned_img=same), wanted)
    assert np.array_equal(recogniser.feature(cv2.flip(made, 1)), recogniser.feature(made[:, ::-1]))
    assert recogniser.match(wanted[0].tolist(), wanted[0]) == pytest.approx(1)
    plain = rehearsal.client._target.feature(crop)
    assert recogniser.match(wanted, plain) < 0.363


def test_opencv_leaves_the_hosts_arrays_as_they_are(stage: Stage) -> None:
    rehearsal = stage.open("opencv")
    photo, row = bgr(stage.photo), _row(stage.photo)
    before = photo.copy(), row.copy()
    crop = np.zeros((112, 112, 3), np.uint8)
    made = rehearsal.client.alignCrop(src_img=photo, face_box=row, aligned_img=crop, subject=stage.person.name)
    assert np.array_equal(crop, made)
    stored = [3 * rehearsal.client.feature(made) for _ in range(2)]
    kept = [it.copy() for it in stored]
    assert rehearsal.client.match(*stored, dis_type=cv2.FaceRecognizerSF_FR_COSINE) > 0.99
    assert rehearsal.client.match(*stored, cv2.FaceRecognizerSF_FR_NORM_L2) < 0.01
    for now, then in zip((photo, row, *stored), (*before, *kept), strict=True):
        assert np.array_equal(now, then)


def test_opencv_asks_for_one_face(stage: Stage) -> None:
    client, photo = stage.open("opencv").client, bgr(stage.photo)
    with subject(stage.person.name):
        with pytest.raises(NoFaceError):
            client.alignCrop(photo, None)  # what detect() gives where nobody is
        with pytest.raises(BadArrayError, match="one row"):
            client.alignCrop(photo, np.stack([_row(stage.photo)] * 2))


def test_opencv_takes_the_face_that_the_box_says(
    stage: Stage, londoners: list[Person], adapter_store: Keystore
) -> None:
    """Of two people the one whose box is given is protected, though the other is larger."""
    adapter_store.current_or_issue(stage.other.name)
    rehearsal = stage.open("opencv")
    rehearsal.enrol(stage.other.name, stage.other.enrolled)
    both = np.full((640, 1000, 3), 200, np.uint8)
    both[: len(stage.photo), : len(stage.photo)] = stage.photo
    with Image.open(Path(str(stage.other.enrolled))) as other:
        both[200:560, 640:] = other.convert("RGB").resize((360, 360))
    detector = cv2.FaceDetectorYN.create(str(locate("yunet")), "", (1000, 640))
    _, rows = detector.detect(bgr(both))
    right = max(rows, key=lambda row: row[0])
    with subject(stage.other.name):
        feature = rehearsal.client.feature(rehearsal.client.alignCrop(bgr(both), right))
    with subject(stage.other.name):
        alone_photo = decode_photo(stage.other.enrolled).pixels
        detector.setInputSize((alone_photo.shape[1], alone_photo.shape[0]))
        _, rows = detector.detect(bgr(alone_photo))
        alone = rehearsal.client.feature(rehearsal.client.alignCrop(bgr(alone_photo), rows[0]))
    assert rehearsal.client.match(feature, alone) > opencv_adapter.COSINE_THRESHOLD


# --- any network ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crop(londoners: list[Person]) -> np.ndarray:
    photo = decode_photo(londoners[0].enrolled)
    return CropLayout().from_pixels(recogniser_crops([YuNet(locate("yunet")).detect(photo)[0]]))


def test_a_torch_module_sees_cancelable_faces_alone(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person], crop: np.ndarray
) -> None:
    adapter_store.current_or_issue(londoners[0].name)
    seen: list[np.ndarray] = []

    class Behind(torch.nn.Module):
        def forward(self, crops: torch.Tensor) -> torch.Tensor:
            seen.extend(CropLayout().to_pixels(crops.numpy()))
            return crops.mean(dim=(1, 2, 3))

    net = crops_adapter.protect(Behind(), adapter_mixer)
    given = torch.from_numpy(crop)
    for call in (net, net.forward):  # hooks alone would let the second one by
        with subject(londoners[0].name):
            assert call(given).shape == (1,)
        with pytest.raises(SubjectNeededError):
            call(given)
    assert len(seen) == 2
    assert_nothing_original(seen, [londoners[0].enrolled])
    with subject(londoners[0].name):
        for bad in (given[0], given * 100, given * float("nan"), torch.zeros(1, 3, 96, 96)):
            with pytest.raises(BadArrayError):
                net(bad)
        for bypass in ((given, given), ("path",), ()):
            with pytest.raises(BypassError):
                net(*bypass)
        with pytest.raises(NoFaceError):
            net(torch.zeros_like(given))
    assert len(seen) == 2
    crops_adapter.unprotect(net)
    net(given)
    assert np.abs(seen[2].astype(int) - CropLayout().to_pixels(crop)[0]).max() <= 1


def test_a_real_torch_recogniser_works_behind_the_mixer(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person]
) -> None:
    adapter_store.current_or_issue(londoners[0].name)
    layout = CropLayout()
    plain_net, net = torch_recogniser("sface"), torch_recogniser("sface")
    crops_adapter.protect(net, adapter_mixer, layout=layout)
    detector = YuNet(locate("yunet"))
    faces = [detector.detect(decode_photo(photo))[0] for photo in (londoners[0].enrolled, londoners[0].probe)]
    with subject(londoners[0].name), torch.inference_mode():
        a, b = net(torch.from_numpy(layout.from_pixels(recogniser_crops(faces))))
        plain = plain_net(torch.from_numpy(layout.from_pixels(recogniser_crops(faces[:1]))))[0]
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(a, b, dim=0) > 0.363
    assert cosine(a, plain, dim=0) < 0.363


@pytest.mark.parametrize(
    "layout",
    [
        CropLayout(),
        CropLayout(order="bgr", mean=0, scale=1, channels_last=True),
        CropLayout(mean=0, scale=255),
        CropLayout(size=160, alignment="box", standardised=True),
    ],
)
def test_layouts_turn_pictures_into_input_and_back(layout: CropLayout) -> None:
    pictures = np.random.default_rng(3).integers(0, 256, (2, layout.size, layout.size, 3)).astype(np.uint8)
    pictures[:, 0, 0], pictures[:, 0, 1] = 0, 255
    assert np.abs(layout.to_pixels(layout.from_pixels(pictures)).astype(int) - pictures).max() <= 1


def test_a_session_has_no_second_way_in(stage: Stage, crop: np.ndarray) -> None:
    rehearsal = stage.open("crops")
    session, before = rehearsal.client, len(rehearsal.seen())
    name = session.get_inputs()[0].name
    for method in ("run_with_iobinding", "run_with_ort_values", "run_async"):
        with pytest.raises(BypassError):
            getattr(session, method)(None, {name: crop})
    with subject(stage.person.name):
        for feed in ({name: [[1.0]]}, {name: crop, "more": crop}, {}):
            with pytest.raises(BypassError):
                session.run(None, feed)
    assert len(rehearsal.seen()) == before
    with pytest.raises(UsageError):
        crops_adapter.protect("no network", rehearsal.interceptor.mixer)


def test_async_callers_keep_their_subjects(
    stage: Stage, crop: np.ndarray, adapter_store: Keystore, londoners: list[Person]
) -> None:
    rehearsal = stage.open("crops")
    session = rehearsal.client
    name = session.get_inputs()[0].name
    people = londoners[:2]
    for person in people:
        adapter_store.current_or_issue(person.name)

    async def embed(person: Person) -> np.ndarray:
        with claimed(Claim(person.name)):
            return np.asarray(await asyncio.to_thread(session.run, None, {name: crop}))

    async def together() -> list[np.ndarray]:
        return await asyncio.gather(*(embed(person) for person in people))

    first, second = asyncio.run(together())
    with claimed(Claim(people[0].name)):
        alone = session.run(None, {name: crop})[0]
    assert np.allclose(first.ravel(), alone.ravel(), atol=1e-4)
    assert not np.allclose(first.ravel(), second.ravel(), atol=1e-2)


# --- InsightFace ------------------------------------------------------------------------------------


def test_insightface_has_no_second_way_in(stage: Stage) -> None:
    rehearsal = stage.open("insightface")
    app, before = rehearsal.client, len(rehearsal.seen())
    model, photo = app.models["recognition"], bgr(stage.photo)
    crop = bgr(recogniser_crops([YuNet(locate("yunet")).detect(decode_photo(stage.photo))[0]])[0])
    for call in (lambda: model.get_feat(crop), lambda: model.forward(crop[None].astype(np.float32))):
        with pytest.raises(BypassError):
            call()
    with pytest.raises(SubjectNeededError):
        app.get(photo)
    with subject("nobody who is known"), pytest.raises(KeystoreError):
        app.get(photo)
    assert len(rehearsal.seen()) == before
    with subject(stage.person.name):
        assert app.get(np.full((300, 300, 3), 99, np.uint8)) == []
        face = app.get(photo)[0]
        assert abs(np.linalg.norm(face.normed_embedding) - 1) < 1e-5
        again = model.get(photo, face)  # the model's own get is protected, too
    assert np.allclose(again, face.embedding, atol=1e-4)
    assert_nothing_original(rehearsal.seen(), [stage.person.enrolled])
    with pytest.raises(UsageError):
        loaded("insightface").protect(object(), rehearsal.interceptor.mixer)


def test_insightface_embeds_the_claimed_face_of_several_or_all_under_the_gallery_key(stage: Stage) -> None:
    both = np.full((640, 1000, 3), 200, np.uint8)
    both[: len(stage.photo), : len(stage.photo)] = stage.photo
    with Image.open(Path(str(stage.other.enrolled))) as other:
        both[200:560, 640:] = other.convert("RGB").resize((360, 360))
    own = stage.open("insightface").client
    with subject(stage.person.name):
        faces = sorted(own.get(bgr(both)), key=lambda face: face.bbox[0])
    assert [face.embedding is None for face in faces] == [False, True]
    gallery = stage.open("insightface", keys="gallery").client
    faces = gallery.get(bgr(both))
    assert len(faces) == 2
    assert all(face.embedding is not None for face in faces)


# --- facenet-pytorch --------------------------------------------------------------------------------


def test_facenet_works_with_its_own_mtcnn(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person]
) -> None:
    adapter = loaded("facenet")
    from facenet_pytorch import MTCNN

    from anonymix_adapters.facenet import network

    adapter_store.current_or_issue(londoners[0].name)
    mtcnn, net = MTCNN(), network()

    def crop(photo: Any) -> Any:
        with Image.open(Path(str(photo))) as picture:
            return mtcnn(picture.convert("RGB"))[None]

    plain = net(crop(londoners[0].enrolled))[0]
    protected = adapter.protect(net, adapter_mixer, mtcnn=mtcnn)
    with subject(londoners[0].name):
        enrolled, probe = (protected(crop(photo))[0] for photo in (londoners[0].enrolled, londoners[0].probe))
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(enrolled, probe, dim=0) > 0.5
    assert cosine(enrolled, plain, dim=0) < 0.5
    with pytest.raises(DoubleProtectionError):
        crops_adapter.protect(net, adapter_mixer)
    with pytest.raises(UsageError):
        adapter.protect(torch.nn.Identity(), adapter_mixer)


# --- face_recognition -------------------------------------------------------------------------------


def test_face_recognition_turns_photos_upright_and_asks_for_one_face(stage: Stage, tmp_path: Path) -> None:
    rehearsal = stage.open("face_recognition")
    package, before = rehearsal.client, len(rehearsal.seen())
    sideways, exif = Image.fromarray(np.rot90(stage.photo).copy()), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    sideways.save(tmp_path / "sideways.jpg", exif=exif, quality=95)
    upright = package.load_image_file(tmp_path / "sideways.jpg")
    assert np.abs(upright.astype(int) - stage.photo).mean() < 4
    assert package.load_image_file(tmp_path / "sideways.jpg", mode="L").ndim == 2
    with pytest.raises(UsageError):
        package.load_image_file(tmp_path / "sideways.jpg", mode="CMYK")
    both = np.concatenate([stage.photo, decode_photo(stage.other.enrolled).pixels], axis=1)
    with subject(stage.person.name), pytest.raises(SeveralFacesError, match="known_face_locations"):
        package.face_encodings(both)
    with pytest.raises(SubjectNeededError):
        package.face_encodings(stage.photo)
    with pytest.raises(BypassError):
        _ = package.face_encoder
    assert len(rehearsal.seen()) == before
    with subject(stage.person.name):
        encodings = package.face_encodings(both, [package.face_locations(both)[0]])
        assert len(encodings) == 1
        assert package.face_encodings(np.full((200, 200, 3), 90, np.uint8)) == []
    assert package.face_distance([encodings[0]], encodings[0])[0] == 0


# --- DeepFace ---------------------------------------------------------------------------------------

SFACE = {"model_name": "SFace", "detector_backend": "skip"}


def test_deepface_takes_each_kind_of_image_once_and_refuses_what_passes_the_mixer_by(
    stage: Stage, adapter_mixer: RememberingMixer
) -> None:
    rehearsal = stage.open("deepface")
    client, path = rehearsal.client, str(stage.person.enrolled)
    content = Path(path).read_bytes()
    with subject(stage.person.name):
        wanted = client.represent(path, **SFACE)[0]["embedding"]
        with Path(path).open("rb") as stream:
            for image in (
                Path(path),
                bgr(stage.photo),
                stream,
                f"data:image/jpeg;base64,{base64.b64encode(content).decode()}",
            ):
                assert np.allclose(client.represent(image, **SFACE)[0]["embedding"], wanted, atol=1e-3)
        calls = len(rehearsal.seen())
        assert client.verify(path, str(stage.person.probe), silent=True, **SFACE)["verified"]
        assert len(rehearsal.seen()) == calls + 2  # two pictures, each once
        for bypass in ("http://127.0.0.1/a.jpg", "https://x/y.jpg", [0.1] * 128, np.zeros(128), "s3://b/k"):
            with pytest.raises(BypassError):
                client.represent(bypass, **SFACE)
            with pytest.raises(BypassError):
                client.verify(path, bypass, **SFACE)
        with pytest.raises(PhotoError):
            client.represent("no/such/file.jpg", **SFACE)
        with pytest.raises(UsageError):
            client.represent("data:image/png;base64,@@", **SFACE)
    for name in ("stream", "analyze", "build_model", "detectFace"):
        with pytest.raises(BypassError):
            getattr(client, name)
    with pytest.raises(AttributeError):
        _ = client.no_such_function
    with pytest.raises(SubjectNeededError):
        client.represent(path, **SFACE)
    assert_nothing_original(rehearsal.seen(), [stage.person.enrolled, stage.person.probe])


def test_deepface_finds_in_folders_that_the_mixer_made_and_in_no_other(
    stage: Stage, adapter_store: Keystore, tmp_path: Path
) -> None:
    rehearsal = stage.open("deepface", keys="gallery", scope="folder gallery")
    client, folder = rehearsal.client, tmp_path / "faces"
    files = [client.enrol_file(it.enrolled, folder, it.name) for it in (stage.person, stage.other)]

    def find(photo: Any) -> list[str]:
        found = client.find(photo, folder, silent=True, return_type="dict", **SFACE)[0]
        return [Path(row["identity"]).parent.name for row in found]

    assert find(stage.other.probe) == [files[1].parent.name]
    assert list(folder.glob("ds_model_*"))
    assert_nothing_original([decode_photo(it, allow_protected=True).pixels for it in files], [stage.person.enrolled])
    (folder / "mallory.jpg").write_bytes(Path(str(stage.person.enrolled)).read_bytes())
    with pytest.raises(BypassError, match="mallory"):
        find(stage.other.probe)
    (folder / "mallory.jpg").unlink()
    for wrong in ("s3://bucket/faces", "ftp://host/faces"):
        with pytest.raises(BypassError):
            client.find(stage.other.probe, wrong, **SFACE)
    with pytest.raises(BypassError):
        client.find(stage.other.probe, folder, refresh_database=False, **SFACE)
    adapter_store.rotate_gallery("folder gallery", reason="breach")
    with pytest.raises(BackEndError, match="old keys"):
        find(stage.other.probe)
    assert not list(folder.glob("ds_model_*"))  # what was computed from the old faces is gone
    for item in rehearsal.interceptor.due(str(folder)):
        client.delete_file(folder, item.external_id)
        rehearsal.interceptor.removed(item)
    assert not any(path.exists() for path in files)
    client.enrol_file(stage.other.enrolled, folder, stage.other.name)
    assert find(stage.other.probe) == [files[1].parent.name]


def test_deepface_keeps_no_crop_of_the_photo_in_its_database(stage: Stage, tmp_path: Path) -> None:
    client = stage.open("deepface").client
    store = {"database_type": "sqlite", "connection_details": str(tmp_path / "faces.db")}
    client.register(str(stage.person.enrolled), "one.jpg", subject=stage.person.name, **SFACE, **store)
    with sqlite3.connect(tmp_path / "faces.db") as connection:
        ((number, blob),) = connection.execute("SELECT id, face FROM embeddings").fetchall()
    face = np.frombuffer(blob, np.float32).reshape(112, 112, 3)
    kept = np.clip(face * 255, 0, 255).astype(np.uint8)
    assert_nothing_original([kept, np.ascontiguousarray(kept[..., ::-1])], [stage.person.enrolled])
    answer = client.identify(str(stage.person.probe), number, **SFACE, **store)  # the entry names the subject
    assert answer["verified"]
    with pytest.raises(SubjectNeededError):
        client.identify(str(stage.person.probe), number + 1, **SFACE, **store)
    assert client.delete("one.jpg", **store) == 1
    several = [str(stage.person.enrolled), str(stage.person.probe)]
    assert client.register(several, "many", subject=stage.person.name, **SFACE, **store) == {"inserted": 2}
    assert client.delete("many", **store) == 2
