"""The page's routes: who may see what, what a form does, and what a browser is told."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jinja2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from anonymix_adapters.gateway.page._changes import ACTIONS, SHOWN, change, consequences, subject_now
from anonymix_adapters.gateway.page._directory import STATES, Asked, Directory
from anonymix_adapters.gateway.page._drills import MOST_PEOPLE, Drills, recognisers
from anonymix_adapters.gateway.page._figures import figures
from anonymix_adapters.gateway.page._preview import PageMixer, preview
from anonymix_adapters.gateway.page._sessions import HOURS, Session, Sessions, SignedOutError
from anonymix_adapters.gateway.problems import ProblemError, status_of
from anonymix_adapters.gateway.reading import form_of
from anonymix_adapters.gateway.workers import Workers
from anonymix_keystore import Keystore, KeystoreError, Verification
from anonymix_plugin.errors import AnonymixError, UsageError

if TYPE_CHECKING:
    from anonymix_adapters.gateway.app import Gateway

_COOKIE: Final = "anonymix-session"
_LINES: Final = 100
_STATIC: Final = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}

Handler = Callable[[Request], Awaitable[Response]]


class Page:
    """The page, under /page.

    Args:
        gateway: Its callers, queue and figures are used.
        mixer: Makes the cancelable faces that are shown; its keystore is what is looked after.
        scope: Scope that forms name first.
        secure: Whether cookies are for TLS alone.
        photos: Photos for drills, two a person; None for no drills.
        clock: Unix time in seconds, for the end of sessions.

    Raises:
        UsageError: The gateway has no tokens.
    """

    def __init__(
        self,
        gateway: Gateway,
        mixer: PageMixer,
        *,
        scope: str = "default",
        secure: bool = False,
        photos: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.gateway, self.mixer, self._secure = gateway, mixer, secure
        self._scope = "default" if "{" in scope else scope
        # A key service hands out keys and lists none: its keys are looked after where the store is.
        self._local = isinstance(mixer.keystore, Keystore)
        tokens = gateway.api_callers.tokens
        if tokens is None:
            raise UsageError(
                "nobody can sign in to a page without tokens", where="api_callers", fix="give Callers(Tokens)"
            )
        folder = tokens.path.with_name("gateway-page")
        self._sessions = Sessions(folder, tokens, clock)
        self._drills = Drills(folder, mixer, photos, lambda: gateway.workers.closing)
        self._directory = Directory(mixer)
        self._workers = Workers(2, 16)  # of its own: a full queue must not hide itself
        self._changing = asyncio.Lock()  # a form that is sent twice at once finds the records changed the second time
        self._verified: tuple[datetime, Verification] | None = None
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("anonymix_adapters.gateway.page"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        files = resources.files("anonymix_adapters.gateway.page") / "static"
        self._static = {name: files.joinpath(name).read_bytes() for name in _STATIC}

    def routes(self) -> list[BaseRoute]:
        """Its routes."""
        read: dict[str, Handler] = {
            "": self._overview,
            "/figures": self._figures,
            "/subjects": self._subjects,
            "/subjects/{reference}": self._subject,
            "/subjects/{reference}/{action}": self._plan,
            "/preview": self._preview_form,
            "/preview/{reference}": self._preview_form,
            "/drill": self._drill,
            "/drill/state": self._drill_state,
            "/audit": self._audit,
        }
        write: dict[str, Handler] = {
            "/in": self._sign_in,
            "/out": self._sign_out,
            "/subjects": self._search,
            "/subjects/{reference}/{action}": self._change,
            "/preview": self._preview,
            "/drill": self._start_drill,
            "/audit/verify": self._verify,
        }
        return [
            *(Route(f"/page/{name}", self._file) for name in _STATIC),
            *(Route(f"/page{path}", self._told(handler)) for path, handler in read.items()),
            *(Route(f"/page{path}", self._told(handler), methods=["POST"]) for path, handler in write.items()),
            Route("/page/{rest:path}", self._told(self._nothing), methods=["GET", "POST"]),
        ]

    # --- who --------------------------------------------------------------------------------------

    def _session(self, request: Request) -> Session:
        return self._sessions.of(request.cookies.get(_COOKIE, ""))

    def _administrator(self, request: Request) -> Session:
        session = self._session(request)
        _need(session.may_administer, "administer")
        return session

    def _keeper(self, request: Request) -> Session:
        """The session of an administrator, where the store is here."""
        session = self._administrator(request)
        self._need_store()
        return session

    def _need_store(self) -> None:
        if not self._local:
            raise ProblemError(
                "the keys come from a key service, which lists none",
                status=404,
                code="key_service",
                fix="look after them where the store is: with anonymix keys, or on the page of a gateway there",
            )

    def _auditor(self, request: Request) -> Session:
        session = self._session(request)
        _need(session.may_audit, "audit")
        self._need_store()
        return session

    async def _form(self, request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
        """The fields and files of a form of this very page.

        Raises:
            ProblemError: It came from another page.
        """
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
        if (origin is not None and urlsplit(origin).netloc != request.headers.get("host")) or site in _ELSEWHERE:
            raise _other_page()
        from anonymix_adapters.gateway.app import body_of

        with self.gateway.room.holding() as count:
            body = await body_of(request, self.gateway.limits, count)
            return form_of(replace(self.gateway.head(request), body=body))

    async def _own_form(self, request: Request, session: Session) -> tuple[dict[str, str], dict[str, bytes]]:
        """The fields and files of a form that this session was given."""
        fields, files = await self._form(request)
        if not session.carries(fields.get("csrf", ""), "form"):
            raise _other_page()
        return fields, files

    async def _sign_in(self, request: Request) -> Response:
        fields, _ = await self._form(request)
        self.gateway.rate.take(request.client.host if request.client else "")
        try:
            token = self.gateway.api_callers.of(fields.get("token", "").strip())
        except AnonymixError:
            self._log("/page/in", 401, "unauthorised")
            return self._page("sign_in.html", told="This token is not valid.", bad=True, status=401)
        if not token.may("administer") and not token.may_audit:
            self._log("/page/in", 403, "right", token.id)
            told = "This token has neither the right administer, nor audit for all scopes."
            return self._page("sign_in.html", told=told, bad=True, status=403)
        session = self._sessions.start(token)
        self._log("/page/in", 303, "", token.id)
        response = RedirectResponse("/page", 303)
        response.set_cookie(
            _COOKIE,
            session.secret,
            max_age=HOURS * 3600,
            path="/page",
            httponly=True,
            samesite="strict",
            # Behind a proxy that does TLS the browser's own origin says so.
            secure=self._secure or request.headers.get("origin", "").startswith("https://"),
        )
        return response

    async def _sign_out(self, request: Request) -> Response:
        session = self._session(request)
        await self._own_form(request, session)
        self._sessions.end(session)
        self._log("/page/out", 200, "", session.token.id)
        response = self._page("sign_in.html", told="You are signed out.")
        response.delete_cookie(_COOKIE, path="/page")
        return response

    # --- figures ----------------------------------------------------------------------------------

    async def _overview(self, request: Request) -> Response:
        session = self._session(request)
        return self._page("overview.html", session, figures=figures(self.gateway))

    async def _figures(self, request: Request) -> Response:
        self._session(request)
        return _json(figures(self.gateway))

    # --- subjects ---------------------------------------------------------------------------------

    async def _subjects(self, request: Request) -> Response:
        return await self._listed(self._keeper(request), Asked())

    async def _search(self, request: Request) -> Response:
        session = self._keeper(request)
        fields, _ = await self._own_form(request, session)
        page = fields.get("page", "1")
        asked = Asked(
            text=fields.get("text", "").strip(),
            scope=fields.get("scope", ""),
            state=fields.get("state", "") if fields.get("state") in STATES else "",
            due="due" in fields,
            page=int(page) if page.isascii() and page.isdecimal() and len(page) < 9 else 1,
        )
        return await self._listed(session, asked)

    async def _listed(self, session: Session, asked: Asked) -> Response:
        everything = not session.token.scopes
        found = await self._workers.run(partial(self._directory.find, asked, session.may, everything=everything))
        rows = [(row, session.reference(row.scope, row.subject)) for row in found.rows]
        return self._page("subjects.html", session, found=found, rows=rows, asked=asked, states=STATES)

    async def _subject(self, request: Request) -> Response:
        session = self._keeper(request)
        subject = await self._looked_up(request, session)
        return self._page(
            "subject.html",
            session,
            it=subject,
            reference=request.path_params["reference"],
            actions=ACTIONS,
            shown=SHOWN,
        )

    async def _looked_up(self, request: Request, session: Session) -> Any:
        scope, subject = session.referred(request.path_params["reference"])
        return await self._workers.run(partial(subject_now, self.mixer, subject, scope))

    async def _plan(self, request: Request) -> Response:
        session = self._keeper(request)
        return self._asked(request, session, await self._looked_up(request, session))

    def _asked(self, request: Request, session: Session, it: Any, told: str = "") -> Response:
        action, reference = request.path_params["action"], request.path_params["reference"]
        return self._page(
            "confirm.html",
            session,
            it=it,
            action=action,
            title=f"{ACTIONS.get(action, '')}: {it.title}",
            what=consequences(it, action),
            reference=reference,
            sure=session.seal(action, reference, it.stamp),
            told=told,
            bad=bool(told),
        )

    async def _change(self, request: Request) -> Response:
        session = self._keeper(request)
        fields, _ = await self._own_form(request, session)
        async with self._changing:
            return await self._changed(request, session, fields)

    async def _changed(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        it = await self._looked_up(request, session)
        action, reference = request.path_params["action"], request.path_params["reference"]
        if not session.carries(fields.get("sure", ""), action, reference, it.stamp):
            return self._asked(request, session, it, "The records have changed since. This is what will follow now.")
        if consequences(it, action).undone and "understood" not in fields:
            return self._asked(request, session, it, "Say first that you know what can't be undone.")
        done = await self._workers.run(partial(change, self.mixer, it, action, session.token.id))
        self._directory.changed()
        self._log(f"/page/{action}", 200, "", session.token.id)
        return self._page("done.html", session, it=it, done=done, reference=reference, title=f"{ACTIONS[action]}: done")

    # --- preview ----------------------------------------------------------------------------------

    async def _preview_form(self, request: Request) -> Response:
        session = self._keeper(request)
        reference = request.path_params.get("reference", "")
        scope, subject = session.referred(reference) if reference else (self._scope, "")
        return await self._previewed(session, subject, scope)

    async def _preview(self, request: Request) -> Response:
        session = self._keeper(request)
        fields, files = await self._own_form(request, session)
        subject, scope = fields.get("subject", "").strip(), fields.get("scope", "")
        if not session.may(scope):
            raise ProblemError("this token is for other scopes", status=403, code="scope")
        work = partial(preview, self.mixer, files.get("photo", b""), subject, scope)
        try:
            made = await self.gateway.workers.run(work)
        except (AnonymixError, KeystoreError) as error:
            return await self._previewed(
                session, subject, scope, told=str(error).removeprefix("<bytes>: "), bad=True, status=status_of(error)
            )
        return await self._previewed(session, subject, scope, made=made)

    async def _previewed(self, session: Session, subject: str, scope: str, **more: Any) -> Response:
        known = await self._workers.run(self.mixer.keystore.scopes)
        scopes = sorted({name for name in (*known, self._scope, scope, *session.token.scopes) if session.may(name)})
        values = {"made": None} | more
        return self._page("preview.html", session, subject=subject, scope=scope, scopes=scopes, **values)

    # --- drill ------------------------------------------------------------------------------------

    async def _drill(self, request: Request) -> Response:
        return await self._drilled(self._administrator(request))

    async def _drilled(self, session: Session, **more: Any) -> Response:
        state, names = await self._workers.run(lambda: (self._drills.state(), recognisers()))
        ready = self._drills.photos is not None
        return self._page("drill.html", session, state=state, names=names, ready=ready, most=MOST_PEOPLE, **more)

    async def _start_drill(self, request: Request) -> Response:
        session = self._administrator(request)
        fields, _ = await self._own_form(request, session)
        people = fields.get("people", "")
        count = int(people) if people.isascii() and people.isdecimal() and len(people) < 4 else 0
        try:
            await self._workers.run(partial(self._drills.start, fields.get("recogniser", ""), count))
        except AnonymixError as error:
            return await self._drilled(session, told=str(error), bad=True, status=status_of(error))
        self._log("/page/drill", 303, "", session.token.id)
        return RedirectResponse("/page/drill", 303)

    async def _drill_state(self, request: Request) -> Response:
        self._administrator(request)
        state = await self._workers.run(self._drills.state)
        return _json({name: state.get(name) for name in ("running", "step", "share")})

    # --- audit ------------------------------------------------------------------------------------

    async def _audit(self, request: Request) -> Response:
        before = request.query_params.get("before", "")
        end = int(before) if before.isascii() and before.isdecimal() and len(before) < 16 else None
        return await self._audited(self._auditor(request), end)

    async def _verify(self, request: Request) -> Response:
        session = self._auditor(request)
        await self._own_form(request, session)
        found = await self._workers.run(self.mixer.keystore.verify)
        self._verified = datetime.now(UTC), found
        self._log("/page/audit/verify", 200, "" if found.ok else "damaged", session.token.id)
        return await self._audited(session, None)

    async def _audited(self, session: Session, before: int | None) -> Response:
        def look() -> tuple[int, list[dict[str, Any]]]:
            epoch = self.mixer.keystore.epoch
            end = epoch if before is None else min(before - 1, epoch)
            start = max(0, end - _LINES)
            return epoch, list(islice(self.mixer.keystore.audit(start), max(0, end - start)))[::-1]

        told, epoch, lines = "", 0, list[dict[str, Any]]()
        try:
            epoch, lines = await self._workers.run(look)
        except KeystoreError as error:  # a line does not open; the verification says which is the first
            told = str(error)
        rows = [_line(each) for each in lines]
        older = lines[-1]["seq"] if lines and lines[-1]["seq"] > 1 else None
        return self._page(
            "audit.html",
            session,
            told=told,
            bad=bool(told),
            verified=self._verified,
            rows=rows,
            epoch=epoch,
            older=older,
            newer=before is not None,
        )

    # --- how --------------------------------------------------------------------------------------

    async def _nothing(self, request: Request) -> Response:
        self._session(request)
        raise ProblemError("there is no such page", status=404, code="unknown_route", fix="use the links above")

    async def _file(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return Response(self._static[name], headers=_HEADERS, media_type=_STATIC[name])

    def _told(self, handler: Handler) -> Handler:
        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except SignedOutError as error:
                status = 200 if request.method == "GET" and not _wants_json(request) else 401
                told = f"Your session has ended: after {HOURS} hours, by signing out, or because its token was revoked."
                response = self._page("sign_in.html", told=told if error.ended else "", bad=error.ended, status=status)
                if error.ended and not _wants_json(request):  # the page that asks for figures is loaded again, and told
                    response.delete_cookie(_COOKIE, path="/page")
                return response
            except ClientDisconnect:
                return Response(status_code=499)
            except (AnonymixError, KeystoreError) as error:
                return self._page(
                    "message.html", self._maybe(request), told=str(error), bad=True, status=status_of(error)
                )

        return answered

    def _maybe(self, request: Request) -> Session | None:
        try:
            return self._session(request)
        except SignedOutError:
            return None

    def _log(self, call: str, status: int, problem: str, token: str = "") -> None:
        self.gateway.told(call, status, problem, token, 0.0)

    def _page(self, name: str, session: Session | None = None, *, status: int = 200, **values: Any) -> Response:
        nonce = secrets.token_urlsafe(16)
        defaults = {"told": "", "bad": False, "title": "", "local": self._local}
        text = self._templates.get_template(name).render(session=session, nonce=nonce, **(defaults | values))
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self';"
            " img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none';"
            " require-trusted-types-for 'script'"
        )
        headers = {**_HEADERS, "content-security-policy": policy, "cross-origin-opener-policy": "same-origin"}
        return Response(text, status, headers, "text/html; charset=utf-8")


_ELSEWHERE: Final = {"cross-site", "same-site"}
_HEADERS: Final = {
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}


def _other_page() -> ProblemError:
    return ProblemError("the form came from another page", status=403, code="csrf", fix="load the page anew")


def _need(may: bool, right: str) -> None:
    if not may:
        raise ProblemError(f"this token lacks the right {right}", status=403, code="right", fix="sign in with another")


def _wants_json(request: Request) -> bool:
    return request.url.path in {"/page/figures", "/page/drill/state"}


def _json(content: dict[str, Any]) -> Response:
    return JSONResponse(content, headers=_HEADERS)


def _line(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the trail for a table."""
    keys = line.get("keys") or []
    moves = [" to ".join(str(each) for each in dict.fromkeys((before, after)) if each) for _, before, after in keys[:1]]
    return {
        "seq": line["seq"],
        "time": datetime.fromtimestamp(line["time"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "action": line["action"],
        "versions": f"{len(keys):,} keys" if len(keys) > 1 else "".join(moves),
        "actor": line["actor"],
        "reason": line.get("reason", ""),
    }
