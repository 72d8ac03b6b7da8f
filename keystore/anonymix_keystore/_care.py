"""The part of the public class that looks after the store: audit, checks, erasing, backups, anchors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import IO, Any

from anonymix_keystore import _asked, _audit, _backup, _erasure, _header
from anonymix_keystore._anchor import Anchor, AnchorState, compare
from anonymix_keystore._backup import BackupInfo
from anonymix_keystore._base import Base
from anonymix_keystore._core import acting_as
from anonymix_keystore._erasure import LastUse
from anonymix_keystore._errors import DamagedError, InvalidRequestError
from anonymix_keystore._unlock import Unlock
from anonymix_keystore._values import ForgetReceipt
from anonymix_keystore._verify import Verification, verify

RETENTION = timedelta(days=3 * 365)  # 740 ILCS 14/15(a): within three years of the last interaction


class Care(Base):
    """Audit trail, full check, anchor, erasing and retention, backup."""

    def acting_for(self, actor: str) -> AbstractContextManager[None]:
        """Name who makes the changes of a block, in this thread or task, in the audit trail.

        Args:
            actor: Who it is, in the place of the ``actor`` that the store was opened with.

        Raises:
            InvalidRequestError: It is no text, or empty.
        """
        return acting_as(_asked.text(actor, "actor", empty=False))

    def audit(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """The lines of the audit trail, as dictionaries.

        Args:
            after: Only lines with a greater number.

        Raises:
            DamagedError: A line does not open.
        """
        start = _audit.Line(_asked.whole(after, "after"), "", b"")
        for line in self._core.pages(_audit.page, start):
            yield line.content

    def export_audit(self, file: IO[str]) -> int:
        """Write the audit trail as JSON lines ``{"line": ..., "code": ...}``; returns their number.

        ``line`` is the canonical JSON text itself, ``code`` its chain code in hex: HMAC-SHA256 under
        a key of the store over the code before it and the line.
        """
        _asked.having(file, "file", "a text file open for writing", "write")
        count = 0
        for line in self._core.pages(_audit.page, _audit.Line(0, "", b"")):
            file.write(json.dumps({"code": line.code.hex(), "line": line.text}, sort_keys=True) + "\n")
            count += 1
        return count

    def check_audit_export(self, lines: Iterable[str]) -> int:
        """Check an exported trail against this store's keys and its present trail; returns its length.

        Raises:
            DamagedError: A line was changed, left out or added, or the end is not in the store.
        """
        chain = _audit.ChainCheck(self._core.keys)
        for number, text in enumerate(_asked.many(lines, "lines"), start=1):
            try:
                content = json.loads(text)
                body = content["line"]
                line = _audit.Line(json.loads(body)["seq"], body, bytes.fromhex(content["code"]))
            except (ValueError, KeyError, TypeError):
                raise DamagedError(f"row {number} of the export is no audit line") from None
            problem = chain.step(line)
            if problem is not None:
                raise DamagedError(f"the export: {problem}")
        if chain.count:
            with self._core.lock:
                own = _audit.line(self._core.db, self._core.keys, chain.seq)
            if own is None or own.code != chain.head:
                raise DamagedError("the export does not end on a line of this store")
        return chain.count

    def verify(self) -> Verification:
        """Check every row, every key, the audit trail and the anchor; the time grows with the store.

        Damage is not raised but returned as findings. Without an anchor a rollback of the whole
        file can't be told.
        """
        with self._core.connection() as (db, keys):
            return verify(db, keys, self._core.anchor)

    def accept_damage(self, reason: str) -> dict[str, int]:
        """Take the store as it is after damage, where no backup is to be restored.

        Originals, references, their switches and enrolment records that fail authentication are erased. Rows
        that are missing stay missing: from now on the full check takes what is left as right. So look for
        the cause first, and at back ends for entries that no record tells of any more.

        Args:
            reason: For the audit trail; not empty.

        Returns:
            Rows erased, by table.

        Raises:
            DamagedError: A key, a subject, a scope or a job fails authentication: revoke or forget the
                subject, or restore a backup.
        """
        return _erasure.accept_damage(self._core, _asked.text(reason, "reason", empty=False))

    @property
    def unscrubbed(self) -> bool:
        """Whether erased bytes may still be in the write-ahead log.

        A reader that stays (another program, a long check or backup) keeps the log from being emptied.
        Each later change and each opening, by whichever process, tries again, without waiting.
        """
        return not self._core.scrubbed

    # --- anchor -----------------------------------------------------------------------------------

    def anchor_state(self) -> AnchorState:
        """The state that an anchor would keep now."""
        header = self._core.header()
        return AnchorState.of(self._core.keys, header.epoch, header.head)

    def check_state(self, state: AnchorState) -> None:
        """See that this store has come past a state that somebody keeps of it, or lost it with everybody's knowledge.

        Raises:
            AnchorError: It is another store's, or forged.
            RolledBackError: The store is older than the state, or its history is another.
        """
        if not isinstance(state, AnchorState):
            raise InvalidRequestError("state must be an AnchorState", where="state")
        with self._core.reading() as (db, keys):
            compare(state, db, keys, _header.load(db, keys), lost=True)

    def tie_anchor(self, anchor: Anchor) -> None:
        """Tie the store to an anchor from now on, a new one or one of its own.

        Raises:
            AnchorError: It is another store's.
            RolledBackError: It is ahead of this store.
        """
        state = _asked.anchor(anchor).read()
        previous, self._core.anchor = self._core.anchor, anchor
        try:
            if state is not None:
                self._core.check_anchor()
            with self._core.change() as change:
                change.note("tie-anchor")
            if state is not None:  # an anchor of an earlier revision may have missed revocations
                self._core.move_anchor(anchor, everything=True)
        except BaseException:
            self._core.anchor = previous
            raise

    # --- erasing ----------------------------------------------------------------------------------

    def forget(self, subject: str, scope: str | None = None, *, reason: str = "") -> ForgetReceipt:
        """Erase everything about a person: keys, name, records, originals, references (GDPR art. 17).

        The audit trail keeps its lines, but what they call the person is a random name whose link
        to the person is erased with the rest. Backups made before still hold the person.

        Args:
            subject: The person.
            scope: One scope, or all.
            reason: For the audit trail; leave names out of it.

        Returns:
            A receipt; delete the ``entries`` it lists from the back ends.

        Raises:
            UnknownSubjectError: Nothing is known about the person.
            AnchorError: The person is forgotten, but the anchor could not be told: ``receipt`` of the error
                holds the receipt.
        """
        return _erasure.forget(self._core, subject, scope, _asked.text(reason, "reason"))

    def unused_since(self, limit: timedelta = RETENTION, scope: str | None = None) -> Iterator[LastUse]:
        """Subjects whose keys were last used longer ago than a limit (three years: BIPA).

        Uses are kept to the day and written with the next change, at the latest on closing.

        Raises:
            InvalidRequestError: The limit is under a day.
            ClockError: The clock stands far (180 days) after the last change, or leapt that far less than
                30 days ago: by such a clock everybody could seem long gone. Open with ``accept_clock`` if
                it is right.
        """
        return _erasure.unused_since(self._core, self._limit(limit), scope)

    @staticmethod
    def _limit(limit: timedelta) -> float:
        limit = _asked.span(limit, "limit")
        if limit < timedelta(days=1):
            raise InvalidRequestError("limit is under a day", where="limit")
        return limit / timedelta(days=1)

    def forget_unused(
        self,
        limit: timedelta = RETENTION,
        scope: str | None = None,
        *,
        reason: str = "retention",
        accept_most: bool = False,
    ) -> Iterator[ForgetReceipt]:
        """Forget each subject that ``unused_since`` names, one by one as the receipts are taken.

        Args:
            limit: How long ago the last use is.
            scope: This scope alone.
            reason: For the audit trail.
            accept_most: Go on though more than half of the subjects fall due at once, as they do after a
                wrong date.

        Raises:
            InvalidRequestError: The limit is under a day.
            ClockError: At once, and nobody is forgotten: the clock is in doubt, as for ``unused_since``, or
                more than half of the subjects fall due.
        """
        reason = _asked.text(reason, "reason")
        due = self.unused_since(limit, scope)
        if not _asked.flag(accept_most, "accept_most"):
            _erasure.check_few_due(self._core, self._limit(limit), scope)
        return (self.forget(item.subject, item.scope, reason=reason) for item in due)

    def expire(self) -> int:
        """Erase the retired keys whose date has passed (they are refused already); returns how many.

        Raises:
            ClockError: The clock is in doubt, as for ``unused_since``.
        """
        return _erasure.expire(self._core)

    # --- backup -----------------------------------------------------------------------------------

    def backup(self, path: str | os.PathLike[str], unlock: Unlock) -> BackupInfo:
        """Write an encrypted backup to a new file (0600).

        The image inside is still locked as the store was: restoring takes the backup's secret,
        opening the restored store the store's of that time. The image is made in memory, which takes
        twice the store's size for a moment; no copy of the store that is not encrypted reaches the
        disk.

        Raises:
            StoreExistsError: There is already a file.
            StorageError: It can't be written; nothing is left behind.
        """
        return _backup.write(self._core, _asked.path(path, "path"), _asked.unlock(unlock))

    @staticmethod
    def restore(backup: str | os.PathLike[str], path: str | os.PathLike[str], unlock: Unlock) -> BackupInfo:
        """Put the store from a backup in place, where there must be none; all or nothing.

        Open it with its anchor: keys that were revoked since the backup then stay revoked.

        Args:
            backup: The backup.
            path: Where the store goes.
            unlock: What the backup is locked with.

        Raises:
            StoreExistsError: There is already a file.
            WrongKeyError: The secret is not the backup's.
            TruncatedError: The backup ends too early.
            DamagedError: The backup was changed.
        """
        return _backup.restore(_asked.path(backup, "backup"), _asked.path(path, "path"), _asked.unlock(unlock))

    @staticmethod
    def inspect_backup(backup: str | os.PathLike[str]) -> BackupInfo:
        """What a backup says of itself in the clear.

        Raises:
            ForeignFileError: It is no backup.
            DamagedError: Its header was changed.
        """
        return _backup.inspect(_asked.path(backup, "backup"))
