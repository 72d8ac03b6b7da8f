"""From photo to aligned face, person's code and kept attributes: everything that needs no key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2
import numpy as np

from anonymix_plugin.errors import NoFaceError
from anonymix_plugin.faces import Detector, FacePolicy, ffhq_crop, meant_face, recogniser_crop, select_faces
from anonymix_plugin.images import ChannelOrder, ImageLimits, PhotoSource, decode_photo, default_limits
from anonymix_plugin.mixer.policy import AttributePolicy
from anonymix_plugin.mixer.subspace import IdentitySubspace, joint_embedding
from anonymix_plugin.quality import LEAST_QUALITY, LYING, TURNS, measure_quality, require_quality
from anonymix_plugin.recognisers import MeasuringRecogniser
from anonymix_plugin.values import Floats, Photo, Pixels, ReadFace

if TYPE_CHECKING:
    from anonymix_plugin.encoder import Encoder

ENCODER_CROP = 256
_TURNED_SIDE = 640  # pixels: enough to tell whether a photo lies on its side
_CLEARLY = 0.25  # how much better a face has to be for that


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def copy(self) -> Stopwatch:
        """Another one that goes on from here."""
        made = Stopwatch()
        made.seconds = dict(self.seconds)
        return made

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


class Reader:
    """Decodes, detects, aligns, embeds and encodes.

    Args:
        detector: Finds faces.
        arcface: The ArcFace recogniser of the joint embedding.
        sface: The SFace recogniser of the joint embedding.
        subspace: Where people differ.
        encoder: Reads what is kept of the photo; may be None where the policy keeps nothing.
        attributes: What is kept.
        faces: What to do where a photo shows several faces.
        limits: What is refused before decoding.
        framing: Whether the FFHQ crop is wanted even if nothing is kept (the refine method compares with it).
        min_quality: The least quality of a face that is read (`quality.measure_quality`).
    """

    def __init__(
        self,
        *,
        detector: Detector,
        arcface: MeasuringRecogniser,
        sface: MeasuringRecogniser,
        subspace: IdentitySubspace,
        encoder: Encoder | None,
        attributes: AttributePolicy,
        faces: FacePolicy = "largest",
        limits: ImageLimits | None = None,
        framing: bool = False,
        min_quality: float = 0.0,
    ) -> None:
        self._detector, self._arcface, self._sface = detector, arcface, sface
        self._subspace, self._encoder, self._attributes = subspace, encoder, attributes
        self._faces: FacePolicy = faces
        self._limits = limits or default_limits()
        self._framing, self._min_quality = framing, min_quality

    def decode(self, source: PhotoSource, watch: Stopwatch, channel_order: ChannelOrder = "rgb") -> Photo:
        """Decode one photo; raises PhotoError."""
        with watch.stage("decode"):
            return decode_photo(source, limits=self._limits, channel_order=channel_order)

    def read(self, photo: Photo, watch: Stopwatch) -> list[ReadFace]:
        """Read the faces of one photo, as many as the policy for several faces says.

        Under the policy "all", faces of too little quality (bystanders out of focus) are left out.

        Raises:
            LowQualityError: The face, or every one of them, is of too little quality.
            NoFaceError: No face was found.
            SeveralFacesError: More were found than the policy, or the limits, allow.
        """
        with watch.stage("detect"):
            found = self._detector.detect(photo)
            turn = "" if found else self._turn(photo, 0.0)
            if turn:
                raise NoFaceError(
                    f"no face was found as the photo lies, but {turn} shows one",
                    where=photo.source,
                    fix=LYING,
                )
            faces = select_faces(found, self._faces, photo)
            self._limits.check_faces(len(faces), photo.source)
        with watch.stage("align"):
            crops = np.stack([recogniser_crop(face) for face in faces])
            wanted = self._framing or self._attributes is not AttributePolicy.NONE
            framed = np.stack([ffhq_crop(face, ENCODER_CROP) for face in faces]) if wanted else None
        with watch.stage("embed"):
            joint, lengths = self._joint(crops)
            people = self._subspace.project(joint)
            grades = [
                measure_quality(face, crop, float(arcface), float(sface))
                for face, crop, (arcface, sface) in zip(faces, crops, lengths, strict=True)
            ]
            passed = [i for i, grade in enumerate(grades) if grade.value >= self._min_quality]
            if not passed:
                turn = self._turn(photo, grades[0].value)
                require_quality(grades[0], self._min_quality, photo.source, turn)
        kept: Floats | None = None
        if self._encoder is not None and framed is not None and self._attributes is not AttributePolicy.NONE:
            with watch.stage("encode"):
                kept = self._encoder.encode(framed)
        return [
            ReadFace(
                faces[i],
                people[i],
                crops[i],
                None if kept is None else kept[i],
                None if framed is None else framed[i],
                grades[i].value,
            )
            for i in passed
        ]

    def _turn(self, photo: Photo, quality: float) -> str:
        """Which turn shows a good face, clearly better than the photo's of `quality`; "" if none does."""
        longest = max(photo.width, photo.height)
        small = photo.pixels
        if longest > _TURNED_SIDE:
            scale = _TURNED_SIDE / longest
            size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
            small = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_AREA), np.uint8)
        best, name = max(self._min_quality, LEAST_QUALITY, quality + _CLEARLY), ""
        for times, turn in enumerate(TURNS, 1):
            turned = Photo(np.ascontiguousarray(np.rot90(small, times)), photo.source)
            face = meant_face(self._detector.detect(turned), "largest")
            if face is None:
                continue
            crop = recogniser_crop(face)
            _, lengths = self._joint(crop[None])
            value = measure_quality(face, crop, *(float(one) for one in lengths[0])).value
            if value > best:
                best, name = value, turn
        return name

    def _joint(self, crops: Pixels) -> tuple[Floats, Floats]:
        """Joint embeddings (N, 640), and what they are joined of: lengths (N, 2)."""
        arcface, arcface_lengths = self._arcface.embed_with_lengths(crops)
        sface, sface_lengths = self._sface.embed_with_lengths(crops)
        return joint_embedding(arcface, sface), np.stack([arcface_lengths, sface_lengths], axis=1)
