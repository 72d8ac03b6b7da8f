"""Luxand.cloud: multipart, header `token`; searches answer with a bare list.

Source: the examples of Luxand's documents for /v2/person and /photo.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from servers._recognition import Recognition, Seen
from servers._service import Answer, LocalService, Received, Refusal

TOKEN = "luxand-token-not-real"
THRESHOLD = 0.8


@dataclass
class _Person:
    name: str
    collections: list[str]
    faces: dict[str, Seen] = field(default_factory=dict)


def _refuse(status: int, message: str) -> Refusal:
    return Refusal(status, {"status": "failure", "message": message})


class LuxandService(LocalService):
    """People, their faces, search, verification and similarity."""

    prefix = "/"

    def __init__(self, recognition: Recognition) -> None:
        super().__init__(recognition)
        self.people: dict[str, _Person] = {}
        identifier = "([0-9a-f-]{36})"
        self._routes = [
            ("POST", "v2/person", self._add_person),
            ("GET", "v2/person", self._list),
            ("POST", f"v2/person/{identifier}", self._add_face),
            ("DELETE", f"person/{identifier}", self._delete_person),
            ("GET", f"v2/person/{identifier}", self._person),
            ("DELETE", f"v2/person/{identifier}/face/{identifier}", self._delete_face),
            ("POST", "photo/search/v2", self._search),
            ("POST", f"photo/verify/{identifier}", self._verify),
            ("POST", "photo/similarity", self._similarity),
            ("POST", "photo/detect", self._detect),
        ]

    def answer(self, received: Received) -> Answer:
        """See `LocalService.answer`."""
        if received.headers.get("token") != TOKEN:
            raise _refuse(401, "Unauthorized")
        for method, pattern, handler in self._routes:
            found = re.fullmatch(pattern, received.path.lstrip("/"))
            if found and method == received.method:
                return Answer(handler(received, *found.groups()))
        raise _refuse(404, "Not found")

    def _add_person(self, received: Received) -> Any:
        fields, _ = received.form()
        seen = self._photo(received, "photos")[0]
        person, face = str(uuid.uuid4()), str(uuid.uuid4())
        collections = [name for name in fields.get("collections", "").split(",") if name]
        self.people[person] = _Person(fields["name"], collections, {face: seen})
        return {"status": "success", "uuid": person, "faces": [{"uuid": face}]}

    def _add_face(self, received: Received, person: str) -> Any:
        seen, face = self._photo(received, "photos")[0], str(uuid.uuid4())
        self._known(person).faces[face] = seen
        return {"status": "success", "uuid": face}

    def _list(self, _: Received) -> Any:
        return [{"uuid": name, "name": person.name} for name, person in self.people.items()]

    def _person(self, _: Received, name: str) -> Any:
        person = self._known(name)
        return {"uuid": name, "name": person.name, "faces": [{"uuid": face} for face in person.faces]}

    def _delete_person(self, _: Received, name: str) -> Any:
        self._known(name)
        del self.people[name]
        return {"status": "success"}

    def _delete_face(self, _: Received, name: str, face: str) -> Any:
        if self._known(name).faces.pop(face, None) is None:
            raise _refuse(404, "Face not found")
        return {"status": "success"}

    def _search(self, received: Received) -> Any:
        fields, _ = received.form()
        wanted = {name for name in fields.get("collections", "").split(",") if name}
        probe = self._photo(received, "photo")[0]
        found = []
        for name, person in self.people.items():
            score = max((self._score(probe, seen) for seen in person.faces.values()), default=0.0)
            if score >= THRESHOLD and (not wanted or wanted & set(person.collections)):
                collections = [{"uuid": c, "name": c} for c in person.collections]
                match = {"uuid": name, "name": person.name, "probability": score}
                found.append(match | {"rectangle": self._box(probe), "collections": collections})
        return sorted(found, key=lambda match: -float(match["probability"]))

    def _verify(self, received: Received, name: str) -> Any:
        probe, person = self._photo(received, "photo")[0], self._known(name)
        score = max((self._score(probe, seen) for seen in person.faces.values()), default=0.0)
        alike = score >= THRESHOLD
        return {
            "status": "success" if alike else "failure",
            "message": "verified" if alike else "not verified",
            "probability": score,
        }

    def _similarity(self, received: Received) -> Any:
        one, other = self._photo(received, "face1")[0], self._photo(received, "face2")[0]
        score = self._score(one, other)
        return {"status": "success", "score": score, "similar": score >= THRESHOLD}

    def _detect(self, received: Received) -> Any:
        return [{"rectangle": self._box(seen)} for seen in self._photo(received, "photo")]

    def _photo(self, received: Received, name: str) -> list[Seen]:
        fields, files = received.form()
        if name not in files:
            raise _refuse(400, f"can't download {fields[name]}" if name in fields else f"{name} is missing")
        seen = self.recognition.faces(files[name][0])
        if not seen:
            raise _refuse(400, "There are no faces in the photo")
        return seen

    def _known(self, name: str) -> _Person:
        if name not in self.people:
            raise _refuse(404, "Person not found")
        return self.people[name]

    def _score(self, a: Seen, b: Seen) -> float:
        return self.recognition.score(a, b, THRESHOLD, 1.0)

    def _box(self, seen: Seen) -> dict[str, int]:
        left, top, right, bottom = (round(value) for value in seen.box)
        return {"left": left, "top": top, "right": right, "bottom": bottom}
