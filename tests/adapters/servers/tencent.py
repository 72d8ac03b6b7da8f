"""Tencent Cloud iai 2020-03-03: JSON over POST, signed with TC3-HMAC-SHA256; errors come with status 200.

Source: Tencent Cloud's API documents of iai, and the SDK's models.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from dataclasses import dataclass, field
from typing import Any

from servers._recognition import Recognition, Seen
from servers._service import Answer, LocalService, Received, Refusal
from servers._signatures import check_tencent

MAX_BASE64, MIN_SIDE, MAX_SIDE = 5 * 1024 * 1024, 64, 4000
THRESHOLD = 50.0


def refuse(code: str, message: str = "") -> Refusal:
    error = {"Code": code, "Message": message or code}
    return Refusal(200, {"Response": {"Error": error, "RequestId": str(uuid.uuid4())}})


@dataclass
class _Person:
    name: str
    groups: set[str]
    faces: dict[str, Seen] = field(default_factory=dict)


class TencentService(LocalService):
    """Groups, persons, faces, search, verification and comparison."""

    def __init__(self, recognition: Recognition) -> None:
        super().__init__(recognition)
        self.groups: set[str] = set()
        self.people: dict[str, _Person] = {}

    def answer(self, received: Received) -> Answer:
        """See `LocalService.answer`."""
        check_tencent(received, "iai", refuse("AuthFailure.SignatureFailure"))
        if received.headers.get("x-tc-version") != "2020-03-03":
            raise refuse("InvalidParameter", "Version")
        handler = getattr(self, f"_{received.headers.get('x-tc-action', '')}", None)
        if handler is None:
            raise refuse("InvalidAction")
        response = handler(received.json()) | {"RequestId": str(uuid.uuid4())}
        return Answer({"Response": response})

    def _CreateGroup(self, request: Any) -> Any:  # noqa: N802 - the actions' own names, here and below
        if request["GroupId"] in self.groups:
            raise refuse("InvalidParameterValue.GroupIdAlreadyExist")
        self.groups.add(request["GroupId"])
        return {"FaceModelVersion": "3.0"}

    def _DeleteGroup(self, request: Any) -> Any:  # noqa: N802
        self.groups.discard(request["GroupId"])
        for name in list(self.people):
            self._leave(name, request["GroupId"])
        return {}

    def _DeletePersonFromGroup(self, request: Any) -> Any:  # noqa: N802
        self._person(request)
        self._leave(request["PersonId"], request["GroupId"])
        return {}

    def _CopyPerson(self, request: Any) -> Any:  # noqa: N802
        self._person(request).groups.update(request["GroupIds"])
        return {"SucNum": len(request["GroupIds"]), "SucGroupIds": request["GroupIds"]}

    def _leave(self, name: str, group: str) -> None:
        """Whoever is in no group is gone."""
        person = self.people[name]
        if group in person.groups:
            person.groups.discard(group)
            if not person.groups:
                del self.people[name]

    def _GetPersonList(self, request: Any) -> Any:  # noqa: N802
        every = [
            {"PersonId": name, "PersonName": person.name, "FaceIds": list(person.faces)}
            for name, person in self.people.items()
            if request["GroupId"] in person.groups
        ]
        start, count = request.get("Offset", 0), request.get("Limit", 10)
        return {"PersonInfos": every[start : start + count], "PersonNum": len(every)}

    def _GetPersonBaseInfo(self, request: Any) -> Any:  # noqa: N802
        person = self._person(request)
        return {"PersonName": person.name, "FaceIds": list(person.faces)}

    def _CreatePerson(self, request: Any) -> Any:  # noqa: N802
        if request["GroupId"] not in self.groups:
            raise refuse("InvalidParameterValue.GroupIdNotExist")
        if request["PersonId"] in self.people:
            raise refuse("InvalidParameterValue.PersonIdAlreadyExist")
        face, seen = str(uuid.uuid4().int % 10**19), self._one(request, "Image", "Url")
        self.people[request["PersonId"]] = _Person(request["PersonName"], {request["GroupId"]}, {face: seen})
        return {"FaceId": face, "FaceModelVersion": "3.0", "SimilarPersonId": ""}

    def _CreateFace(self, request: Any) -> Any:  # noqa: N802
        person, codes, names = self._person(request), [], []
        for image in request["Images"]:
            seen = self._seen(image)
            codes.append(0 if seen else -1101)
            if seen:
                name = str(uuid.uuid4().int % 10**19)
                person.faces[name] = seen[0]
                names.append(name)
        return {"SucFaceNum": len(names), "SucFaceIds": names, "RetCode": codes}

    def _DeleteFace(self, request: Any) -> Any:  # noqa: N802
        person = self._person(request)
        gone = [name for name in request["FaceIds"] if name in person.faces]
        if len(gone) == len(person.faces):
            raise refuse("InvalidParameterValue.DeleteFaceNumExceed")
        for name in gone:
            del person.faces[name]
        return {"SucDeletedNum": len(gone), "SucFaceIds": gone}

    def _DeletePerson(self, request: Any) -> Any:  # noqa: N802
        self._person(request)
        del self.people[request["PersonId"]]
        return {}

    def _VerifyFace(self, request: Any) -> Any:  # noqa: N802
        person, probe = self._person(request), self._one(request, "Image", "Url")
        score = max(self._score(probe, seen) for seen in person.faces.values())
        return {"Score": score, "IsMatch": score >= THRESHOLD, "FaceModelVersion": "3.0"}

    _VerifyPerson = _VerifyFace

    def _SearchPersons(self, request: Any) -> Any:  # noqa: N802
        wanted, probe = set(request["GroupIds"]), self._one(request, "Image", "Url")
        found = [
            {"PersonId": name, "Score": max(self._score(probe, seen) for seen in person.faces.values())}
            for name, person in self.people.items()
            if wanted & person.groups
        ]
        found.sort(key=lambda candidate: -float(str(candidate["Score"])))
        count = request.get("MaxPersonNum", 5)
        return {"Results": [{"Candidates": found[:count], "RetCode": 0}], "FaceModelVersion": "3.0"}

    _SearchFaces = _SearchPersons

    def _CompareFace(self, request: Any) -> Any:  # noqa: N802
        one, other = self._one(request, "ImageA", "UrlA"), self._one(request, "ImageB", "UrlB")
        return {"Score": self._score(one, other), "FaceModelVersion": "3.0"}

    def _DetectFace(self, request: Any) -> Any:  # noqa: N802
        seen = self._seen(request["Image"])
        return {"ImageWidth": 0, "ImageHeight": 0, "FaceInfos": [{"X": 0, "Y": 0} for _ in seen]}

    def _one(self, request: Any, image: str, url: str) -> Seen:
        if url in request:  # alone, even where there is an image
            raise refuse("FailedOperation.ImageDownloadError")
        seen = self._seen(request[image])
        if not seen:
            raise refuse("InvalidParameterValue.NoFaceInPhoto")
        return seen[0]

    def _seen(self, text: str) -> list[Seen]:
        if len(text) > MAX_BASE64:
            raise refuse("FailedOperation.ImageSizeExceed")
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise refuse("FailedOperation.ImageDecodeFailed") from None
        seen = self.recognition.faces(data)
        if seen and not MIN_SIDE <= min(seen[0].size) <= max(seen[0].size) <= MAX_SIDE:
            raise refuse("FailedOperation.ImageResolutionExceed")
        return seen

    def _person(self, request: Any) -> _Person:
        if request["PersonId"] not in self.people:
            raise refuse("InvalidParameterValue.PersonIdNotExist")
        return self.people[request["PersonId"]]

    def _score(self, a: Seen, b: Seen) -> float:
        return self.recognition.score(a, b, THRESHOLD, 100.0)
