"""Everything that can go wrong in the keystore, as types.

No message ever holds key material, a passphrase or a sealed value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anonymix_keystore._values import ForgetReceipt

# Said only where content fails authentication or is gone: a backup may be older than a revocation.
RESTORE = "restore a backup, and open it with the store's anchor, so that revoked keys stay revoked"


class KeystoreError(Exception):
    """Base of all errors of the keystore.

    Args:
        what: What was wrong, in one sentence, never containing a secret.
        where: The file, subject or field concerned, or "" where there is none.
        fix: What the user can do about it, or "".

    Attributes:
        receipt: What ``forget`` had erased for good when a step after it failed (an anchor that could
            not be told, say): the last list of entries that are still in back ends. Otherwise ``None``.
    """

    code = "keystore"  # stable, machine-readable name used in JSON output
    receipt: ForgetReceipt | None = None

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        cure = f" ({self.fix})" if self.fix else ""
        return f"{place}{self.what}{cure}"


class InvalidRequestError(KeystoreError):
    """The call itself does not make sense: an argument out of range, or contradictory ones."""

    code = "invalid_request"


class InvalidSubjectError(InvalidRequestError):
    """The subject id or scope is empty, too long, or holds characters that can't be seen."""

    code = "invalid_subject"


class LockedError(KeystoreError):
    """The store can't be unlocked this way, or is closed."""

    code = "locked"


class WrongKeyError(LockedError):
    """The key that was offered is not the one this was sealed under."""

    code = "wrong_key"


class WrongPassphraseError(WrongKeyError):
    """The passphrase is not the store's."""

    code = "wrong_passphrase"


class UnlockUnavailableError(LockedError):
    """The unlocking secret can't be had: unset variable, missing file, unreachable service."""

    code = "unlock_unavailable"


class InsecureKeyFileError(LockedError):
    """The key file can be read by others than its owner."""

    code = "insecure_key_file"


class UnknownSubjectError(KeystoreError):
    """No key was ever issued for this subject in this scope."""

    code = "unknown_subject"


class UnknownVersionError(UnknownSubjectError):
    """The subject has keys, but not of this version."""

    code = "unknown_version"


class KeyRevokedError(KeystoreError):
    """The key is compromised or destroyed; its material is gone for good."""

    code = "key_revoked"


class KeyRetiredError(KeyRevokedError):
    """The key was retired: not for new templates, or past its date."""

    code = "key_retired"


class KeyExistsError(KeystoreError):
    """The subject already has an active key."""

    code = "key_exists"


class StoreExistsError(KeystoreError):
    """There is already a file where a new one should be made."""

    code = "store_exists"


class StoreMissingError(KeystoreError):
    """There is no store at this path."""

    code = "store_missing"


class ForeignFileError(KeystoreError):
    """The file is something else than a keystore (or than a backup of one)."""

    code = "foreign_file"


class NewerSchemaError(KeystoreError):
    """The file was written by a later version of the software."""

    code = "newer_schema"


class DamagedError(KeystoreError):
    """The store's content fails authentication or can't be read."""

    code = "damaged"


class ForeignObjectsError(DamagedError):
    """Somebody put tables, views, indices or triggers of their own into the store's file."""

    code = "foreign_objects"


class TruncatedError(DamagedError):
    """Something ends before it should."""

    code = "truncated"


class WrongContextError(DamagedError):
    """A sealed value stands where another belongs (another subject, version, scope or store)."""

    code = "wrong_context"


class RolledBackError(KeystoreError):
    """The file is older than its anchor says, or its history is another."""

    code = "rolled_back"


class AnchorError(KeystoreError):
    """The anchor is missing, damaged or could not be moved forward."""

    code = "anchor"


class BusyError(KeystoreError):
    """Other writers held the store for longer than the busy timeout."""

    code = "busy"


class StorageError(KeystoreError):
    """The operating system refused to read or write the file."""

    code = "storage"


class ReadOnlyError(StorageError):
    """The file or its folder can't be written."""

    code = "read_only"


class DiskFullError(StorageError):
    """No room left; the change was not made."""

    code = "disk_full"


class ClockError(KeystoreError):
    """The system clock stands well before the last change of the store."""

    code = "clock"


class UnfinishedJobError(KeystoreError):
    """A rotation or re-wrapping of many keys was interrupted and waits to be resumed."""

    code = "unfinished_job"


class OriginalsError(KeystoreError):
    """Sealed originals or references are switched off, locked, or there is none."""

    code = "originals"


class OutdatedReferenceError(KeystoreError):
    """A sealed reference was made for another mixer."""

    code = "outdated_reference"
