"""Sealed originals: aligned faces kept under a second root key, for those who switch it on.

The trade: with originals, a new key needs no new photo; but whoever gets the file and the secret of
the second root has the faces themselves, and no rotation helps. Without them that can't happen.
"""

from __future__ import annotations

import secrets
from typing import Any

from anonymix_keystore import _asked, _slots
from anonymix_keystore._core import Change, Core
from anonymix_keystore._crypto import KEY_BYTES, derive, encode, seal, unseal
from anonymix_keystore._database import Database
from anonymix_keystore._errors import (
    DamagedError,
    InvalidRequestError,
    LockedError,
    OriginalsError,
    WrongKeyError,
)
from anonymix_keystore._lifecycle import Who, subject_in
from anonymix_keystore._names import DEFAULT_SCOPE, check_visible, checked
from anonymix_keystore._rows import ORIGINALS, REFERENCE_SCOPES, REFERENCES, Original
from anonymix_keystore._unlock import Unlock

MOST_BYTES = 16 * 1024 * 1024

ENABLE = "make one: anonymix keys scope set SCOPE --references sealed, or store.originals.enable(unlock)"


class Originals:
    """The second root key, once it was unlocked, and what it seals.

    Args:
        core: The unlocked store.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        # The slot that was unlocked, and what it gave: another process may exchange it meanwhile.
        self._opened: tuple[_slots.Slot, dict[str, bytes]] | None = None

    def enabled(self) -> bool:
        """Whether this store may keep originals."""
        with self._core.lock:
            return _slots.read(self._core.db, self._core.keys.store_id, _slots.ORIGINALS) is not None

    def enable(self, unlock: Unlock) -> None:
        """Make the second root key, locked up on its own."""
        store_id = self._core.keys.store_id
        if self._opens_root(_asked.unlock(unlock)):
            raise InvalidRequestError("sealed originals need a secret other than the store's")
        root = secrets.token_bytes(KEY_BYTES)
        slot = _slots.lock(store_id, _slots.ORIGINALS, root, unlock)
        with self._core.change() as change:
            if _slots.read(change.db, store_id, _slots.ORIGINALS) is not None:
                raise OriginalsError("sealed originals are switched on already")
            _slots.write(change.db, store_id, slot)
            change.note("enable-originals", unlock=slot.kind)
        self._opened = slot, _keys_of(root, store_id)

    def _opens_root(self, unlock: Unlock) -> bool:
        with self._core.lock:
            db, store_id = self._core.db, self._core.keys.store_id
            slot = _slots.need(db, store_id, _slots.ROOT)
        try:
            _slots.open_slot(store_id, slot, unlock, db.where)
        except LockedError:
            return False
        return True

    def locked_by(self) -> tuple[str, dict[str, Any]]:
        """How the second root key is locked up: the kind of unlock and its parameters, none of them secret.

        Raises:
            OriginalsError: There is none.
        """
        slot = self._slot()
        return slot.kind, _slots.params(slot)

    def unlock(self, unlock: Unlock) -> None:
        """Unlock the second root key."""
        store_id = self._core.keys.store_id
        slot = self._slot()
        root = _slots.open_slot(store_id, slot, _asked.unlock(unlock), str(self._core.path))
        self._opened = slot, _keys_of(root, store_id)

    def _slot(self) -> _slots.Slot:
        with self._core.lock:
            slot = _slots.read(self._core.db, self._core.keys.store_id, _slots.ORIGINALS)
        if slot is None:
            raise OriginalsError("this store has no second secret", where=str(self._core.path), fix=ENABLE)
        return slot

    def change_unlock(self, old: Unlock, new: Unlock) -> None:
        """Lock the second root key up in another way."""
        store_id = self._core.keys.store_id
        _asked.unlock(old, "old")
        if self._opens_root(_asked.unlock(new, "new")):
            raise InvalidRequestError("sealed originals need a secret other than the store's")
        slot = self._slot()
        # Stretching a passphrase takes half a second: not while others wait to write.
        root = _slots.open_slot(store_id, slot, old, str(self._core.path))
        fresh = _slots.lock(store_id, _slots.ORIGINALS, root, new)
        with self._core.change() as change:
            if _slots.read(change.db, store_id, _slots.ORIGINALS) != slot:
                raise OriginalsError("the second secret was changed meanwhile", fix="try again")
            _slots.write(change.db, store_id, fresh)
            change.note("change-originals-unlock", unlock=new.kind)
            change.erased = True
        if self._opened is not None:
            self._opened = fresh, _keys_of(root, store_id)

    def lock(self) -> None:
        """Forget the second root key until it is unlocked again."""
        self._opened = None

    def disable(self) -> int:
        """Erase the second root key, all originals and all references; returns how many originals there were.

        Scopes that kept references keep none any more.
        """
        with self._core.change() as change:
            originals = change.erase(ORIGINALS, "1").count
            references = change.erase(REFERENCES, "1").count
            change.erase(REFERENCE_SCOPES, "1")
            change.db.rows("DELETE FROM slots WHERE purpose = ?", (_slots.ORIGINALS,))
            change.erased = True
            change.note("disable-originals", count=originals, references=references)
        self.lock()
        return originals

    def unlocked(self) -> bool:
        """Whether the second root key is at hand, for originals and references."""
        with self._core.lock:
            return self._current(self._core.db) is not None

    def _second_key(self, db: Database, what: str) -> bytes:
        """What seals originals or references; read in the step that uses it: another process may end it."""
        keys = self._current(db)
        if keys is not None:
            return keys[what]
        raise OriginalsError(
            f"sealed {what} are switched off or locked",
            fix="give the second secret: store.originals.unlock(unlock), Anonymixer.open(second_unlock=...)",
        )

    def _current(self, db: Database) -> dict[str, bytes] | None:
        opened = self._opened  # another thread may lock it meanwhile
        if opened is not None and _slots.read(db, self._core.keys.store_id, _slots.ORIGINALS) == opened[0]:
            return opened[1]
        self.lock()
        return None

    def _who(self, subject: str, scope: str) -> Who:
        return subject_in(self._core.keys, subject, scope)

    def _label(self, label: str) -> bytes:
        return self._core.keys.tag("label", label)

    def _context(self, subject: bytes, label: bytes, part: str) -> bytes:
        return encode(("original", part, self._core.keys.store_id, subject, label))

    def keep(self, subject: str, data: bytes, *, scope: str = DEFAULT_SCOPE, label: str = "face") -> None:
        """Seal an original over the one of the same label."""
        label, who = checked(label, "label"), self._who(subject, scope)
        tag, data = self._label(label), _asked.data(data, "data", MOST_BYTES)
        own = secrets.token_bytes(KEY_BYTES)
        with self._core.change() as change:
            wrap = self._second_key(change.db, "originals")
            row = Original(
                who.tag,
                tag,
                change.now,
                seal(change.keys.name, label.encode(), self._context(who.tag, tag, "label")),
                seal(wrap, own, self._context(who.tag, tag, "key")),
                seal(own, data, self._context(who.tag, tag, "face")),
            )
            old = self._find(change, who.tag, tag)
            if old is None:
                check_visible(label, "label")
                change.insert(ORIGINALS, row)
            else:
                change.update_all(ORIGINALS, [(row, old[1])])
                change.erased = True
            change.note("keep-original")

    @staticmethod
    def _find(change: Change, subject: bytes, label: bytes) -> tuple[Original, int] | None:
        record = change.db.row(f"{ORIGINALS.select} WHERE subject = ? AND label = ?", (subject, label))
        return None if record is None else ORIGINALS.check(change.keys, record, change.db.where)

    def read(self, subject: str, *, scope: str = DEFAULT_SCOPE, label: str = "face") -> bytes:
        """Open an original."""
        tag, who = self._label(checked(label, "label")), self._who(subject, scope)
        with self._core.reading() as (db, keys):
            wrap = self._second_key(db, "originals")
            record = db.row(f"{ORIGINALS.select} WHERE subject = ? AND label = ?", (who.tag, tag))
        if record is None:
            raise OriginalsError("no original is kept", where=who.where)
        row, _ = ORIGINALS.check(keys, record, db.where)
        try:
            own = unseal(wrap, row.wrapped, self._context(who.tag, tag, "key"))
            return unseal(own, row.sealed, self._context(who.tag, tag, "face"))
        except WrongKeyError:
            raise DamagedError("an original fails authentication", where=who.where) from None

    def labels(self, subject: str, *, scope: str = DEFAULT_SCOPE) -> tuple[str, ...]:
        """The labels of a subject's originals."""
        who = self._who(subject, scope)
        with self._core.lock:
            db, keys = self._core.db, self._core.keys
            rows = [
                ORIGINALS.check(keys, record, db.where)[0]
                for record in db.rows(f"{ORIGINALS.select} WHERE subject = ?", (who.tag,))
            ]
        return tuple(
            sorted(unseal(keys.name, row.name, self._context(row.subject, row.label, "label")).decode() for row in rows)
        )

    def drop(self, subject: str, *, scope: str = DEFAULT_SCOPE, label: str = "face") -> bool:
        """Erase an original; returns whether there was one."""
        tag, who = self._label(checked(label, "label")), self._who(subject, scope)
        with self._core.change() as change:
            if not change.erase(ORIGINALS, "subject = ? AND label = ?", (who.tag, tag)).count:
                return False
            change.note("drop-original")
        return True


def _keys_of(root: bytes, store_id: bytes) -> dict[str, bytes]:
    return {what: derive(root, store_id, what) for what in ("originals", "references")}
