"""The `face_recognition` package, on dlib.

    face_recognition = protect(face_recognition, mixer)
    with mixer.subject("alice"):
        encoding = face_recognition.face_encodings(face_recognition.load_image_file("alice.jpg"))[0]

What `protect` returns has the package's functions and is used in its place; the package itself is left as it
is. `face_encodings` is where the mixer works. `load_image_file` turns photos upright by their EXIF
orientation, which the package itself does not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from anonymix_adapters.errors import AdapterError, BypassError
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule
from anonymix_adapters.local import Recorder, VectorRehearsal, euclidean, face_in_box, finder
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import StandIn, interceptor_of, stand_in, unwrap
from anonymix_plugin.errors import NoFaceError, SeveralFacesError, UsageError
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Photo, Pixels

__all__ = ["NAME", "SDKS", "ProtectedFaceRecognition", "interceptor_of", "protect", "rehearse", "unprotect"]

NAME = "face_recognition"
SDKS = (
    # First: where it does not import, the package after it closes the standard input and ends the process.
    Sdk(
        "face_recognition_models",
        ("face-recognition-models", "face_recognition_models"),
        "dlib",
        ">=0.3,<0.4",
        cure="pip install 'setuptools<82': later ones lack pkg_resources, which it needs",
    ),
    Sdk("face_recognition", ("face-recognition", "face_recognition"), "dlib", ">=1.3,<1.4"),
    Sdk("dlib", ("dlib-bin", "dlib"), "dlib", ">=19.24,<21"),
)

TOLERANCE: Final = 0.6
"""Up to this distance two faces are one person's, says the package."""

_LOOK: Final = 256

_HARMLESS: Final = frozenset(
    {
        "batch_face_locations",
        "compare_faces",
        "face_distance",
        "face_landmarks",
        "face_locations",
        "__version__",
    }
)


class ProtectedFaceRecognition(StandIn):
    """Stands in for the package `face_recognition`, with its functions; many threads may use it."""

    def __init__(self, target: Any, interceptor: Interceptor) -> None:
        super().__init__(target, interceptor)
        self._detector = finder()
        self._lock = threading.Lock()  # the package keeps its networks in globals

    def load_image_file(
        self,
        file: Any,
        mode: str = "RGB",
        *,
        subject: str | None = None,  # noqa: ARG002 - nothing is mixed yet
    ) -> npt.NDArray[np.uint8]:
        """Load a photo, upright; (height, width, 3) uint8 RGB, or (height, width) for mode "L".

        Raises:
            PhotoError: It can't be used, or is protected already.
        """
        if mode not in {"RGB", "L"}:
            raise UsageError(f"there is no mode {mode!r}", where="mode", fix="use 'RGB' or 'L'")
        pixels = decode_photo(file).pixels
        return pixels if mode == "RGB" else np.asarray(Image.fromarray(pixels).convert("L"), np.uint8)

    def face_encodings(
        self,
        face_image: Pixels,
        known_face_locations: Sequence[tuple[int, int, int, int]] | None = None,
        num_jitters: int = 1,
        model: str = "small",
        *,
        subject: str | None = None,
    ) -> list[npt.NDArray[np.float64]]:
        """Encode the cancelable faces of a photo's faces; as the package's own.

        `subject` names whose faces they are, where no `with mixer.subject(...)` around the call does.

        Raises:
            SubjectNeededError: Nobody said whose face it is.
            SeveralFacesError: There are several, and the subject's own key is for one.
            PhotoError, KeystoreError: The photo or the key can't be used.
        """
        whose = self._interceptor.whose(argument=subject)
        picture = np.asarray(face_image)
        if known_face_locations is None:
            with self._lock:
                known_face_locations = self._target.face_locations(picture)
        places = [tuple(float(side) for side in place) for place in known_face_locations]
        if len(places) > 1 and not whose.gallery:
            raise SeveralFacesError(
                f"{len(places)} faces, and one subject is named",
                where=NAME,
                fix="give the location of the one that is meant in known_face_locations",
            )
        encodings = []
        for top, right, bottom, left in places:
            box = (left, top, right, bottom)
            face = face_in_box(self._interceptor, picture, box, whose, channel_order="rgb")
            with self._lock:
                made = self._target.face_encodings(
                    face.pixels.copy(), [self._location(face.pixels)], num_jitters, model
                )
            if len(made) != 1:
                raise AdapterError(f"the package made {len(made)} encodings of one face", where=NAME)
            encodings += made
        return encodings

    def _location(self, pixels: Pixels) -> tuple[int, int, int, int]:
        """Where dlib's own detector, or else YuNet, sees the face: top, right, bottom, left."""
        # The face takes half of a cancelable picture. At this size it is large enough for the detector, which
        # would look at four times the pixels of the picture otherwise, and need most of the call for it.
        scale = max(pixels.shape[:2]) / _LOOK
        small = cv2.resize(pixels, (_LOOK, _LOOK), interpolation=cv2.INTER_AREA)
        found = self._target.face_locations(small, number_of_times_to_upsample=0)
        if found:
            largest = max(found, key=lambda it: (it[2] - it[0]) * (it[1] - it[3]))
            top, right, bottom, left = (round(scale * side) for side in largest)
            return top, right, bottom, left
        faces = self._detector.detect(Photo(pixels, "cancelable face"))
        if not faces:
            raise NoFaceError("the cancelable face has no face", where=NAME, fix="use another photo")
        x0, y0, x1, y1 = faces[0].box
        return round(y0), round(x1), round(y1), round(x0)

    def __getattr__(self, name: str) -> Any:
        if name in _HARMLESS:
            return getattr(self._target, name)
        if name.startswith("_"):
            raise AttributeError(name)
        raise BypassError(f"face_recognition.{name} may pass the mixer by", where=NAME, fix="use face_encodings")


def protect(target: Any, mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Any:
    """Put the mixer in front of the package.

    Args:
        target: The module `face_recognition`.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery".
        scope: Scope of the keys.

    Returns:
        An object with the package's functions, for use in its place.

    Raises:
        SdkMissingError, SdkVersionError: The package or dlib is not there, or not as tested.
        DoubleProtectionError: It is protected already, in another way.
    """
    for sdk in SDKS:
        sdk.check()
    return stand_in(target, Interceptor(mixer, NAME, keys=keys, scope=scope), ProtectedFaceRecognition)


unprotect = unwrap


class _Recorded:
    """The package, keeping what its encoder is given."""

    def __init__(self, package: Any, recorder: Recorder) -> None:
        self.original, self._recorder = package, recorder

    def face_encodings(self, picture: Pixels, *args: Any, **kwargs: Any) -> Any:
        self._recorder.note(picture)
        return self.original.face_encodings(picture, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


@contextmanager
def rehearse(mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Iterator[Rehearsal]:
    """The package with its own models, and a gallery in memory."""
    recorder = Recorder()
    _models, package, _dlib = (sdk.load() for sdk in SDKS)
    original = _Recorded(package, recorder)
    client = protect(original, mixer, keys=keys, scope=scope)

    def first(encodings: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        if not encodings:
            raise NoFaceError("face_recognition found no face", where=NAME, fix="use another photo")
        return encodings[0]

    yield VectorRehearsal(
        client._interceptor,
        client,
        embed=lambda pixels: first(client.face_encodings(pixels)),
        embed_original=lambda pixels: first(original.face_encodings(pixels)),
        score=euclidean,
        accepts=lambda distance: distance <= TOLERANCE,
        higher_is_closer=False,
        recorder=recorder,
    )
