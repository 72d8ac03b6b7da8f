"""Azure Face v1.2-preview.1: octet-streams and JSON, keyed by a header; faces have ids for a while.

Source: the REST reference of the Face API (detection, recognition, large person groups and face lists).
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from servers._recognition import Recognition, Seen
from servers._service import Answer, LocalService, Received, Refusal

KEY = "azure-face-key-not-real"
MIN_BYTES, MAX_BYTES, MIN_FACE = 1024, 6 * 1024 * 1024, 36
THRESHOLD = 0.5


def _refuse(status: int, code: str, message: str = "") -> Refusal:
    return Refusal(status, {"error": {"code": code, "message": message or code}})


@dataclass
class _Person:
    name: str
    faces: dict[str, Seen] = field(default_factory=dict)


@dataclass
class _Group:
    people: dict[str, _Person] = field(default_factory=dict)
    trained: set[str] | None = None


class AzureFaceService(LocalService):
    """Detection, verification, identification, large person groups and large face lists."""

    def __init__(self, recognition: Recognition) -> None:
        super().__init__(recognition)
        self.ids: dict[str, tuple[Seen, float]] = {}
        self.groups: dict[str, _Group] = {}
        self.lists: dict[str, dict[str, Seen]] = {}
        group, person, face = r"largepersongroups/([^/]+)", r"/persons/([^/]+)", r"/persistedfaces"
        self._routes = [
            ("POST", "detect", self._detect),
            ("POST", "verify", self._verify),
            ("POST", "identify", self._identify),
            ("POST", "findsimilars", self._similar),
            ("PUT", group, self._create_group),
            ("DELETE", group, self._delete_group),
            ("POST", f"{group}/train", self._train),
            ("GET", f"{group}/training", self._training),
            ("POST", f"{group}/persons", self._create_person),
            ("GET", f"{group}/persons", self._list_people),
            ("DELETE", group + person, self._delete_person),
            ("POST", group + person + face, self._add_face),
            ("DELETE", f"{group}{person}{face}/([^/]+)", self._delete_face),
            ("PUT", "largefacelists/([^/]+)", self._create_list),
            ("POST", "largefacelists/([^/]+)/persistedfaces", self._add_to_list),
        ]

    def answer(self, received: Received) -> Answer:
        """See `LocalService.answer`."""
        if received.headers.get("ocp-apim-subscription-key") != KEY:
            raise _refuse(401, "Unspecified", "Access denied due to invalid subscription key.")
        path = received.path.removeprefix("/face/v1.2-preview.1/")
        for method, pattern, handler in self._routes:
            found = re.fullmatch(pattern, path)
            if found and method == received.method:
                result = handler(received, *found.groups())
                return result if isinstance(result, Answer) else Answer(result)
        raise _refuse(404, "ResourceNotFound")

    def _detect(self, received: Received) -> Any:
        result = []
        for seen in self._photo(received):
            found: dict[str, Any] = {"faceRectangle": seen.rectangle()}
            if received.query.get("returnFaceId", "true") == "true":
                lives = int(received.query.get("faceIdTimeToLive", "86400"))
                name = str(uuid.uuid4())
                self.ids[name] = (seen, time.monotonic() + lives)
                found["faceId"] = name
            result.append(found)
        return result

    def _verify(self, received: Received) -> Any:
        asked = received.json()
        if "faceId1" in asked:
            return self._verdict(self._score(self._face(asked["faceId1"]), self._face(asked["faceId2"])))
        person = self._person(asked["largePersonGroupId"], asked["personId"])
        if not person.faces:
            raise _refuse(400, "BadArgument", "person has no face")
        probe = self._face(asked["faceId"])
        return self._verdict(max(self._score(probe, seen) for seen in person.faces.values()))

    def _identify(self, received: Received) -> Any:
        asked = received.json()
        group = self._group(asked["largePersonGroupId"])
        if group.trained is None:
            raise _refuse(400, "LargePersonGroupNotTrained")
        result = []
        for name in asked["faceIds"]:
            probe, found = self._face(name), []
            for identifier, person in group.people.items():
                known = [seen for face, seen in person.faces.items() if face in group.trained]
                score = max((self._score(probe, seen) for seen in known), default=0.0)
                if score >= asked.get("confidenceThreshold", THRESHOLD):
                    found.append({"personId": identifier, "confidence": score})
            found.sort(key=lambda candidate: -float(candidate["confidence"]))
            result.append({"faceId": name, "candidates": found[: asked.get("maxNumOfCandidatesReturned", 10)]})
        return result

    def _similar(self, received: Received) -> Any:
        asked = received.json()
        probe = self._face(asked["faceId"])
        if "largeFaceListId" in asked:
            held = self.lists[asked["largeFaceListId"]]
            found = [{"persistedFaceId": n, "confidence": self._score(probe, s)} for n, s in held.items()]
        else:
            names = asked["faceIds"]
            found = [{"faceId": n, "confidence": self._score(probe, self._face(n))} for n in names]
        return [match for match in found if float(str(match["confidence"])) >= THRESHOLD]

    def _create_group(self, _: Received, group: str) -> Any:
        if group in self.groups:
            raise _refuse(409, "LargePersonGroupExists")
        self.groups[group] = _Group()
        return Answer()

    def _delete_group(self, _: Received, group: str) -> Any:
        self._group(group)
        del self.groups[group]
        return Answer()

    def _train(self, _: Received, group: str) -> Any:
        held = self._group(group)
        held.trained = {face for person in held.people.values() for face in person.faces}
        place = f"{self.url}/face/v1.2-preview.1/largepersongroups/{group}/training"
        return Answer(status=202, headers={"operation-Location": place})

    def _training(self, _: Received, group: str) -> Any:
        self._group(group)
        now = "2026-01-01T00:00:00Z"
        return {
            "status": "succeeded",
            "createdDateTime": now,
            "lastActionDateTime": now,
            "lastSuccessfulTrainingDateTime": now,
        }

    def _create_person(self, received: Received, group: str) -> Any:
        name = str(uuid.uuid4())
        self._group(group).people[name] = _Person(received.json()["name"])
        return {"personId": name}

    def _list_people(self, received: Received, group: str) -> Any:
        every = sorted(self._group(group).people.items())
        start = received.query.get("start", "")
        return [
            {"personId": name, "name": person.name, "persistedFaceIds": list(person.faces)}
            for name, person in every
            if name > start
        ][: int(received.query.get("top", "1000"))]

    def _delete_person(self, _: Received, group: str, person: str) -> Any:
        self._person(group, person)
        del self.groups[group].people[person]
        return Answer()

    def _add_face(self, received: Received, group: str, person: str) -> Any:
        holder, name = self._person(group, person), str(uuid.uuid4())
        holder.faces[name] = self._one(received)
        return {"persistedFaceId": name}

    def _delete_face(self, _: Received, group: str, person: str, face: str) -> Any:
        if self._person(group, person).faces.pop(face, None) is None:
            raise _refuse(404, "PersistedFaceNotFound")
        return Answer()

    def _create_list(self, _: Received, name: str) -> Any:
        self.lists[name] = {}
        return Answer()

    def _add_to_list(self, received: Received, name: str) -> Any:
        face = str(uuid.uuid4())
        self.lists[name][face] = self._one(received)
        return {"persistedFaceId": face}

    def _one(self, received: Received) -> Seen:
        seen = self._photo(received)
        if not seen:
            raise _refuse(400, "InvalidImage", "No face detected in the image.")
        if len(seen) > 1 and "targetFace" not in received.query:
            raise _refuse(400, "InvalidImage", "There is more than 1 face in the image.")
        return seen[0]

    def _photo(self, received: Received) -> list[Seen]:
        if received.media_type != "application/octet-stream":
            raise _refuse(400, "InvalidURL", "Invalid image URL or error downloading from target server.")
        if not MIN_BYTES <= len(received.body) <= MAX_BYTES:
            raise _refuse(400, "InvalidImageSize")
        seen = self.recognition.faces(received.body)
        return [face for face in seen if face.box[2] - face.box[0] >= MIN_FACE]

    def _face(self, name: str) -> Seen:
        seen, until = self.ids.get(name, (None, 0.0))
        if seen is None or time.monotonic() > until:
            raise _refuse(404, "FaceNotFound")
        return seen

    def _group(self, name: str) -> _Group:
        if name not in self.groups:
            raise _refuse(404, "LargePersonGroupNotFound")
        return self.groups[name]

    def _person(self, group: str, name: str) -> _Person:
        people = self._group(group).people
        if name not in people:
            raise _refuse(404, "PersonNotFound")
        return people[name]

    def _verdict(self, score: float) -> dict[str, Any]:
        return {"isIdentical": score >= THRESHOLD, "confidence": score}

    def _score(self, a: Seen, b: Seen) -> float:
        return self.recognition.score(a, b, THRESHOLD, 1.0)
