"""Errors as RFC 9457 problem documents, with what was wrong, where, and what to do."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.responses import Response

from anonymix_adapters.errors import BackEndError, BypassError, EnrolmentError, SubjectNeededError
from anonymix_keystore import (
    BusyError,
    InvalidRequestError,
    KeystoreError,
    LockedError,
    UnknownSubjectError,
)
from anonymix_plugin.errors import AnonymixError, ImageTooLargeError, PhotoError, UsageError
from anonymix_plugin.words import clean, shown

MEDIA_TYPE: Final = "application/problem+json"
HEADERS: Final = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
"""Of every answer."""

_TITLES: Final = {
    400: "The request is malformed",
    401: "Who calls is not known",
    403: "This is not allowed",
    404: "There is no such thing",
    405: "There is no such method here",
    408: "The request took too long",
    409: "The keys stand against it",
    411: "The length is missing",
    413: "The request is too large",
    415: "This encoding is not understood",
    422: "The photo or the request can't be used",
    429: "Too many requests",
    431: "The headers are too large",
    500: "Something went wrong that nobody foresaw",
    502: "The back end did not answer as it should",
    503: "The gateway can't take this now",
    504: "The back end took too long",
}

_FIXES: Final = {"unknown_subject": "enrol the subject first; without a subject the scope's gallery key is taken"}
"""What to do about errors that say it to whoever holds the keystore."""


class ProblemError(AnonymixError):
    """A request that gets a problem document as its answer; nothing of it was sent on.

    Args:
        what: What was wrong.
        status: HTTP status.
        code: Stable name.
        where: The field or route concerned.
        fix: What to do.
        retry_after: Seconds after which it may be tried again; None where that is no help.
        found: Of a list that leaves somebody out, all others, as JSON has them: whoever ignores the refusal can't
            take them for all.
    """

    code = "request"

    def __init__(
        self,
        what: str,
        *,
        status: int = 400,
        code: str = "request",
        where: str = "",
        fix: str = "",
        retry_after: int | None = None,
        found: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.status, self.code, self.retry_after, self.found = status, code, retry_after, found


def refused(what: str, *, where: str = "", fix: str = "", code: str = "refused") -> ProblemError:
    """A request that the gateway understands and does not pass on."""
    return ProblemError(status=403, what=what, where=where, fix=fix, code=code)


def malformed(what: str, *, where: str = "", fix: str = "") -> ProblemError:
    """A request that can't be understood."""
    return ProblemError(status=400, what=what, where=where, fix=fix, code="malformed")


def status_of(error: BaseException) -> int:  # noqa: PLR0911 - a table
    """The HTTP status of an error."""
    match error:
        case ProblemError():
            return error.status
        case ImageTooLargeError():
            return 413
        case PhotoError():
            return 422
        case BypassError() | SubjectNeededError():
            return 403
        case BackEndError() | EnrolmentError():
            return 502
        case UsageError() | InvalidRequestError():
            return 422
        case BusyError() | LockedError():
            return 503
        case UnknownSubjectError():
            return 404
        case KeystoreError():
            return 409
        case _:
            return 500


def problem(error: BaseException) -> dict[str, Any]:
    """The document of an error. Of one that nobody foresaw only the type is told."""
    status = status_of(error)
    if isinstance(error, AnonymixError | KeystoreError):
        code, what = error.code, clean(error.what)
        where, fix = shown(error.where) if error.where else "", _FIXES.get(code) or clean(error.fix)
    else:
        code, where = "internal", ""
        what, fix = f"something went wrong that nobody foresaw ({type(error).__name__})", "please report it"
    document: dict[str, Any] = {
        "type": f"urn:anonymix:problem:{code}",
        "title": _TITLES.get(status, "It was refused"),
        "status": status,
        "detail": what,
        "code": code,
    }
    if isinstance(error, ProblemError) and error.found is not None:
        document["found"] = error.found
    return document | ({"where": where} if where else {}) | ({"fix": fix} if fix else {})


def problem_response(error: BaseException, *, close: bool = False) -> Response:
    """An error as an answer.

    Args:
        error: The error.
        close: Whether the connection ends with it, because the rest of the request is not read.
    """
    document = problem(error)
    headers = dict(HEADERS)
    retry = getattr(error, "retry_after", None)
    if retry is not None or document["status"] == 503:
        headers["retry-after"] = str(retry or 2)
    if close or document["status"] in {408, 413}:
        headers["connection"] = "close"
    if document["status"] == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(json.dumps(document), document["status"], headers, MEDIA_TYPE)
