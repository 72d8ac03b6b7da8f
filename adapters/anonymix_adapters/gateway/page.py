"""The page for those who look after a gateway: rendered here, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jinja2
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from anonymix_adapters.gateway.problems import ProblemError
from anonymix_adapters.gateway.reading import form_of
from anonymix_adapters.gateway.tokens import Token
from anonymix_adapters.interceptor import FaceMixer
from anonymix_keystore import KeystoreError
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.images import encode_cancelable

if TYPE_CHECKING:
    from anonymix_adapters.gateway.app import Gateway

_COOKIE: Final = "anonymix-session"
_HOURS: Final = 8
_SESSIONS: Final = 100
_ROWS: Final = 500
_ACTIONS: Final = {
    "rotate": "Rotate: a new key, the old one for probes for 30 days",
    "breach": "Rotate after a breach: the old key is erased at once",
    "revoke": "Revoke: no key any more",
    "forget": "Forget: erase all that is known of the person",
}


@dataclass
class _Session:
    token: Token
    scope: str
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    end: float = field(default_factory=lambda: time.monotonic() + _HOURS * 3600)

    @property
    def may_administer(self) -> bool:
        return self.token.may("administer", self.scope)

    @property
    def may_audit(self) -> bool:
        return self.token.may_audit


class Page:
    """The page, under /page.

    Args:
        gateway: Its callers, queue and figures are used.
        mixer: Makes the cancelable face that is shown.
        scope: Scope whose keys are shown.
        secure: Whether cookies are for TLS alone.
    """

    def __init__(self, gateway: Gateway, mixer: FaceMixer, *, scope: str = "default", secure: bool = False) -> None:
        self.gateway, self.mixer, self._scope, self._secure = gateway, mixer, scope, secure
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._pages = jinja2.Environment(
            loader=jinja2.PackageLoader("anonymix_adapters.gateway"),
            autoescape=True,
            undefined=jinja2.ChainableUndefined,
        )

    def routes(self) -> list[BaseRoute]:
        """Its routes."""
        return [
            Route("/page", self._told(self._keys)),
            Route("/page/audit", self._told(self._audit)),
            Route("/page/in", self._told(self._sign_in), methods=["POST"]),
            Route("/page/out", self._told(self._sign_out), methods=["POST"]),
            Route("/page/try", self._told(self._try), methods=["POST"]),
            Route("/page/change", self._told(self._change), methods=["POST"]),
        ]

    # --- who --------------------------------------------------------------------------------------

    def _session(self, request: Request) -> _Session:
        name = request.cookies.get(_COOKIE, "")
        session = self._sessions.get(name)
        if session is None or session.end < time.monotonic():
            raise _SignedOutError
        try:
            known = self.gateway.api_callers.tokens
            if known is None or not known.knows(session.token):
                raise _SignedOutError  # the token was revoked meanwhile
        except AnonymixError:
            raise _SignedOutError from None
        return session

    async def _form(self, request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
        """The fields and files of a form of this very page.

        Raises:
            ProblemError: It came from another page.
        """
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise ProblemError("the form came from another page", status=403, code="csrf")
        from anonymix_adapters.gateway.app import body_of

        with self.gateway.room.holding() as count:
            body = await body_of(request, self.gateway.limits, count)
            return form_of(replace(self.gateway.head(request), body=body))

    async def _own_form(self, request: Request) -> tuple[_Session, dict[str, str], dict[str, bytes]]:
        session = self._session(request)
        fields, files = await self._form(request)
        if not hmac.compare_digest(fields.get("csrf", "").encode(), session.csrf.encode()):
            raise ProblemError("the form came from another page", status=403, code="csrf", fix="load the page anew")
        return session, fields, files

    async def _sign_in(self, request: Request) -> Response:
        fields, _ = await self._form(request)
        self.gateway.rate.take(request.client.host if request.client else "")
        try:
            token = self.gateway.api_callers.of(fields.get("token", ""))
        except AnonymixError as error:
            return self._page("sign_in.html", None, title="Sign in", told=error.what, bad=True, status=401)
        session = _Session(token, self._scope)
        if not session.may_administer and not session.may_audit:
            told = f"this token has neither the right administer for the scope {self._scope} nor audit for all scopes"
            return self._page("sign_in.html", None, title="Sign in", told=told, bad=True, status=403)
        name = secrets.token_urlsafe(32)
        self._sessions[name] = session
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        response = RedirectResponse("/page" if session.may_administer else "/page/audit", 303)
        response.set_cookie(
            _COOKIE, name, max_age=_HOURS * 3600, path="/page", httponly=True, samesite="strict", secure=self._secure
        )
        return response

    async def _sign_out(self, request: Request) -> Response:
        await self._own_form(request)
        self._sessions.pop(request.cookies.get(_COOKIE, ""), None)
        response = RedirectResponse("/page", 303)
        response.delete_cookie(_COOKIE, path="/page")
        return response

    # --- what -------------------------------------------------------------------------------------

    async def _keys(self, request: Request) -> Response:
        return await self._shown(self._session(request))

    async def _shown(self, session: _Session, **more: Any) -> Response:
        rows = await self.gateway.workers.run(self._rows) if session.may_administer else []
        return self._page(
            "keys.html",
            session,
            **{
                "title": "Faces and keys",
                "rows": rows,
                "scope": self._scope,
                "actions": _ACTIONS,
                "figures": self.gateway.metrics.figures(),
                "asked": {"subject": "", "action": "rotate"},
            }
            | more,
        )

    def _rows(self) -> list[dict[str, Any]]:
        keystore = self.mixer.keystore
        entries: dict[str, list[Any]] = {}
        for item in keystore.enrolments(self._scope):
            entries.setdefault("" if item.gallery else item.subject, []).append(item)
        return [
            {
                "subject": key.subject,
                "version": key.version,
                "state": key.state.value,
                "entries": len(mine := entries.get(key.subject, [])),
                "due": sum(item.delete or item.enrol for item in mine),
            }
            for key in islice(keystore.list(self._scope), _ROWS)
        ]

    async def _try(self, request: Request) -> Response:
        session, fields, files = await self._own_form(request)
        self._may(session.may_administer, "administer")
        photo, subject = files.get("photo", b""), fields.get("subject", "") or None
        protect = partial(self.mixer.protect, photo, subject=subject, scope=self._scope)
        try:
            face = await self.gateway.workers.run(protect)
        except (AnonymixError, KeystoreError) as error:
            return await self._shown(session, told=str(error), bad=True)
        picture = base64.b64encode(encode_cancelable(face, "JPEG")).decode()
        return await self._shown(session, picture=picture, version=face.key_version)

    async def _change(self, request: Request) -> Response:
        session, fields, _ = await self._own_form(request)
        self._may(session.may_administer, "administer")
        action, subject = fields.get("action", ""), fields.get("subject", "")
        if action not in _ACTIONS or (action == "forget" and not subject):
            return await self._shown(session, told="name the person who is to be forgotten", bad=True)
        asked = {"subject": subject, "action": action}
        if not hmac.compare_digest(fields.get("sure", "").encode(), f"{action} {subject}".encode()):
            return await self._shown(session, asked=asked, follows=await self._follows(action, subject))
        try:
            told = await self.gateway.workers.run(partial(self._done, action, subject, session.token.id))
        except (AnonymixError, KeystoreError) as error:
            return await self._shown(session, asked=asked, told=str(error), bad=True)
        return await self._shown(session, told=told)

    async def _follows(self, action: str, subject: str) -> str:
        rows = await self.gateway.workers.run(self._rows)
        entries = max((row["entries"] for row in rows if row["subject"] == subject), default=0)
        whose = subject or "the gallery key"
        work = "to delete; the people are to be enrolled anew" if action in {"rotate", "breach"} else "to delete"
        return f"{_ACTIONS[action]}. It is about {whose}. Entries in back ends that are then {work}: {entries}."

    def _done(self, action: str, subject: str, token: str) -> str:
        keystore, scope = self.mixer.keystore, self._scope
        reason = "breach" if action == "breach" else f"on the page (token {token})"
        if action == "forget":
            receipt = keystore.forget(subject, scope, reason=reason)
            return f"Forgotten: {receipt.keys} keys. {len(receipt.entries)} entries are still in back ends."
        if action == "revoke":
            revoke = partial(keystore.revoke, subject) if subject else keystore.revoke_gallery
            return f"Revoked: {len(revoke(scope, reason=reason))} versions."
        rotate = partial(keystore.rotate, subject) if subject else keystore.rotate_gallery
        made = rotate(scope, reason=reason)
        return f"Rotated: version {made.version} counts from now on."

    async def _audit(self, request: Request) -> Response:
        session = self._session(request)
        self._may(session.may_audit, "audit")
        keystore = self.mixer.keystore

        def look() -> tuple[Any, list[dict[str, Any]]]:
            return keystore.verify(), list(keystore.audit(max(0, keystore.epoch - _ROWS)))

        found, lines = await self.gateway.workers.run(look)
        shown = [
            {
                "time": datetime.fromtimestamp(line["time"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
                "action": line["action"],
                "actor": line["actor"],
                "reason": line.get("reason", ""),
            }
            for line in reversed(lines)
        ]
        return self._page(
            "audit.html",
            session,
            title="Audit trail",
            lines=shown,
            lines_checked=found.lines,
            keys_checked=found.keys,
            findings="; ".join(each.what for each in found.findings),
        )

    # --- how --------------------------------------------------------------------------------------

    def _may(self, may: bool, right: str) -> None:
        if not may:
            raise ProblemError(f"this token lacks the right {right}", status=403, code="right")

    def _told(self, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answered(request: Request) -> Response:
            try:
                made: Response = await handler(request)
            except _SignedOutError:
                return self._page("sign_in.html", None, title="Sign in", status=200 if request.method == "GET" else 401)
            except (AnonymixError, KeystoreError) as error:
                status = getattr(error, "status", 400)
                return self._page(
                    "page.html", None, title="This did not work", told=str(error), bad=True, status=status
                )
            return made

        return answered

    def _page(self, name: str, session: _Session | None, *, status: int = 200, **values: Any) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = self._pages.get_template(name).render(session=session, nonce=nonce, **values)
        policy = f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; base-uri 'none'"
        headers = {
            "content-security-policy": f"{policy}; frame-ancestors 'none'",
            "referrer-policy": "same-origin",
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
        }
        return Response(text, status, headers, "text/html; charset=utf-8")


class _SignedOutError(Exception):
    """Nobody is signed in."""
