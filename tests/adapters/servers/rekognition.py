"""Amazon Rekognition: AWS JSON 1.1 over POST, signed with Signature Version 4.

Source: the service model that botocore ships, and the Rekognition API reference (limits, error names).
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from servers._recognition import Recognition, Seen
from servers._service import Answer, LocalService, Received, Refusal
from servers._signatures import check_aws

MAX_BYTES, MIN_SIDE, MAX_SIDE = 5_242_880, 80, 4096
DEFAULT_THRESHOLD = 80.0
_EXTERNAL = re.compile(r"[a-zA-Z0-9_.\-:]{1,255}")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def _refuse(kind: str, message: str, status: int = 400) -> Refusal:
    content = {"__type": kind, "Message": message}
    return Refusal(status, content, {"x-amzn-ErrorType": kind, "x-amzn-RequestId": str(uuid.uuid4())})


@dataclass
class _Face:
    id: str
    external: str | None
    seen: Seen
    image: str

    def describe(self) -> dict[str, Any]:
        found = {
            "FaceId": self.id,
            "ImageId": self.image,
            "BoundingBox": self.seen.bounding_box(),
            "Confidence": 99.9,
            "IndexFacesModelVersion": "7.0",
        }
        return found | ({"ExternalImageId": self.external} if self.external else {})


@dataclass
class _Collection:
    faces: dict[str, _Face] = field(default_factory=dict)
    users: dict[str, list[str]] = field(default_factory=dict)


class RekognitionService(LocalService):
    """Collections, faces, users, comparison and detection."""

    def __init__(self, recognition: Recognition) -> None:
        super().__init__(recognition)
        self.collections: dict[str, _Collection] = {}

    def answer(self, received: Received) -> Answer:
        """See `LocalService.answer`."""
        refusal = _refuse("InvalidSignatureException", "The request signature does not match")
        check_aws(received, "rekognition", refusal)
        target = received.headers.get("x-amz-target", "")
        operation = target.removeprefix("RekognitionService.")
        handler = getattr(self, f"_{_snake(operation)}", None)
        if not target.startswith("RekognitionService.") or handler is None:
            raise _refuse("UnknownOperationException", operation)
        return Answer(handler(received.json()), media_type="application/x-amz-json-1.1")

    def _create_collection(self, request: Any) -> Any:
        if request["CollectionId"] in self.collections:
            raise _refuse("ResourceAlreadyExistsException", "The collection id already exists")
        self.collections[request["CollectionId"]] = _Collection()
        return {"StatusCode": 200, "CollectionArn": "aws:rekognition:...", "FaceModelVersion": "7.0"}

    def _delete_collection(self, request: Any) -> Any:
        self._collection(request)
        del self.collections[request["CollectionId"]]
        return {"StatusCode": 200}

    def _describe_collection(self, request: Any) -> Any:
        return {"FaceCount": len(self._collection(request).faces), "FaceModelVersion": "7.0"}

    def _index_faces(self, request: Any) -> Any:
        collection = self._collection(request)
        external = request.get("ExternalImageId")
        if external is not None and not _EXTERNAL.fullmatch(external):
            raise _refuse("InvalidParameterException", "ExternalImageId does not match the pattern")
        image = str(uuid.uuid4())
        records = []
        for seen in self._seen(request["Image"])[: request.get("MaxFaces", 100)]:
            face = _Face(str(uuid.uuid4()), external, seen, image)
            collection.faces[face.id] = face
            records.append({"Face": face.describe(), "FaceDetail": self._detail(seen)})
        return {"FaceRecords": records, "FaceModelVersion": "7.0", "UnindexedFaces": []}

    def _list_faces(self, request: Any) -> Any:
        faces = self._collection(request).faces
        return {"Faces": [face.describe() for face in faces.values()], "FaceModelVersion": "7.0"}

    def _delete_faces(self, request: Any) -> Any:
        faces = self._collection(request).faces
        gone = [name for name in request["FaceIds"] if faces.pop(name, None) is not None]
        return {"DeletedFaces": gone, "UnsuccessfulFaceDeletions": []}

    def _search_faces(self, request: Any) -> Any:
        face = self._collection(request).faces.get(request["FaceId"])
        if face is None:
            raise _refuse("InvalidParameterException", "faceId was not found in the collection")
        found = self._matches(request, face.seen, request.get("FaceMatchThreshold"))
        return {
            "SearchedFaceId": face.id,
            "FaceMatches": [m for m in found if m["Face"]["FaceId"] != face.id],
        }

    def _search_faces_by_image(self, request: Any) -> Any:
        self._collection(request)
        probe = self._one(request["Image"])
        found = self._matches(request, probe, request.get("FaceMatchThreshold"))
        return {
            "SearchedFaceBoundingBox": probe.bounding_box(),
            "SearchedFaceConfidence": 99.9,
            "FaceMatches": found[: request.get("MaxFaces", 80)],
            "FaceModelVersion": "7.0",
        }

    def _create_user(self, request: Any) -> Any:
        self._collection(request).users[request["UserId"]] = []
        return {}

    def _delete_user(self, request: Any) -> Any:
        self._collection(request).users.pop(request["UserId"], None)
        return {}

    def _associate_faces(self, request: Any) -> Any:
        self._collection(request).users[request["UserId"]] += request["FaceIds"]
        return {"AssociatedFaces": [{"FaceId": name} for name in request["FaceIds"]], "UserStatus": "ACTIVE"}

    def _search_users_by_image(self, request: Any) -> Any:
        collection = self._collection(request)
        probe = self._one(request["Image"])
        least = request.get("UserMatchThreshold", DEFAULT_THRESHOLD)
        found = []
        for user, faces in collection.users.items():
            known = [collection.faces[name].seen for name in faces if name in collection.faces]
            best = max((self._score(probe, seen) for seen in known), default=0.0)
            if best >= least:
                found.append({"Similarity": best, "User": {"UserId": user, "UserStatus": "ACTIVE"}})
        found.sort(key=lambda match: -match["Similarity"])
        return {"UserMatches": found, "FaceModelVersion": "7.0", "SearchedFace": {"FaceDetail": {}}}

    def _compare_faces(self, request: Any) -> Any:
        source = self._one(request["SourceImage"])
        least = request.get("SimilarityThreshold", DEFAULT_THRESHOLD)
        matches, others = [], []
        for seen in self._seen(request["TargetImage"]):
            score, face = self._score(source, seen), {"BoundingBox": seen.bounding_box(), "Confidence": 99.9}
            if score >= least:
                matches.append({"Similarity": score, "Face": face})
            else:
                others.append(face)
        return {
            "SourceImageFace": {"BoundingBox": source.bounding_box(), "Confidence": 99.9},
            "FaceMatches": matches,
            "UnmatchedFaces": others,
        }

    def _detect_faces(self, request: Any) -> Any:
        return {"FaceDetails": [self._detail(seen) for seen in self._seen(request["Image"])]}

    def _collection(self, request: Any) -> _Collection:
        name = request["CollectionId"]
        if name not in self.collections:
            raise _refuse("ResourceNotFoundException", f"The collection id: {name} does not exist")
        return self.collections[name]

    def _matches(self, request: Any, probe: Seen, least: float | None) -> list[dict[str, Any]]:
        floor = DEFAULT_THRESHOLD if least is None else least
        scored = [
            {"Similarity": self._score(probe, face.seen), "Face": face.describe()}
            for face in self._collection(request).faces.values()
        ]
        return sorted((m for m in scored if m["Similarity"] >= floor), key=lambda m: -m["Similarity"])

    def _score(self, a: Seen, b: Seen) -> float:
        return self.recognition.score(a, b, DEFAULT_THRESHOLD, 100.0)

    def _detail(self, seen: Seen) -> dict[str, Any]:
        return {"BoundingBox": seen.bounding_box(), "Confidence": 99.9}

    def _one(self, image: Any) -> Seen:
        return self.largest(
            self._bytes(image),
            lambda: _refuse("InvalidParameterException", "There are no faces in the image. Should be at least 1."),
        )

    def _seen(self, image: Any) -> list[Seen]:
        return self.recognition.faces(self._bytes(image))

    def _bytes(self, image: Any) -> bytes:
        if "Bytes" not in image:
            raise _refuse("InvalidS3ObjectException", "Unable to get object metadata from S3.")
        try:
            data = base64.b64decode(image["Bytes"], validate=True)
        except binascii.Error:
            raise _refuse("SerializationException", "Bytes is no Base64") from None
        if len(data) > MAX_BYTES:
            raise _refuse("ImageTooLargeException", "Request has invalid image size")
        if not data.startswith(_PICTURES):
            raise _refuse("InvalidImageFormatException", "Request has invalid image format")
        faces = self.recognition.faces(data)
        if faces and not all(MIN_SIDE <= side <= MAX_SIDE for side in faces[0].size):
            raise _refuse("InvalidParameterException", "Request has invalid image dimensions")
        return data


class S3Service(LocalService):
    """Just enough of S3 to fetch objects from: GET with the path style, signed with Signature Version 4.

    Attributes:
        objects: Content by (bucket, key).
    """

    def __init__(self, recognition: Recognition) -> None:
        super().__init__(recognition)
        self.objects: dict[tuple[str, str], bytes] = {}

    def answer(self, received: Received) -> Answer:
        """See `LocalService.answer`."""
        check_aws(received, "s3", Refusal(403, _xml("SignatureDoesNotMatch")))
        bucket, _, key = received.path.lstrip("/").partition("/")
        if received.method != "GET" or (bucket, key) not in self.objects:
            raise Refusal(404, _xml("NoSuchKey"))
        return Answer(self.objects[bucket, key], media_type="application/octet-stream")


def _xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
