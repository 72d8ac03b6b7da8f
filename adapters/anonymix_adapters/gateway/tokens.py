"""API tokens: made and revoked by command, kept as hashes in one file of the owner's."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from anonymix_plugin.errors import ConfigurationError, UsageError
from anonymix_plugin.files import write_text

RIGHTS: Final = ("probe", "enrol", "name", "administer", "audit")
"""probe: compare, search and ask. enrol: enrol, change and delete. name: say whose face it is by the header
Anonymix-Subject. administer: rotate, revoke, forget. audit: read the audit trail."""

PREFIX: Final = "anx_"
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class Token:
    """What is kept of a token; not the token.

    Attributes:
        id: Its public name, 8 hex digits.
        note: What the maker says it is for.
        rights: Of `RIGHTS`.
        scopes: Scopes of keys that it is for; empty for all.
        digest: SHA-256 of the token, hex. Tokens are 256 random bits, so that no slow hash is needed.
        created: ISO 8601, UTC.
        until: When it ends; "" for never.
    """

    id: str
    note: str
    rights: tuple[str, ...]
    scopes: tuple[str, ...]
    digest: str
    created: str
    until: str = ""

    @property
    def ended(self) -> bool:
        """Whether its date has passed."""
        return bool(self.until) and datetime.fromisoformat(self.until) <= datetime.now(UTC)

    def may(self, right: str, scope: str | None = None) -> bool:
        """Whether it has a right, for a scope where one is meant."""
        return right in self.rights and (scope is None or not self.scopes or scope in self.scopes)

    @property
    def may_audit(self) -> bool:
        """Whether it may read the audit trail. The trail is of all scopes, and so must the token be."""
        return self.may("audit") and not self.scopes


class Tokens:
    """The tokens of a gateway, in a JSON file that only its owner can read.

    Args:
        path: The file; a missing one holds no token.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[float, int, int] | None = None
        self._known: dict[str, Token] = {}

    def create(
        self,
        rights: Sequence[str],
        *,
        note: str = "",
        scopes: Sequence[str] = (),
        lifetime: timedelta | None = None,
    ) -> tuple[str, Token]:
        """Make a token; it is returned this once, and never again.

        Raises:
            UsageError: There is no such right, or a scope can have no such name.
        """
        unknown = sorted(set(rights) - set(RIGHTS))
        if unknown or not rights:
            raise UsageError("there is no such right", where=", ".join(unknown), fix=f"use {', '.join(RIGHTS)}")
        if not all(scope and scope.isprintable() and scope == scope.strip() for scope in scopes):
            fix = "name scopes as keys have them; leave the option out for a token of all scopes"
            raise UsageError("no scope has such a name", where="scope", fix=fix)
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        now = datetime.now(UTC).replace(microsecond=0)
        made = Token(
            secrets.token_hex(4),
            note[:100],
            tuple(dict.fromkeys(rights)),
            tuple(dict.fromkeys(scopes)),
            _digest(secret),
            now.isoformat(),
            (now + lifetime).isoformat() if lifetime is not None else "",
        )
        with self._locked():
            self._write([*self.all(), made])
        return secret, made

    def revoke(self, token_id: str) -> None:
        """End a token at once.

        Raises:
            UsageError: There is none of that id.
        """
        with self._locked():
            left = [each for each in self.all() if each.id != token_id]
            if len(left) == len(self.all()):
                raise UsageError("there is no such token", where=token_id, fix="anonymix gateway tokens list")
            self._write(left)

    def all(self) -> list[Token]:
        """All tokens, the oldest first. A file that changed is read again."""
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._known, self._seen = {}, None
            return []
        seen = (state.st_mtime_ns, state.st_size, state.st_ino)
        if seen != self._seen:
            if os.name == "posix" and state.st_mode & 0o077:
                raise ConfigurationError(
                    "the file of tokens can be read by others", where=str(self.path), fix="chmod 600"
                )
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                tokens = [_token(each) for each in content["tokens"]]
            except (ValueError, KeyError, TypeError, OSError):
                raise ConfigurationError(
                    "the file of tokens is damaged",
                    where=str(self.path),
                    fix="remove it, and make tokens again",
                ) from None
            self._known, self._seen = {each.digest: each for each in tokens}, seen
        return list(self._known.values())

    def find(self, secret: str) -> Token | None:
        """The token that a caller shows; None for one that is unknown, revoked or past its date."""
        digest = _digest(secret)
        for each in self.all():
            if hmac.compare_digest(each.digest, digest):
                return None if each.ended else each
        return None

    def knows(self, token: Token) -> bool:
        """Whether a token that was found before is still good: neither revoked nor past its date."""
        return any(each.id == token.id and not each.ended for each in self.all())

    def _write(self, tokens: Sequence[Token]) -> None:
        content = json.dumps({"tokens": [asdict(each) for each in tokens]}, indent=1)
        write_text(self.path, content + "\n")
        self.path.chmod(0o600)
        self._seen = None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _token(value: dict[str, Any]) -> Token:
    return Token(**{**value, "rights": tuple(value["rights"]), "scopes": tuple(value["scopes"])})


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
