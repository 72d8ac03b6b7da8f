"""Face++ v3: forms, multipart where files come along; errors as {"error_message": ...}.

Source: the Face++ console's API documents (Detect, Compare, Search, FaceSet, Face).
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, field
from typing import Any

from servers._recognition import Recognition, Seen
from servers._service import Answer, LocalService, Received, Refusal

KEY, SECRET_KEY = "facepp-key", "facepp-secret-not-real"
MAX_BYTES, MIN_SIDE, MAX_SIDE, MIN_FACE = 2 * 1024 * 1024, 48, 4096, 150
PAGE = 100
THRESHOLDS = {"1e-3": 62.327, "1e-4": 69.101, "1e-5": 73.975}


def _refuse(status: int, message: str) -> Refusal:
    return Refusal(status, {"error_message": message, "request_id": "0", "time_used": 1})


@dataclass
class _Face:
    seen: Seen
    user: str = ""


@dataclass
class _Set:
    tokens: list[str] = field(default_factory=list)


class FacePlusPlusService(LocalService):
    """Detect, compare, search, face sets and faces."""

    prefix = "/facepp/v3/"

    def __init__(self, recognition: Recognition) -> None:
        super().__init__(recognition)
        self.faces: dict[str, _Face] = {}
        self.sets: dict[str, _Set] = {}

    def answer(self, received: Received) -> Answer:
        """See `LocalService.answer`."""
        fields, files = received.form()
        if (fields.pop("api_key", ""), fields.pop("api_secret", "")) != (KEY, SECRET_KEY):
            raise _refuse(401, "AUTHENTICATION_ERROR")
        name = received.path.removeprefix(self.prefix).replace("/", "_")
        handler = getattr(self, f"_{name}", None)
        if received.method != "POST" or handler is None:
            raise _refuse(404, "API_NOT_FOUND")
        return Answer({"request_id": "0", "time_used": 1, **handler(fields, files)})

    def _detect(self, fields: dict[str, str], files: dict[str, list[bytes]]) -> dict[str, Any]:
        seen = self._photo(fields, files, "")
        return {"image_id": "0", "face_num": len(seen), "faces": [self._token(face) for face in seen]}

    def _compare(self, fields: dict[str, str], files: dict[str, list[bytes]]) -> dict[str, Any]:
        answer: dict[str, Any] = {"thresholds": THRESHOLDS}
        sides = []
        for number in ("1", "2"):
            token = fields.get(f"face_token{number}")  # comes before files, files before addresses
            if token is not None:
                sides.append(self._known(token).seen)
                continue
            seen = self._photo(fields, files, number)
            answer[f"faces{number}"] = [self._token(face) for face in seen]
            sides += seen[:1]
        if len(sides) == 2:
            answer["confidence"] = self._score(*sides)
        return answer

    def _search(self, fields: dict[str, str], files: dict[str, list[bytes]]) -> dict[str, Any]:
        held = self._set(fields)
        answer: dict[str, Any] = {"thresholds": THRESHOLDS}
        if "face_token" in fields:
            probe = self._known(fields["face_token"]).seen
        else:
            seen = self._photo(fields, files, "")
            answer["faces"] = [self._token(face) for face in seen]
            if not seen:
                return answer
            probe = seen[0]
        if not held.tokens:
            raise _refuse(400, "EMPTY_FACESET")
        results = [
            {"face_token": token, "confidence": self._score(probe, face.seen), "user_id": face.user}
            for token, face in ((token, self.faces[token]) for token in held.tokens)
        ]
        results.sort(key=lambda match: -float(str(match["confidence"])))
        return answer | {"results": results[: int(fields.get("return_result_count", "1"))]}

    def _faceset_create(self, fields: dict[str, str], _: Any) -> dict[str, Any]:
        if fields["outer_id"] in self.sets:
            raise _refuse(400, "FACESET_EXIST")
        self.sets[fields["outer_id"]] = _Set()
        return {"faceset_token": uuid.uuid4().hex, "outer_id": fields["outer_id"], "face_count": 0}

    def _faceset_addface(self, fields: dict[str, str], _: Any) -> dict[str, Any]:
        held, failed, added = self._set(fields), [], 0
        for token in fields["face_tokens"].split(","):
            if token not in self.faces:
                failed.append({"face_token": token, "reason": "INVALID_FACE_TOKEN"})
            elif token not in held.tokens:
                held.tokens.append(token)
                added += 1
        return {"face_added": added, "face_count": len(held.tokens), "failure_detail": failed}

    def _faceset_removeface(self, fields: dict[str, str], _: Any) -> dict[str, Any]:
        held, failed, removed = self._set(fields), [], 0
        tokens = fields["face_tokens"].split(",")
        for token in held.tokens[:] if tokens == ["RemoveAllFaceTokens"] else tokens:
            if token in held.tokens:
                held.tokens.remove(token)
                removed += 1
            else:
                failed.append({"face_token": token, "reason": "FACE_NOT_IN_FACESET"})
        return {"face_removed": removed, "face_count": len(held.tokens), "failure_detail": failed}

    def _faceset_delete(self, fields: dict[str, str], _: Any) -> dict[str, Any]:
        if self._set(fields).tokens and fields.get("check_empty", "1") == "1":
            raise _refuse(400, "FACESET_NOT_EMPTY")
        del self.sets[fields["outer_id"]]
        return {"outer_id": fields["outer_id"]}

    def _faceset_getdetail(self, fields: dict[str, str], _: Any) -> dict[str, Any]:
        tokens, start = self._set(fields).tokens, int(fields.get("start", "1")) - 1
        page = {"outer_id": fields["outer_id"], "face_tokens": tokens[start : start + PAGE]}
        more = {"next": start + PAGE + 1} if start + PAGE < len(tokens) else {}
        return page | more | {"face_count": len(tokens)}

    def _face_setuserid(self, fields: dict[str, str], _: Any) -> dict[str, Any]:
        self._known(fields["face_token"]).user = fields["user_id"]
        return {"face_token": fields["face_token"], "user_id": fields["user_id"]}

    def _face_getdetail(self, fields: dict[str, str], _: Any) -> dict[str, Any]:
        return {"face_token": fields["face_token"], "user_id": self._known(fields["face_token"]).user}

    def _photo(self, fields: dict[str, str], files: dict[str, list[bytes]], number: str) -> list[Seen]:
        if f"image_file{number}" in files:
            data = files[f"image_file{number}"][0]
        elif f"image_base64_{number}".rstrip("_") in fields:
            data = base64.b64decode(fields[f"image_base64_{number}".rstrip("_")])
        elif f"image_url{number}" in fields:
            raise _refuse(412, f"IMAGE_DOWNLOAD_TIMEOUT: image_url{number}")
        else:
            raise _refuse(400, f"MISSING_ARGUMENTS: image_url{number}, image_file{number}, face_token{number}")
        if len(data) > MAX_BYTES:
            raise _refuse(400, f"IMAGE_FILE_TOO_LARGE: image_file{number}")
        seen = self.recognition.faces(data)
        if seen and not all(MIN_SIDE <= side <= MAX_SIDE for side in seen[0].size):
            raise _refuse(400, f"INVALID_IMAGE_SIZE: image_file{number}")
        # Smaller faces are found, but neither compared nor searched for.
        return [face for face in seen if face.box[2] - face.box[0] >= MIN_FACE]

    def _token(self, seen: Seen) -> dict[str, Any]:
        token = uuid.uuid4().hex
        self.faces[token] = _Face(seen)
        box = seen.rectangle()
        return {"face_token": token, "face_rectangle": box}

    def _known(self, token: str) -> _Face:
        if token not in self.faces:
            raise _refuse(400, "INVALID_FACE_TOKEN: face_token")
        return self.faces[token]

    def _set(self, fields: dict[str, str]) -> _Set:
        if fields.get("outer_id", "") not in self.sets:
            raise _refuse(400, "INVALID_OUTER_ID")
        return self.sets[fields["outer_id"]]

    def _score(self, a: Seen, b: Seen) -> float:
        return self.recognition.score(a, b, THRESHOLDS["1e-3"], 100.0)
