"""Who is signed in: a file that the workers of one gateway share, which holds no secret."""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from anonymix_adapters.gateway.problems import ProblemError
from anonymix_adapters.gateway.tokens import Token, Tokens
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.files import make_folder, write_text

HOURS: Final = 8
_MOST: Final = 1000


class SignedOutError(Exception):
    """Nobody is signed in.

    Args:
        ended: Whether somebody was: the session ran out, or its token was revoked.
    """

    def __init__(self, *, ended: bool) -> None:
        super().__init__("the session has ended" if ended else "nobody is signed in")
        self.ended = ended


@dataclass(frozen=True)
class Session:
    """Somebody who is signed in.

    Attributes:
        token: The token that was shown.
        secret: What the browser's cookie holds.
    """

    token: Token
    secret: str = field(repr=False)

    @property
    def may_administer(self) -> bool:
        """Whether keys of some scope may be seen and changed."""
        return self.token.may("administer")

    @property
    def may_audit(self) -> bool:
        """Whether the audit trail may be read."""
        return self.token.may_audit

    def may(self, scope: str) -> bool:
        """Whether the keys of a scope may be seen and changed."""
        return self.token.may("administer", scope)

    @property
    def csrf(self) -> str:
        """What forms of this session carry; pages of other sites can't know it."""
        return self.seal("form")

    def seal(self, *facts: object) -> str:
        """A code over facts that only this session can make."""
        return hmac.new(self.secret.encode(), json.dumps(facts).encode(), "sha256").hexdigest()

    def carries(self, given: str, *facts: object) -> bool:
        """Whether a form carries the code over these facts."""
        return hmac.compare_digest(given.encode(), self.seal(*facts).encode())

    def reference(self, scope: str, subject: str) -> str:
        """A name for an address: the subject, encrypted for this session, so that no history or log has it."""
        sealed = self._cipher().encrypt(json.dumps([scope, subject]).encode(), [b"subject"])
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def referred(self, reference: str) -> tuple[str, str]:
        """The scope and the subject of such a name.

        Raises:
            ProblemError: It is of another session, or the token is for other scopes.
        """
        try:
            sealed = base64.urlsafe_b64decode(reference + "=" * (-len(reference) % 4))
            scope, subject = json.loads(self._cipher().decrypt(sealed, [b"subject"]))
        except (binascii.Error, ValueError, InvalidTag):
            raise ProblemError(
                "this address is of an earlier session", status=404, code="address", fix="find the subject in the list"
            ) from None
        if not self.may(scope):
            raise ProblemError("this token is for other scopes", status=403, code="scope")
        return scope, subject

    def _cipher(self) -> AESSIV:
        return AESSIV(hashlib.sha512(b"anonymix page addresses " + self.secret.encode()).digest())


class Sessions:
    """The sessions of a gateway.

    The file has the SHA-256 of each cookie, the token's id and the end. It lies where all workers see it, so
    that signing out counts for all of them.

    Args:
        folder: Where the file is; made when somebody signs in.
        tokens: The tokens that are good.
        clock: Unix time in seconds.
    """

    def __init__(self, folder: Path, tokens: Tokens, clock: Callable[[], float] = time.time) -> None:
        self._path, self._tokens, self._clock = folder / "sessions.json", tokens, clock

    def start(self, token: Token) -> Session:
        """Sign somebody in."""
        made = Session(token, secrets.token_urlsafe(32))
        with self._changing() as known:
            known[_digest(made.secret)] = (token.id, self._clock() + HOURS * 3600)
        return made

    def of(self, secret: str) -> Session:
        """The session of a cookie.

        Raises:
            SignedOutError: There is none, or it has ended.
        """
        if not secret:
            raise SignedOutError(ended=False)
        token_id, end = self._known().get(_digest(secret), ("", 0.0))
        if end <= self._clock():
            raise SignedOutError(ended=True)
        try:
            for token in self._tokens.all():
                if token.id == token_id and self._tokens.knows(token):
                    return Session(token, secret)
        except AnonymixError:  # the file of tokens is damaged: nobody gets in
            pass
        raise SignedOutError(ended=True)

    def end(self, session: Session) -> None:
        """Sign somebody out."""
        with self._changing() as known:
            known.pop(_digest(session.secret), None)

    def _known(self) -> dict[str, tuple[str, float]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(digest): (str(token), float(end)) for digest, (token, end) in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError):  # damaged: everybody signs in again
            return {}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, tuple[str, float]]]:
        make_folder(self._path.parent)
        self._path.parent.chmod(0o700)
        lock = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            now = self._clock()
            known = {digest: one for digest, one in self._known().items() if one[1] > now}
            yield known
            latest = sorted(known.items(), key=lambda each: each[1][1])[-_MOST:]
            write_text(self._path, json.dumps(dict(latest)))
        finally:
            os.close(lock)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
