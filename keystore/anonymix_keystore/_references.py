"""Sealed references: a subject's own code, kept for one key version, for scopes that switch them on.

The trade: with a reference the mixer can compare a probe with the person who is claimed, and strangers are
told apart better. But whoever gets the file and both secrets has a code of each person, can test photos
against it without the host, and can link the people of two such stores. Without references that can't happen.

A reference opens with the second root key and the subject key's own material together. So it ends with its
key version, however that ends: revoked, rotated, expired or forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from anonymix_keystore import _asked, _lifecycle
from anonymix_keystore._core import Core
from anonymix_keystore._crypto import KeyRing, derive, encode, seal, unseal
from anonymix_keystore._database import Database
from anonymix_keystore._errors import (
    RESTORE,
    DamagedError,
    InvalidRequestError,
    OriginalsError,
    OutdatedReferenceError,
    WrongContextError,
    WrongKeyError,
)
from anonymix_keystore._lifecycle import Who, subject_in
from anonymix_keystore._names import DEFAULT_SCOPE, checked
from anonymix_keystore._originals import ENABLE, Originals
from anonymix_keystore._rows import REFERENCE_SCOPES, REFERENCES, SCOPES, Reference, ReferenceScope
from anonymix_keystore._slots import ORIGINALS, read
from anonymix_keystore._values import SubjectKey

MOST_BYTES = 4096
_REPLACED_KEPT = 256
DROP = (
    "find out who changed the store; then drop the reference (anonymix keys drop-reference, store.references.drop)"
    " and enrol the subject again, or restore a backup with the store's anchor"
)


class _Place(NamedTuple):
    """Where a reference belongs; what it is bound to."""

    who: Who
    scope: int
    version: int
    fingerprint: str
    subspace: str

    def context(self, store_id: bytes) -> bytes:
        return encode(("reference", store_id, self.who.tag, self.scope, self.version, self.fingerprint, self.subspace))


class References:
    """The references of a store, sealed under the root key that sealed originals have.

    Args:
        core: The unlocked store.
        originals: Holds the second root key, once it was unlocked.
    """

    def __init__(self, core: Core, originals: Originals) -> None:
        self._core, self._originals = core, originals
        # What the last keepings put in the place of what; both are sealed.
        self._replaced: OrderedDict[bytes, tuple[Reference, Reference | None]] = OrderedDict()

    # --- the switch -------------------------------------------------------------------------------

    def scopes(self) -> tuple[str, ...]:
        """The scopes that keep references."""
        with self._core.reading() as (db, keys):
            names = _lifecycle.scope_names(SCOPES.every(db, keys), keys, db.where)
            rows = [row for row, _ in REFERENCE_SCOPES.every(db, keys)]
        if not {row.scope for row in rows} <= set(names):
            raise DamagedError("a scope that keeps references is missing", where=db.where, fix=RESTORE)
        return tuple(sorted(names[row.scope] for row in rows))

    def enabled(self, scope: str = DEFAULT_SCOPE) -> bool:
        """Whether a scope keeps references."""
        scope = checked(scope, "scope")
        with self._core.reading() as (db, keys):
            return _switch(db, keys, scope) is not None

    def enable(self, scope: str = DEFAULT_SCOPE, *, reason: str = "") -> bool:
        """Let a scope keep references from now on; subjects get theirs when they are enrolled next.

        Returns:
            Whether it kept none before.

        Raises:
            OriginalsError: The store has no second root key.
        """
        scope, reason = checked(scope, "scope"), _asked.text(reason, "reason")
        with self._core.change() as change:
            if read(change.db, change.keys.store_id, ORIGINALS) is None:
                raise OriginalsError("references need the store's second secret", fix=ENABLE)
            if _switch(change.db, change.keys, scope) is not None:
                return False
            row = _lifecycle.need_scope(change, scope)
            change.insert(REFERENCE_SCOPES, ReferenceScope(row.id, change.now))
            change.note("enable-references", scope=scope, reason=reason)
        return True

    def disable(self, scope: str = DEFAULT_SCOPE, *, reason: str = "") -> int:
        """Keep no references in a scope any more, and erase those that are there; returns how many."""
        scope, reason = checked(scope, "scope"), _asked.text(reason, "reason")
        with self._core.change() as change:
            found = _lifecycle.find_scope(change.db, change.keys, scope)
            if found is None or not change.erase(REFERENCE_SCOPES, "scope = ?", (found.id,)).count:
                return 0
            mine = change.erase(REFERENCES, "tag IN (SELECT tag FROM heads WHERE scope = ?)", (found.id,))
            change.erased = True
            change.note("disable-references", scope=scope, count=mine.count, reason=reason)
        return mine.count

    # --- references -------------------------------------------------------------------------------

    def keep(self, key: SubjectKey, data: bytes, *, fingerprint: str, subspace: str, replace: bool = True) -> bool:
        """Seal a reference for a key's version.

        Args:
            key: The subject's active key, as the store handed it out.
            data: The reference, 1 to 4,096 bytes; the keystore does not look into it.
            fingerprint: Mixer fingerprint that it belongs to.
            subspace: Hash of the identity subspace that its numbers belong to.
            replace: Whether it takes the place of one that the version has for this mixer. One that was made
                for another mixer is always replaced.

        Returns:
            Whether it was kept.

        Raises:
            OriginalsError: The scope keeps no references, or the second root key is locked.
            KeyRevokedError: The version is not active any more.
            InvalidRequestError: It is a gallery key, which is nobody's.
        """
        who, data = self._who(key), _asked.data(data, "data", MOST_BYTES)
        fingerprint = _asked.text(fingerprint, "fingerprint", empty=False)
        subspace = _asked.text(subspace, "subspace", empty=False)
        replace = _asked.flag(replace, "replace")
        with self._core.change() as change:
            if _switch(change.db, change.keys, who.scope) is None:
                raise OriginalsError(
                    "the scope keeps no references",
                    where=who.where,
                    fix="call store.references.enable(scope)",
                )
            head, _ = _lifecycle.need_head(change.db, change.keys, who)
            if key.version != head.active:
                raise _lifecycle.not_active(change, who, head, key.version)
            found = _find(change.db, change.keys, who, key.version)
            if found is not None and not replace and found[0].fingerprint == fingerprint:
                return False
            place = _Place(who, head.scope, key.version, fingerprint, subspace)
            store_id = change.keys.store_id
            sealed = seal(self._key(change.db, key), data, place.context(store_id))
            row = Reference(who.tag, key.version, change.now, fingerprint, sealed)
            if found is None:
                change.insert(REFERENCES, row)
            else:
                change.update_all(REFERENCES, [(row, found[1])])
                change.erased = True
            change.note("keep-reference", keys=[[head.alias.hex(), key.version, key.version]])
        with self._core.lock:
            self._replaced[who.tag] = (row, None if found is None else found[0])
            while len(self._replaced) > _REPLACED_KEPT:
                self._replaced.popitem(last=False)
        return True

    def put_back(self, key: SubjectKey) -> bool:
        """Undo the last ``keep`` of this object for a subject: what was kept before is there again, or nothing.

        Returns:
            Whether it was undone: not where it was replaced or erased since, or long ago.
        """
        who = self._who(key)
        with self._core.lock:
            last = self._replaced.pop(who.tag, None)
        if last is None or last[0].version != key.version:
            return False
        with self._core.change() as change:
            head, _ = _lifecycle.need_head(change.db, change.keys, who)
            found = _find(change.db, change.keys, who, key.version)
            if found is None or found[0] != last[0]:
                return False
            change.delete_all(REFERENCES, [found])
            if last[1] is not None:
                change.insert(REFERENCES, last[1])
            change.erased = True
            change.note("put-reference-back", keys=[[head.alias.hex(), key.version, key.version]])
        return True

    def read(self, key: SubjectKey, *, fingerprint: str, subspace: str) -> bytes | None:
        """Open the reference of a key's version.

        Args:
            key: A key that the store handed out, active or retired.
            fingerprint: Mixer fingerprint in use.
            subspace: Hash of the identity subspace in use.

        Returns:
            What was kept, or None: the scope keeps none, the version has none, or it is a gallery key.

        Raises:
            OriginalsError: The scope keeps references, and the second root key is locked.
            OutdatedReferenceError: It was made for another mixer.
            DamagedError: It fails authentication.
        """
        if isinstance(key, SubjectKey) and not key.subject:
            return None
        who = self._who(key)
        fingerprint = _asked.text(fingerprint, "fingerprint", empty=False)
        subspace = _asked.text(subspace, "subspace", empty=False)
        with self._core.reading() as (db, keys):
            switch = _switch(db, keys, who.scope)
            if switch is None:
                return None
            sealing = self._key(db, key)  # a store that can't be asked says so for everybody alike
            found = _find(db, keys, who, key.version)
        if found is None:
            return None
        row, _ = found
        if row.fingerprint != fingerprint:
            raise OutdatedReferenceError(
                "the reference was made for another mixer", where=who.where, fix="enrol the subject again"
            )
        place = _Place(who, switch[0].scope, key.version, fingerprint, subspace)
        try:
            return unseal(sealing, row.sealed, place.context(keys.store_id))
        except (WrongKeyError, WrongContextError, DamagedError):
            raise _damaged(who.where) from None

    def drop(self, subject: str, scope: str = DEFAULT_SCOPE) -> int:
        """Erase the references of a subject, so that the next enrolment makes a new one; returns how many."""
        who = subject_in(self._core.keys, subject, scope)
        with self._core.change() as change:
            head, _ = _lifecycle.need_head(change.db, change.keys, who)
            count = _lifecycle.erase_references(change, [head.tag])
            if count:
                change.note("drop-reference", keys=[[head.alias.hex(), head.active, head.active]])
        return count

    def _who(self, key: SubjectKey) -> Who:
        if not isinstance(key, SubjectKey):
            raise InvalidRequestError("key must be a SubjectKey", where="key")
        if not key.subject:
            raise InvalidRequestError("a gallery key is nobody's, and has no reference", where="key")
        return subject_in(self._core.keys, key.subject, key.scope)

    def _key(self, db: Database, key: SubjectKey) -> bytes:
        second = self._originals._second_key(db, "references")
        return derive(second + key.material, self._core.keys.store_id, "reference")


def _switch(db: Database, keys: KeyRing, scope: str) -> tuple[ReferenceScope, int] | None:
    found = _lifecycle.find_scope(db, keys, scope)
    if found is None:
        return None
    record = db.row(f"{REFERENCE_SCOPES.select} WHERE scope = ?", (found.id,))
    return None if record is None else REFERENCE_SCOPES.check(keys, record, db.where)


def _find(db: Database, keys: KeyRing, who: Who, version: int) -> tuple[Reference, int] | None:
    records = db.rows(f"{REFERENCES.select} WHERE tag = ? AND version = ?", (who.tag, version))
    rows, damaged = REFERENCES.sift(keys, records)
    if damaged:
        raise _damaged(who.where)
    return rows[0] if rows else None


def _damaged(where: str) -> DamagedError:
    return DamagedError("a sealed reference fails authentication", where=where, fix=DROP)
