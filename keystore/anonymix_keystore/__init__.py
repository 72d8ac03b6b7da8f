"""The keystore of Anonymix: encrypted, versioned, revocable subject keys in one SQLite file.

It stands alone: ``cryptography``, ``sqlite-utils`` and the standard library.

Example:
    >>> from anonymix_keystore import Keystore, PassphraseUnlock
    >>> with Keystore.create("keystore.db", PassphraseUnlock("correct horse")) as store:  # doctest: +SKIP
    ...     key = store.current_or_issue("alice", scope="staff")
"""

from typing import TYPE_CHECKING, Any

from anonymix_keystore._errors import (
    AnchorError,
    BusyError,
    ClockError,
    DamagedError,
    DiskFullError,
    ForeignFileError,
    ForeignObjectsError,
    InsecureKeyFileError,
    InvalidRequestError,
    InvalidSubjectError,
    KeyExistsError,
    KeyRetiredError,
    KeyRevokedError,
    KeystoreError,
    LockedError,
    NewerSchemaError,
    OriginalsError,
    OutdatedReferenceError,
    ReadOnlyError,
    RolledBackError,
    StorageError,
    StoreExistsError,
    StoreMissingError,
    TruncatedError,
    UnfinishedJobError,
    UnknownSubjectError,
    UnknownVersionError,
    UnlockUnavailableError,
    WrongContextError,
    WrongKeyError,
    WrongPassphraseError,
)
from anonymix_keystore._held import is_live
from anonymix_keystore._values import EnrolmentInfo, ForgetReceipt, KeyInfo, KeyState, NewEnrolment, SubjectKey

if TYPE_CHECKING:
    from anonymix_keystore._anchor import Anchor, AnchorFile, AnchorState, CallbackAnchor
    from anonymix_keystore._backup import BackupInfo
    from anonymix_keystore._care import RETENTION
    from anonymix_keystore._database import check_free
    from anonymix_keystore._erasure import LastUse
    from anonymix_keystore._jobs import JobInfo, Progress
    from anonymix_keystore._keystore import Keystore
    from anonymix_keystore._kms import AwsKms, KeyService, KmsUnlock, VaultTransit
    from anonymix_keystore._originals import Originals
    from anonymix_keystore._references import References
    from anonymix_keystore._renewals import RenewalInfo, RenewalState
    from anonymix_keystore._report import OpenWork, RotationReport
    from anonymix_keystore._subjects import RotationReason
    from anonymix_keystore._unlock import (
        Argon2Cost,
        EnvironmentUnlock,
        KeyFileUnlock,
        KeyringUnlock,
        PassphraseUnlock,
        ScryptCost,
        Unlock,
    )
    from anonymix_keystore._verify import Finding, Verification

__all__ = [
    "RETENTION",
    "Anchor",
    "AnchorError",
    "AnchorFile",
    "AnchorState",
    "Argon2Cost",
    "AwsKms",
    "BackupInfo",
    "BusyError",
    "CallbackAnchor",
    "ClockError",
    "DamagedError",
    "DiskFullError",
    "EnrolmentInfo",
    "EnvironmentUnlock",
    "Finding",
    "ForeignFileError",
    "ForeignObjectsError",
    "ForgetReceipt",
    "InsecureKeyFileError",
    "InvalidRequestError",
    "InvalidSubjectError",
    "JobInfo",
    "KeyExistsError",
    "KeyFileUnlock",
    "KeyInfo",
    "KeyRetiredError",
    "KeyRevokedError",
    "KeyService",
    "KeyState",
    "KeyringUnlock",
    "Keystore",
    "KeystoreError",
    "KmsUnlock",
    "LastUse",
    "LockedError",
    "NewEnrolment",
    "NewerSchemaError",
    "OpenWork",
    "Originals",
    "OriginalsError",
    "OutdatedReferenceError",
    "PassphraseUnlock",
    "Progress",
    "ReadOnlyError",
    "References",
    "RenewalInfo",
    "RenewalState",
    "RolledBackError",
    "RotationReason",
    "RotationReport",
    "ScryptCost",
    "StorageError",
    "StoreExistsError",
    "StoreMissingError",
    "SubjectKey",
    "TruncatedError",
    "UnfinishedJobError",
    "UnknownSubjectError",
    "UnknownVersionError",
    "Unlock",
    "UnlockUnavailableError",
    "VaultTransit",
    "Verification",
    "WrongContextError",
    "WrongKeyError",
    "WrongPassphraseError",
    "check_free",
    "is_live",
]

# Loaded when they are first asked for: whoever catches an error or holds a key needs no database and no cryptography.
_LAZY = {
    "Anchor": "_anchor",
    "AnchorFile": "_anchor",
    "AnchorState": "_anchor",
    "CallbackAnchor": "_anchor",
    "BackupInfo": "_backup",
    "RETENTION": "_care",
    "check_free": "_database",
    "LastUse": "_erasure",
    "JobInfo": "_jobs",
    "Progress": "_jobs",
    "Keystore": "_keystore",
    "AwsKms": "_kms",
    "KeyService": "_kms",
    "KmsUnlock": "_kms",
    "VaultTransit": "_kms",
    "Originals": "_originals",
    "References": "_references",
    "RenewalInfo": "_renewals",
    "RenewalState": "_renewals",
    "OpenWork": "_report",
    "RotationReport": "_report",
    "RotationReason": "_subjects",
    "Argon2Cost": "_unlock",
    "EnvironmentUnlock": "_unlock",
    "KeyFileUnlock": "_unlock",
    "KeyringUnlock": "_unlock",
    "PassphraseUnlock": "_unlock",
    "ScryptCost": "_unlock",
    "Unlock": "_unlock",
    "Finding": "_verify",
    "Verification": "_verify",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
