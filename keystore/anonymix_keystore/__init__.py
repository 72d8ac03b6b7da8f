"""The keystore of Anonymix: encrypted, versioned, revocable subject keys in one SQLite file.

It stands alone: ``cryptography``, ``sqlite-utils`` and the standard library.

Example:
    >>> from anonymix_keystore import Keystore, PassphraseUnlock
    >>> with Keystore.create("keystore.db", PassphraseUnlock("correct horse")) as store:  # doctest: +SKIP
    ...     key = store.current_or_issue("alice", scope="staff")
"""

from anonymix_keystore._anchor import Anchor, AnchorFile, AnchorState, CallbackAnchor
from anonymix_keystore._backup import BackupInfo
from anonymix_keystore._care import RETENTION
from anonymix_keystore._database import check_free
from anonymix_keystore._enrolments import EnrolmentInfo, NewEnrolment
from anonymix_keystore._erasure import ForgetReceipt, LastUse
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
from anonymix_keystore._values import KeyInfo, KeyState, SubjectKey
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
