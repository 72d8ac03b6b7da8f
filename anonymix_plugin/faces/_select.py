"""Which of the faces in a photo are meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

from anonymix_plugin.errors import NoFaceError, SeveralFacesError, UsageError
from anonymix_plugin.values import Face, Photo

# A detector needs about 12 pixels, and looks at large photos at 1,280 (`_search`); with a margin, 20.
_LEAST_WIDTH, _LEAST_SHARE = 30, 64

FacePolicy: TypeAlias = Literal["largest", "central", "all", "error"]
"""What to do with a photo of several people."""

FaceChoice: TypeAlias = Literal["largest", "central"]
"""The policies that choose one face."""


def select_faces(faces: Sequence[Face], policy: FacePolicy, photo: Photo, *, min_score: float = 0.0) -> list[Face]:
    """Applies the policy for several faces.

    A face that was found counts if its score is at least `min_score`, however small it is and wherever it
    stands: under "error", a bystander in the background makes the photo ambiguous just as a second person in
    front does. Whoever wants to pass over doubtful detections raises `min_score`. Under "all" and "error",
    `faces` should come from a thorough search, which finds faces from 1/128 of the photo's longer side on;
    any other search ends with the first look that shows somebody.

    Args:
        faces: What a detector found in `photo`.
        policy: "largest" and "central" take one face, as `meant_face` says; "all" takes all faces; "error"
            takes the only one and refuses the photo if there are several.
        photo: The photo, named in errors.
        min_score: Least confidence of the detector, 0..1, on top of the detector's own threshold.

    Returns:
        At least one face, the largest (under "central" the most central) first.

    Raises:
        NoFaceError: No face counts.
        SeveralFacesError: Several faces count, and the policy is "error".
        UsageError: There is no such policy.
    """
    if policy not in get_args(FacePolicy):
        raise UsageError(
            f"there is no policy {policy!r}", where="policy", fix="use 'largest', 'central', 'all' or 'error'"
        )
    counted = sorted((face for face in faces if face.score >= min_score), key=_area, reverse=True)
    if not counted:
        doubtful = f", only {len(faces)} doubtful" if faces else ""
        raise NoFaceError(
            f"no face was found{doubtful} ({photo.width} x {photo.height} pixels)",
            where=photo.source,
            fix=f"use a photo with a face that is upright, well lit and at least {_surely(photo)} pixels wide",
        )
    if policy == "error" and len(counted) > 1:
        raise SeveralFacesError(
            f"{len(counted)} faces were found where exactly one is asked for",
            where=photo.source,
            fix="crop the photo to one person, or choose the policy 'largest' or 'all'",
        )
    chosen = meant_face(counted, "central" if policy == "central" else "largest")
    return [chosen] if chosen is not None and policy in {"largest", "central"} else counted


def meant_face(faces: Iterable[Face], choice: FaceChoice) -> Face | None:
    """The one face of a photo that is meant, for mixer, matchers and thresholds alike.

    Args:
        faces: Faces of one photo.
        choice: "largest" by the area of the box, or "central": the one with the largest difference of the
            area and twice the squared distance from the middle of the photo. A photo that was framed around
            a person has them in the middle, but not to the pixel: a small face of somebody behind them may
            lie nearer to it, and a large one at the edge belongs to somebody else.

    Returns:
        The face, or None if there is none.
    """
    return max(faces, key=_prominence if choice == "central" else _area, default=None)


def _surely(photo: Photo) -> int:
    """From how many pixels of width on a face of this photo is found by any search."""
    return max(_LEAST_WIDTH, -(-max(photo.width, photo.height) // _LEAST_SHARE))


def _prominence(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    offset = (x0 + x1 - face.photo.width) ** 2 + (y0 + y1 - face.photo.height) ** 2
    return _area(face) - offset / 2  # the offsets are doubled: a quarter of the square, twice


def _area(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return (x1 - x0) * (y1 - y0)
