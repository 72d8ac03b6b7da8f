"""The keystore's public class."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict

from anonymix_keystore import _asked, _erasure, _header, _rollback, _schema, _slots
from anonymix_keystore._anchor import Anchor
from anonymix_keystore._bulk import Bulk
from anonymix_keystore._cache import Cache
from anonymix_keystore._care import Care
from anonymix_keystore._core import Core, check_form
from anonymix_keystore._crypto import KEY_BYTES, KeyRing
from anonymix_keystore._database import Database, check_one_name, files_of, new_private_file, sync_folder
from anonymix_keystore._errors import RolledBackError
from anonymix_keystore._originals import Originals
from anonymix_keystore._references import References
from anonymix_keystore._subjects import Subjects
from anonymix_keystore._unlock import PassphraseUnlock, Unlock


class _Ways(TypedDict):
    cache: Cache
    clock: Callable[[], float]
    actor: str
    anchor: Anchor | None


def _ways(
    actor: str | None,
    cache_size: int,
    cache_age: float,
    clock: Callable[[], float],
    anchor: Anchor | None,
) -> _Ways:
    """What ``create`` and ``open`` are both told, checked."""
    return {
        "cache": Cache(_asked.whole(cache_size, "cache_size", 0), _asked.number(cache_age, "cache_age")),
        "clock": _asked.function(clock, "clock"),
        "actor": _actor() if actor is None else _asked.text(actor, "actor"),
        "anchor": _asked.maybe(_asked.anchor, anchor, "anchor"),
    }


def _actor() -> str:
    try:
        return getpass.getuser().encode("utf-8", "replace").decode()
    except (KeyError, OSError, ImportError):  # no such user in this container
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


class Keystore(Subjects, Bulk, Care):
    """An encrypted, versioned, revocable store of subject keys in one SQLite file.

    Made by ``Keystore.create`` or ``Keystore.open``; a context manager. One object may be used by
    many threads; each process opens its own. All methods raise errors derived from
    ``KeystoreError``: besides those named, ``LockedError`` when it is closed, ``BusyError`` when
    other writers hold it longer than the busy timeout, ``DamagedError`` when what is read fails
    authentication, ``StorageError`` when the disk refuses, or when the file was moved, removed or
    exchanged under way: then nothing is claimed as done.

    Reads wait for nobody. A change waits for the changes of other processes that are before it, at
    most for the busy timeout: eight processes that write without a pause make each other wait for
    some tenths of a second.

    While a store is open, its process must not open the store's files (``path``, ``path-wal``,
    ``path-shm``) by other means, not even to copy them: closing them again drops the locks that keep
    other processes from deleting the log. Use ``backup``, or copy in another process.

    The file format is specified in ``docs/keystore-format.md``, what it protects against in
    ``docs/threat-model.md``.
    """

    def __init__(self, core: Core, unlock: Unlock) -> None:
        super().__init__(core)
        self._unlock, self._originals = unlock, Originals(core)
        self._references = References(core, self._originals)

    def __repr__(self) -> str:
        return f"Keystore({str(self._core.path)!r})"

    # --- opening and closing ----------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        unlock: Unlock,
        *,
        anchor: Anchor | None = None,
        actor: str | None = None,
        busy_timeout: float = 10.0,
        cache_size: int = 4096,
        cache_age: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make a new store, readable by its owner alone (0600).

        Args:
            path: Where; its folder must exist.
            unlock: How the store is locked up.
            anchor: A new anchor (``AnchorFile.create``) to tie the store to.
            actor: Who the audit trail says it was; the user's name by default.
            busy_timeout: Seconds to wait for other writers.
            cache_size: Keys kept in memory, 0 for none.
            cache_age: Seconds that a cached key may be used: so long does another process's
                revocation take to be honoured. This process's own is honoured at once.
            clock: Unix time in seconds.

        Raises:
            StoreExistsError: There is already a file, or one that another store left beside it.
            LockedError: The unlock method's secret can't be had.
        """
        place, patience = _asked.path(path, "path"), _asked.number(busy_timeout, "busy_timeout")
        ways = _ways(actor, cache_size, cache_age, clock, anchor)
        _asked.unlock(unlock)
        store_id, root = secrets.token_bytes(_header.ID_BYTES), secrets.token_bytes(KEY_BYTES)
        slot = _slots.lock(store_id, _slots.ROOT, root, unlock)
        keys = KeyRing(root, store_id)
        new_private_file(place)
        held: Database | Core | None = None
        try:
            held = db = Database(place, patience, new=True)
            with db.immediate():
                _schema.prepare(db)
                _slots.write(db, store_id, slot)
                _header.store(db, keys, _header.Header(schema=_schema.SCHEMA, digest=_schema.digest(db)))
            sync_folder(place.absolute().parent)
            held = core = Core(
                db,
                keys,
                **ways,
            )
            with core.change() as change:
                change.note("create", unlock=slot.kind)
        except BaseException:
            if held is not None:
                held.close()
            for name in files_of(place):
                with contextlib.suppress(OSError):  # a name too long for the files beside it, say
                    name.unlink(missing_ok=True)
            raise
        return cls(core, unlock)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        unlock: Unlock,
        *,
        anchor: Anchor | None = None,
        actor: str | None = None,
        busy_timeout: float = 10.0,
        cache_size: int = 4096,
        cache_age: float = 1.0,
        clock: Callable[[], float] = time.time,
        accept_clock: bool = False,
        accept_rollback: str = "",
    ) -> Self:
        """Open a store, bringing an older file's tables up to date.

        Args:
            path: The file.
            unlock: How it is unlocked; the kind it was locked up with.
            anchor: The anchor that it is tied to.
            actor: As for ``create``.
            busy_timeout: As for ``create``.
            cache_size: As for ``create``.
            cache_age: As for ``create``.
            clock: As for ``create``.
            accept_clock: Take the clock as right, though it stands before the last change or far after
                it. Dates that a clock ahead left in the future are brought back to now.
            accept_rollback: A reason to take an old file as the current one (a restored backup,
                say). Keys that the anchor knows to be revoked since are destroyed again; other
                changes since are lost.

        Raises:
            StoreMissingError: There is no file.
            ForeignFileError: It is no keystore.
            NewerSchemaError: A later version of the software wrote it.
            WrongPassphraseError: The passphrase is wrong (``WrongKeyError`` for other methods).
            LockedError: It is locked up in another way.
            RolledBackError: It is older than its anchor, or its audit trail was cut.
            DamagedError: It was changed.
            StorageError: Its file has a hard link, or is mounted without its folder: its log would lie in
                two places.
        """
        held: Database | Core
        place, patience = _asked.path(path, "path"), _asked.number(busy_timeout, "busy_timeout")
        ways = _ways(actor, cache_size, cache_age, clock, anchor)
        accept_clock = _asked.flag(accept_clock, "accept_clock")
        accept_rollback = _asked.text(accept_rollback, "accept_rollback")
        _asked.unlock(unlock)
        check_one_name(place)
        held = db = Database(place, patience)
        try:
            schema = _schema.found(db)
            store_id = _header.read_id(db)
            slot = _slots.need(db, store_id, _slots.ROOT)
            keys = KeyRing(_slots.open_slot(store_id, slot, unlock, db.where), store_id)
            if schema < _schema.SCHEMA:
                _migrate(db, keys)
            with db.snapshot():
                check_form(db, _header.load(db, keys))
            held = core = Core(
                db,
                keys,
                **ways,
            )
            rolled_back = False
            try:
                core.check_anchor()
            except RolledBackError:
                if not accept_rollback:
                    raise
                rolled_back = True
            if accept_clock:
                with core.change(accept_clock=True) as change:
                    change.note("accept-clock", before=change.header.clock)
                    _erasure.settle(change)
            if rolled_back:
                _rollback.accept(core, accept_rollback)
            core.tidy()
        except BaseException:
            held.close()
            raise
        return cls(core, unlock)

    @staticmethod
    def locked_by(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
        """How a store is locked up: the kind of unlock and its parameters, none of them secret.

        Raises:
            StoreMissingError: There is no file.
            ForeignFileError: It is no keystore.
            DamagedError: It can't be read.
            StorageError: As for ``open``.
        """
        place = _asked.path(path, "path")
        check_one_name(place)
        db = Database(place, busy_timeout=10.0)
        try:
            _schema.found(db)
            slot = _slots.need(db, _header.read_id(db), _slots.ROOT)
            return slot.kind, _slots.params(slot)
        finally:
            db.close()

    def close(self) -> None:
        """Forget all keys and close the file. Closing twice does nothing."""
        self._originals.lock()
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- facts ------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The store's file."""
        return self._core.path

    @property
    def epoch(self) -> int:
        """Number of the last line of the audit trail; grows with every change of state."""
        return self._core.header().epoch

    # --- unlocking --------------------------------------------------------------------------------

    @property
    def unlock_outdated(self) -> bool:
        """Whether a passphrase is stretched at another cost than it would be today.

        ``change_unlock`` with the same passphrase brings it up to date.
        """
        with self._core.lock:
            slot = _slots.need(self._core.db, self._core.keys.store_id, _slots.ROOT)
        return isinstance(self._unlock, PassphraseUnlock) and self._unlock.outdated(_slots.params(slot))

    def change_unlock(self, unlock: Unlock) -> None:
        """Lock the store up in another way (or again in the same); no subject key is touched.

        Old backups still open with the old secret.

        Raises:
            LockedError: The new method's secret can't be had.
        """
        keys = self._core.keys
        slot = _slots.lock(keys.store_id, _slots.ROOT, keys.root, _asked.unlock(unlock))
        with self._core.change() as change:
            _slots.write(change.db, keys.store_id, slot)
            change.note("change-unlock", unlock=slot.kind)
            change.erased = True  # the old slot must not outlast its secret
        self._unlock = unlock

    @property
    def originals(self) -> Originals:
        """Sealed originals: off unless ``originals.enable`` was called on this store.

        The trade: with them, a new key needs no new photo; but whoever gets the file and the second
        secret has the faces themselves, and no rotation helps.
        """
        return self._originals

    @property
    def references(self) -> References:
        """Sealed references: off unless ``references.enable`` was called for a scope.

        The trade: with them, strangers who claim a name are told apart better; but whoever gets the file
        and both secrets has a code of each person, and can test photos and link stores with it.
        """
        return self._references


def _migrate(db: Database, keys: KeyRing) -> None:
    with db.immediate():
        header = _header.load(db, keys)
        if header.schema < _schema.SCHEMA:  # otherwise another process was faster
            _schema.advance(db)
            _header.store(db, keys, _header.replace(header, schema=_schema.SCHEMA, digest=_schema.digest(db)))
