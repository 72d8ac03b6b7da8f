"""Which of the faces in a photo are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from anonymix_plugin.errors import NoFaceError, SeveralFacesError, UsageError
from anonymix_plugin.values import Face, Photo

FacePolicy: TypeAlias = Literal["largest", "central", "all", "error"]
"""What to do with a photo of several people."""


def select_faces(
    faces: Sequence[Face], policy: FacePolicy, photo: Photo, *, min_score: float = 0.0
) -> list[Face]:
    """Applies the policy for several faces.

    A face counts if its score is at least `min_score`, however small it is and wherever it stands:
    under "error", a bystander in the background makes the photo ambiguous just as a second person in
    front does. Whoever wants to pass over doubtful detections raises `min_score`.

    Args:
        faces: What a detector found in `photo`.
        policy: "largest" takes the face with the largest box; "central" weighs size against distance
            from the middle (area of the box less twice the squared distance of its centre), for
            portraits with a larger, cut face at the edge; "all" takes all faces; "error" takes the
            only one and refuses the photo if there are several.
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
            fix="use a photo with a face that is upright, well lit and at least 30 pixels wide",
        )
    if policy == "error" and len(counted) > 1:
        raise SeveralFacesError(
            f"{len(counted)} faces were found where exactly one is asked for",
            where=photo.source,
            fix="crop the photo to one person, or choose the policy 'largest' or 'all'",
        )
    if policy == "central":
        return [max(counted, key=_prominence)]
    return counted[:1] if policy == "largest" else counted


def _prominence(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    offset = (x0 + x1 - face.photo.width) ** 2 + (y0 + y1 - face.photo.height) ** 2
    return _area(face) - offset / 2  # the offsets are doubled: a quarter of the square, twice


def _area(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return (x1 - x0) * (y1 - y0)
