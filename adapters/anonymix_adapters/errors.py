"""What can go wrong between a host's call and its back end.

The rule is that of the whole plug-in: whoever catches one of these has sent nothing of the original.
"""

from __future__ import annotations

import re

from anonymix_keystore import KeystoreError
from anonymix_plugin.errors import AnonymixError

__all__ = [
    "AdapterError",
    "BackEndError",
    "BypassError",
    "CopiedClientError",
    "DoubleProtectionError",
    "EnrolmentError",
    "FaceTooSmallError",
    "NotProtectedError",
    "SdkMissingError",
    "SdkVersionError",
    "SubjectNeededError",
    "UnknownAdapterError",
    "asked_to_stop",
    "in_words",
    "kind_in_words",
]

_LONG = re.compile(r"[\w+/=%-]{20,}")


def asked_to_stop(error: BaseException) -> bool:
    """Whether an error is somebody's wish that the process ends: Ctrl-C, or a signal's exit code.

    A package that ends the process by itself, as some do when they are imported, is no such wish.
    """
    if isinstance(error, SystemExit):
        return isinstance(error.code, int) and error.code > 128
    return isinstance(error, KeyboardInterrupt)


def in_words(error: BaseException) -> str:
    """What a report says of an error: our own text; of an SDK's the type, and its text without what is long.

    Photos in base64, keys and signatures are long words.
    """
    if isinstance(error, AnonymixError | KeystoreError):
        return str(error)
    if isinstance(error, SystemExit):
        return "a package tried to end the process"
    return f"{type(error).__name__}: {_LONG.sub('...', str(error)[:10_000])[:300]}"


def kind_in_words(error: Exception) -> str:
    """What one of our errors says of another: our own text, or the type of an SDK's."""
    return str(error) if isinstance(error, AnonymixError | KeystoreError) else type(error).__name__


class AdapterError(AnonymixError):
    """Base of the errors of adapters."""

    exit_code = 8
    code = "adapter"


class SdkMissingError(AdapterError):
    """The back end's own package is not installed."""

    code = "sdk_missing"


class SdkVersionError(AdapterError):
    """The back end's own package is of a version that the adapter was never tested with."""

    code = "sdk_version"


class UnknownAdapterError(AdapterError):
    """No adapter of that name is installed, or it does not meet the protocol."""

    code = "unknown_adapter"


class SubjectNeededError(AdapterError):
    """A call needs a subject's key, and nobody said who the subject is."""

    code = "subject_needed"


class BypassError(AdapterError):
    """An input that would reach the back end past the mixer: a URL, an embedding, a stored object."""

    code = "bypass"


class DoubleProtectionError(AdapterError):
    """The client is protected already, by another mixer or in another way."""

    code = "double_protection"


class CopiedClientError(AdapterError, TypeError):
    """A protected client was to be copied or pickled, or a copy of one was to be used."""

    code = "copied_client"


class NotProtectedError(AdapterError):
    """The client is not protected, so that there is nothing to undo or to ask."""

    code = "not_protected"


class FaceTooSmallError(AdapterError):
    """The back end wants a larger face or picture than can be given."""

    code = "face_too_small"


class EnrolmentError(AdapterError):
    """An entry was made in the back end but could not be recorded, or could not be taken back."""

    code = "enrolment"


class BackEndError(AdapterError):
    """The back end refused, failed or did not answer; what it was sent was a cancelable face."""

    code = "back_end"
