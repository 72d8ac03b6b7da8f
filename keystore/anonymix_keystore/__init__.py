"""The keystore of Anonymix: encrypted, versioned, revocable subject keys in one SQLite file.

It stands alone: ``cryptography``, ``sqlite-utils`` and the standard library.

Example:
    >>> from anonymix_keystore import Keystore, PassphraseUnlock
    >>> with Keystore.create("keystore.db", PassphraseUnlock("correct horse")) as store:  # doctest: +SKIP
    ...     key = store.current_or_issue("alice", scope="staff")
"""

from anonymix_keystore._anchor import Anchor, AnchorFile, AnchorState, CallbackAnchor
from anonymix_keystore._errors import (
    AnchorError,
    BusyError,
    ClockError,
    DamagedError,
    DiskFullError,
    ForeignFileError,
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
from anonymix_keystore._keystore import Keystore, RotationReason
from anonymix_keystore._kms import AwsKms, KeyService, KmsUnlock, VaultTransit
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

__all__ = [
    "Anchor",
    "AnchorError",
    "AnchorFile",
    "AnchorState",
    "Argon2Cost",
    "AwsKms",
    "BusyError",
    "CallbackAnchor",
    "ClockError",
    "DamagedError",
    "DiskFullError",
    "EnvironmentUnlock",
    "ForeignFileError",
    "InsecureKeyFileError",
    "InvalidRequestError",
    "InvalidSubjectError",
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
    "LockedError",
    "NewerSchemaError",
    "OriginalsError",
    "PassphraseUnlock",
    "ReadOnlyError",
    "RolledBackError",
    "RotationReason",
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
    "WrongContextError",
    "WrongKeyError",
    "WrongPassphraseError",
]
