"""The key service: the keys of one store for the mixers of other machines. docs/key-service.md tells the whole.

The design in short:

- One process holds the store (`service`, `serving`). SQLite stays the one writer, and no other machine has the file.
- A mixer's `RemoteKeystore` meets `KeySource`. It speaks TLS 1.3 with a certificate of its own, and trusts one CA.
- `roles`: a file says which client may do what in which scopes. It is read again when it changes.
- Each request is one POST of JSON, and bytes after it (`wire`). Names stand in bodies alone, so no log sees them.
- `memory`: keys are kept for some seconds from the moment they were *asked for*. Revocation is bounded by that.
- Each answer carries the store's state, as an anchor keeps it. Each request shows the last one that the client saw, so
  that an older store is refused by whoever has seen a later one.
- Whatever goes wrong is an error: no answer, no key.
"""

from typing import TYPE_CHECKING

from anonymix_plugin.by_need import imported_by_need
from anonymix_plugin.keyservice.address import service_address
from anonymix_plugin.keyservice.errors import LeaseError, NotAllowedError, NotOfferedError, ServiceError

if TYPE_CHECKING:
    from anonymix_plugin.keyservice.leases import Lease, renewing_beside
    from anonymix_plugin.keyservice.line import ServiceCredentials
    from anonymix_plugin.keyservice.remote import RemoteKeystore, RemoteReferences

__all__ = [
    "Lease",
    "LeaseError",
    "NotAllowedError",
    "NotOfferedError",
    "RemoteKeystore",
    "RemoteReferences",
    "ServiceCredentials",
    "ServiceError",
    "renewing_beside",
    "service_address",
]

# These import HTTP and TLS, which whoever has the store itself does without.
__getattr__ = imported_by_need(
    __name__,
    {
        "Lease": "anonymix_plugin.keyservice.leases",
        "renewing_beside": "anonymix_plugin.keyservice.leases",
        "RemoteKeystore": "anonymix_plugin.keyservice.remote",
        "RemoteReferences": "anonymix_plugin.keyservice.remote",
        "ServiceCredentials": "anonymix_plugin.keyservice.line",
    },
)
