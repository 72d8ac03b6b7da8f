"""What can go wrong between a mixer and the key service, beside what can go wrong in a keystore."""

from __future__ import annotations

from anonymix_keystore import KeystoreError


class ServiceError(KeystoreError):
    """The key service can't be reached, is not the one that is trusted, or gave no answer that makes sense."""

    code = "key_service"


class NotAllowedError(KeystoreError):
    """The key service knows this client and does not let it do that."""

    code = "not_allowed"


class RateError(NotAllowedError):
    """The client asks more often than it may."""

    code = "rate"


class NotOfferedError(KeystoreError, AttributeError):
    """A keystore can do it, and the key service does not offer it."""

    code = "not_offered"


class LeaseError(KeystoreError):
    """A renewal had no lease, or lost it, when it wrote something down."""

    code = "lease"

    def __init__(
        self,
        what: str = "another renewal of the collection may be at work: this one's lease is over",
        *,
        where: str = "",
        fix: str = "renew again; it goes on",
    ) -> None:
        super().__init__(what, where=where, fix=fix)
