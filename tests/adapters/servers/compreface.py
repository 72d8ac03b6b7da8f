"""CompreFace 1.2: REST under /api/v1, a key for each service, pictures as multipart or JSON Base64.

Source: CompreFace's document "Rest API description".
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass
from typing import Any

from servers._recognition import Recognition, Seen
from servers._service import Answer, LocalService, Received, Refusal

RECOGNITION_KEY, VERIFICATION_KEY, DETECTION_KEY = (f"compreface-{n}-key-not-real" for n in ("r", "v", "d"))
MAX_BYTES = 5 * 1024 * 1024
THRESHOLD = 0.85


@dataclass
class _Example:
    subject: str
    seen: Seen
    picture: bytes


class CompreFaceService(LocalService):
    """The recognition, verification and detection services of one installation."""

    prefix = "/api/v1/"

    def __init__(self, recognition: Recognition) -> None:
        super().__init__(recognition)
        self.examples: dict[str, _Example] = {}
        self.subjects: set[str] = set()
        self._routes = [
            ("POST", r"recognition/faces", self._add),
            ("GET", r"recognition/faces", self._list),
            ("DELETE", r"recognition/faces", self._delete_all),
            ("DELETE", r"recognition/faces/([0-9a-f-]{36})", self._delete),
            ("POST", r"recognition/faces/delete", self._delete_many),
            ("GET", r"recognition/faces/([0-9a-f-]{36})/img", self._picture),
            ("POST", r"recognition/faces/([0-9a-f-]{36})/verify", self._verify_example),
            ("POST", r"recognition/recognize", self._recognize),
            ("GET", r"recognition/subjects/?", self._list_subjects),
            ("POST", r"recognition/subjects", self._add_subject),
            ("PUT", r"recognition/subjects/(.+)", self._rename_subject),
            ("DELETE", r"recognition/subjects/(.+)", self._delete_subject),
            ("POST", r"detection/detect", self._detect),
            ("POST", r"verification/verify", self._verify),
        ]

    def answer(self, received: Received) -> Answer:
        """See `LocalService.answer`."""
        path = received.path.removeprefix(self.prefix)
        service = path.split("/")[0]
        keys = {"recognition": RECOGNITION_KEY, "verification": VERIFICATION_KEY, "detection": DETECTION_KEY}
        if received.headers.get("x-api-key") != keys.get(service):
            raise Refusal(401, {"message": "Bad or missing x-api-key", "code": 1})
        for method, pattern, handler in self._routes:
            found = re.fullmatch(pattern, path)
            if found and method == received.method:
                result = handler(received, *found.groups())
                if isinstance(result, bytes):
                    return Answer(result, media_type="application/octet-stream")
                return Answer(result, 201 if handler == self._add else 200)
        raise Refusal(404, {"message": "Not Found", "code": 0})

    def _add(self, received: Received) -> Any:
        (seen, picture), subject = self._one(received, "file"), received.query["subject"]
        name = str(uuid.uuid4())
        self.examples[name] = _Example(subject, seen, picture)
        self.subjects.add(subject)
        return {"image_id": name, "subject": subject}

    def _list(self, received: Received) -> Any:
        wanted = received.query.get("subject")
        page, size = int(received.query.get("page", "0")), int(received.query.get("size", "20"))
        every = [
            {"image_id": name, "subject": example.subject}
            for name, example in self.examples.items()
            if wanted in {None, example.subject}
        ]
        return {
            "faces": every[page * size : (page + 1) * size],
            "page_number": page,
            "page_size": size,
            "total_pages": -(-len(every) // size),
            "total_elements": len(every),
        }

    def _delete_all(self, received: Received) -> Any:
        wanted = received.query.get("subject")
        gone = [name for name, example in self.examples.items() if wanted in {None, example.subject}]
        for name in gone:
            del self.examples[name]
        return {"deleted": len(gone)}

    def _delete(self, _: Received, name: str) -> Any:
        if name not in self.examples:
            raise Refusal(404, {"message": f"Image with id {name} is not found", "code": 22})
        example = self.examples.pop(name)
        return {"image_id": name, "subject": example.subject}

    def _delete_many(self, received: Received) -> Any:
        gone = [name for name in received.json() if name in self.examples]
        return [{"image_id": name, "subject": self.examples.pop(name).subject} for name in gone]

    def _picture(self, _: Received, name: str) -> bytes:
        return self.examples[name].picture if name in self.examples else b""

    def _verify_example(self, received: Received, name: str) -> Any:
        if name not in self.examples:
            raise Refusal(404, {"message": f"Image with id {name} is not found", "code": 22})
        held = self.examples[name].seen
        return {
            "result": [
                {"box": self._box(seen), "similarity": self._similarity(held, seen)}
                for seen in self._seen(received, "file")[0]
            ]
        }

    def _recognize(self, received: Received) -> Any:
        count = int(received.query.get("prediction_count", "1"))
        result = []
        for seen in self._seen(received, "file")[0]:
            best: dict[str, float] = {}
            for example in self.examples.values():
                score = self._similarity(seen, example.seen)
                best[example.subject] = max(score, best.get(example.subject, 0.0))
            order = sorted(best, key=lambda subject: -best[subject])[:count]
            subjects = [{"subject": subject, "similarity": best[subject]} for subject in order]
            result.append({"box": self._box(seen), "subjects": subjects})
        return {"result": result}

    def _list_subjects(self, _: Received) -> Any:
        return {"subjects": sorted(self.subjects)}

    def _add_subject(self, received: Received) -> Any:
        subject = received.json()["subject"]
        if subject in self.subjects:
            raise Refusal(400, {"message": "Subject already exists", "code": 43})
        self.subjects.add(subject)
        return {"subject": subject}

    def _rename_subject(self, received: Received, subject: str) -> Any:
        new = received.json()["subject"]
        for example in self.examples.values():
            if example.subject == subject:
                example.subject = new
        self.subjects = self.subjects - {subject} | {new}
        return {"updated": True}

    def _delete_subject(self, _: Received, subject: str) -> Any:
        self.subjects.discard(subject)
        self.examples = {n: e for n, e in self.examples.items() if e.subject != subject}
        return {"subject": subject}

    def _detect(self, received: Received) -> Any:
        return {"result": [{"box": self._box(seen)} for seen in self._seen(received, "file")[0]]}

    def _verify(self, received: Received) -> Any:
        source, _ = self._one(received, "source_image")
        matches = [
            {"box": self._box(seen), "similarity": self._similarity(source, seen)}
            for seen in self._seen(received, "target_image")[0]
        ]
        return {"result": [{"source_image_face": {"box": self._box(source)}, "face_matches": matches}]}

    def _one(self, received: Received, name: str) -> tuple[Seen, bytes]:
        seen, picture = self._seen(received, name)
        if len(seen) > 1:
            raise Refusal(400, {"message": "Found more than one face in the given image", "code": 8})
        return seen[0], picture

    def _seen(self, received: Received, name: str) -> tuple[list[Seen], bytes]:
        if received.media_type == "application/json":
            try:
                picture = base64.b64decode(received.json()[name], validate=True)
            except (KeyError, binascii.Error):
                raise Refusal(400, {"message": f"Required part {name} is not present", "code": 21}) from None
        else:
            _, files = received.form()
            if name not in files:
                raise Refusal(400, {"message": f"Required part {name} is not present", "code": 21})
            picture = files[name][0]
        if len(picture) > MAX_BYTES:
            raise Refusal(413, {"message": "Maximum upload size exceeded", "code": 9})
        sure = float(received.query.get("det_prob_threshold", "0"))
        seen = [one for one in self.recognition.faces(picture) if one.probability >= sure]
        if not seen:
            raise Refusal(400, {"message": "No face is found in the given image", "code": 28})
        limit = int(received.query.get("limit", "0"))
        return (seen[:limit] if limit else seen), picture

    def _similarity(self, a: Seen, b: Seen) -> float:
        return self.recognition.score(a, b, THRESHOLD, 1.0)

    def _box(self, seen: Seen) -> dict[str, float]:
        x0, y0, x1, y1 = (round(value) for value in seen.box)
        return {"probability": 0.99, "x_min": x0, "y_min": y0, "x_max": x1, "y_max": y1}
