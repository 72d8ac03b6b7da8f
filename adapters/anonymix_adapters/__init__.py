"""Adapters that put Anonymix in front of a recogniser, one module per back end.

Example:
    >>> from anonymix_adapters.opencv import protect  # doctest: +SKIP
    >>> recogniser = protect(cv2.FaceRecognizerSF.create(path, ""), mixer)  # doctest: +SKIP
    >>> with mixer.subject("alice"):  # doctest: +SKIP
    ...     feature = recogniser.feature(recogniser.alignCrop(photo, face))

Back ends' own packages are imported when an adapter is used, never when it is imported.
"""

from anonymix_adapters.encoding import ImageLimit, encode_within
from anonymix_adapters.errors import (
    AdapterError,
    BackEndError,
    BypassError,
    CopiedClientError,
    DoubleProtectionError,
    EnrolmentError,
    FaceTooSmallError,
    NotProtectedError,
    SdkMissingError,
    SdkVersionError,
    SubjectNeededError,
    UnknownAdapterError,
)
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule, Whose
from anonymix_adapters.protocol import Adapter, Answer, BackEnd, Leaked, Rehearsal
from anonymix_adapters.registry import load, names
from anonymix_adapters.renewal import Renewal, keep_original, renew, sealed_original
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import Hooks, StandIn, hook, interceptor_of, need_interceptor, stand_in, unwrap, wrap

__all__ = [
    "Adapter",
    "AdapterError",
    "Answer",
    "BackEnd",
    "BackEndError",
    "BypassError",
    "CopiedClientError",
    "DoubleProtectionError",
    "EnrolmentError",
    "FaceMixer",
    "FaceTooSmallError",
    "Hooks",
    "ImageLimit",
    "Interceptor",
    "KeyUse",
    "Leaked",
    "NotProtectedError",
    "Rehearsal",
    "Renewal",
    "ScopeRule",
    "Sdk",
    "SdkMissingError",
    "SdkVersionError",
    "StandIn",
    "SubjectNeededError",
    "UnknownAdapterError",
    "Whose",
    "encode_within",
    "hook",
    "interceptor_of",
    "keep_original",
    "load",
    "names",
    "need_interceptor",
    "renew",
    "sealed_original",
    "stand_in",
    "unwrap",
    "wrap",
]
