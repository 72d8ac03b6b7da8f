"""Photos of several people, and video: each face under its own subject's key, the rest as a policy says.

    scene = protect_scene(interceptor, photo, whose=lambda face: names.get(place(face)), rest="blur")
    for frame in protect_frames(interceptor, frames, whose=..., rest="blur"): ...

A face that nobody is named for is covered, never kept. What no detector finds as a face is part of the rest:
with rest="keep" it stays as it is, so keep is for scenes whose background is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

import cv2
import numpy as np
import numpy.typing as npt

from anonymix_adapters.interceptor import Interceptor
from anonymix_adapters.local import Box, face_in_box
from anonymix_plugin.errors import PhotoError, UsageError
from anonymix_plugin.faces import Detector, YuNet, ffhq_matrix
from anonymix_plugin.images import ChannelOrder, PhotoSource, decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.values import CancelableFace, Face, Photo, Pixels

Rest: TypeAlias = Literal["blur", "keep", "drop"]
"""What becomes of the picture around faces: blurred, kept, or grey."""

NameOf: TypeAlias = Callable[[Face], str | None]
"""Whose face this is; None for nobody, whose face is covered."""

_GREY: Final = 128
_FEATHER = 0.04  # of the side of the pasted square, at its rim
_LEAST_OVERLAP = 0.3
_BORDER = 0.35  # of the sides of a face's box: enough to be found again, too little for a neighbour


@dataclass(frozen=True, eq=False)
class SceneFace:
    """One face of a scene.

    Attributes:
        box: Where it was, (x0, y0, x1, y1) in pixels.
        subject: Whose it is; None for nobody.
        cancelable: The face that stands there now; None where it was covered.
        track: Number of the track that it belongs to in a video; 0 in a photo.
        why: Why it was covered, where it was: "nobody", or what was wrong with it.
    """

    box: Box
    subject: str | None
    cancelable: CancelableFace | None
    track: int = 0
    why: str = ""


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture without anybody's own face.

    Attributes:
        pixels: (height, width, 3) uint8 RGB, of the size of the photo.
        faces: Its faces, the largest first.
        number: Number of the frame in a video, 0, 1, ...
    """

    pixels: Pixels = field(repr=False)
    faces: tuple[SceneFace, ...]
    number: int = 0


def protect_scene(
    interceptor: Interceptor,
    photo: PhotoSource,
    *,
    whose: NameOf,
    rest: Rest = "blur",
    channel_order: ChannelOrder = "rgb",
    detector: Detector | None = None,
) -> Scene:
    """Put cancelable faces in place of all faces of a photo.

    Args:
        interceptor: Knows the keys: with keys="own" each named subject's own, with "gallery" one for all.
        photo: The photo.
        whose: Names the subject of a face. Under the gallery key any name will do.
        rest: What becomes of the rest.
        channel_order: Order of the channels of an array.
        detector: Finds the faces; YuNet, thoroughly, by default.

    Raises:
        PhotoError: The photo can't be used. One without any face is no error.
        KeystoreError: A named subject has no usable key.
        UsageError: There is no such policy; or a block around the call names somebody else than `whose`.
    """
    return _Painter(interceptor, whose, rest, detector).scene(decode_photo(photo, channel_order=channel_order))


def protect_frames(
    interceptor: Interceptor,
    frames: Iterable[npt.NDArray[Any]],
    *,
    whose: NameOf,
    rest: Rest = "blur",
    channel_order: ChannelOrder = "rgb",
    detector: Detector | None = None,
    forget_after: int = 15,
) -> Iterator[Scene]:
    """Put cancelable faces in place of the faces of a video, frame by frame.

    Faces are followed from frame to frame by their overlap. Whose face it is, is asked once, when it appears,
    and stays so for as long as it is followed: a name does not jump between people because one frame was
    unclear.

    Args:
        interceptor: As for `protect_scene`.
        frames: (height, width, 3) uint8, in order.
        whose: Names the subject of a face that appears.
        rest: As for `protect_scene`.
        channel_order: Order of the channels.
        detector: As for `protect_scene`.
        forget_after: A face that was not seen for as many frames is a new one when it comes back.

    Yields:
        A scene for each frame.

    Raises:
        PhotoError, KeystoreError, UsageError: As for `protect_scene`; the video ends there.
    """
    painter, tracks = _Painter(interceptor, whose, rest, detector), _Tracks(forget_after)
    for number, frame in enumerate(frames):
        photo = decode_photo(frame, channel_order=channel_order)
        yield painter.scene(photo, number, tracks)


def cut_faces(
    photos: Iterable[PhotoSource],
    *,
    subject: str,
    whose: NameOf,
    channel_order: ChannelOrder = "rgb",
    detector: Detector | None = None,
) -> list[Pixels]:
    """Cut one person's faces out of photos of several people, for an enrolment from several photos.

        frames = cut_faces(frames, subject="alice", whose=name_of)
        with interceptor.together("alice", frames):
            client.index_faces(CollectionId="staff", Image={"Bytes": portrait}, ExternalImageId="alice")

    Args:
        photos: Photos, or frames of a video.
        subject: Whose faces are wanted.
        whose: Names the subject of a face.
        channel_order: Order of the channels of arrays.
        detector: Finds the faces; YuNet, thoroughly, by default.

    Returns:
        (height, width, 3) uint8 RGB each, with a border around the face; these are the person's own faces.
        Photos that do not show the person give none.

    Raises:
        PhotoError: A photo can't be used.
    """
    finder = detector or YuNet(locate("yunet"), thorough=True)
    found: list[Pixels] = []
    for source in photos:
        photo = decode_photo(source, channel_order=channel_order)
        mine = [face for face in finder.detect(photo) if whose(face) == subject]
        found += [_cut(photo.pixels, face.box) for face in mine[:1]]
    return found


def _cut(pixels: Pixels, box: Box) -> Pixels:
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box
    dx, dy = (x1 - x0) * _BORDER, (y1 - y0) * _BORDER
    rows = slice(max(int(y0 - dy), 0), min(int(y1 + dy) + 1, height))
    columns = slice(max(int(x0 - dx), 0), min(int(x1 + dx) + 1, width))
    return np.ascontiguousarray(pixels[rows, columns])


@dataclass
class _Track:
    number: int
    box: Box
    subject: str | None
    last: int


class _Tracks:
    """Follows faces by overlap, the largest overlap first."""

    def __init__(self, forget_after: int) -> None:
        self._forget, self._next = forget_after, 1
        self._tracks: list[_Track] = []

    def follow(self, faces: list[Face], frame: int, whose: NameOf) -> list[_Track]:
        """A track for each face, known or new."""
        self._tracks = [track for track in self._tracks if frame - track.last <= self._forget]
        pairs = [
            (_overlap(face.box, track.box), number, track)
            for number, face in enumerate(faces)
            for track in self._tracks
        ]
        found: dict[int, _Track] = {}
        taken: set[int] = set()
        for overlap, number, track in sorted(pairs, key=lambda pair: pair[0], reverse=True):
            if overlap >= _LEAST_OVERLAP and number not in found and track.number not in taken:
                found[number] = track
                taken.add(track.number)
        for number, face in enumerate(faces):
            if number not in found:
                found[number] = _Track(self._next, face.box, whose(face), frame)
                self._tracks.append(found[number])
                self._next += 1
            found[number].box, found[number].last = face.box, frame
        return [found[number] for number in range(len(faces))]


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(a) + _area(b) - shared)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


class _Painter:
    def __init__(self, interceptor: Interceptor, whose: NameOf, rest: Rest, detector: Detector | None) -> None:
        if rest not in get_args(Rest):
            raise UsageError(f"there is no policy {rest!r}", where="rest", fix="use 'blur', 'keep' or 'drop'")
        self._interceptor, self._whose, self._rest = interceptor, whose, rest
        self._detector = detector or YuNet(locate("yunet"), thorough=True)

    def scene(self, photo: Photo, number: int = 0, tracks: _Tracks | None = None) -> Scene:
        faces = sorted(self._detector.detect(photo), key=lambda face: _area(face.box), reverse=True)
        if tracks is None:
            named = [(0, self._whose(face)) for face in faces]
        else:
            named = [(it.number, it.subject) for it in tracks.follow(faces, number, self._whose)]
        made = [
            self._face(photo, face, subject, track, largest=face is faces[0])
            for face, (track, subject) in zip(faces, named, strict=True)
        ]
        canvas = self._background(photo.pixels)
        for face in faces:  # all are covered before any is drawn: squares of neighbours overlap
            _cover(canvas, face)
        for face, drawn in reversed(list(zip(faces, made, strict=True))):
            if drawn.cancelable is not None:
                _paste(canvas, face, drawn.cancelable.pixels)
        return Scene(canvas, tuple(made), number)

    def _face(self, photo: Photo, face: Face, subject: str | None, track: int, *, largest: bool) -> SceneFace:
        if subject is None:
            return SceneFace(face.box, None, None, track, "nobody")
        whose = self._interceptor.whose(argument=subject)
        try:
            cancelable = face_in_box(
                self._interceptor, photo.pixels, face.box, whose, channel_order="rgb", largest=largest
            )
        except PhotoError as error:  # too small, turned away: it is covered; a missing key is not passed over
            return SceneFace(face.box, subject, None, track, error.what)
        return SceneFace(face.box, subject, cancelable, track)

    def _background(self, pixels: Pixels) -> Pixels:
        if self._rest == "keep":
            return pixels.copy()
        if self._rest == "drop":
            return np.full_like(pixels, _GREY)
        # Down to a few dozen pixels and back: nothing finer than a shape is left, at any size of photo.
        height, width = pixels.shape[:2]
        small = cv2.resize(
            pixels,
            (max(1, min(width, round(24 * width / max(height, width)))), max(1, min(height, 24))),
            interpolation=cv2.INTER_AREA,
        )
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _square(face: Face, size: int) -> npt.NDArray[np.float64]:
    """The corners of the square around a face that a cancelable face is framed in, in the photo's pixels."""
    inverse = cv2.invertAffineTransform(ffhq_matrix(face, size))
    corners = np.array([[0, 0, 1], [size, 0, 1], [size, size, 1], [0, size, 1]], np.float64)
    return np.asarray(corners @ inverse.T, np.float64)


def _cover(canvas: Pixels, face: Face) -> None:
    """Fill the face's box, and the inner square of its head, with grey."""
    x0, y0, x1, y1 = (round(value) for value in face.box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), (_GREY, _GREY, _GREY), thickness=-1)
    corners = _square(face, 512)
    centre = corners.mean(axis=0)
    inner = centre + (corners - centre) * (1 - 2 * _FEATHER)
    cv2.fillConvexPoly(canvas, np.rint(inner).astype(np.int32), (_GREY, _GREY, _GREY))


def _paste(canvas: Pixels, face: Face, picture: Pixels) -> None:
    """Draw a cancelable face where the face was; its square ends softly."""
    size = picture.shape[0]
    height, width = canvas.shape[:2]
    inverse = cv2.invertAffineTransform(ffhq_matrix(face, size))
    # Shrinking without averaging would make noise out of hair and skin.
    scale = float(np.sqrt(abs(np.linalg.det(inverse[:, :2]))))
    if scale < 1:
        small = max(8, round(size * scale))
        picture = np.asarray(cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA), np.uint8)
        inverse = inverse @ np.diag([size / small, size / small, 1.0])
        size = small
    rim = max(1, round(size * _FEATHER))
    weight = np.zeros((size, size), np.float32)
    weight[rim:-rim, rim:-rim] = 1
    weight = np.asarray(cv2.blur(weight, (rim, rim)), np.float32)
    drawn = cv2.warpAffine(picture, inverse, (width, height), flags=cv2.INTER_LINEAR)
    mask = cv2.warpAffine(weight, inverse, (width, height), flags=cv2.INTER_LINEAR)[..., None]
    canvas[:] = np.rint(canvas * (1 - mask) + drawn * mask).astype(np.uint8)
