"""A gate that knows the options of its adapter, too."""

from __future__ import annotations

from anonymix_adapters.gate import FaceMixer, Gate, KeyUse, ScopeRule


class CloudGate(Gate):
    """Like `Gate`; two of them do the same only if the adapter's own options are the same.

    Args:
        mixer: See `Gate`.
        adapter: See `Gate`.
        keys: See `Gate`.
        scope: See `Gate`.
        options: What else the adapter was told: fetching, detection, ...
    """

    def __init__(
        self, mixer: FaceMixer, adapter: str, *, keys: KeyUse, scope: ScopeRule, **options: object
    ) -> None:
        super().__init__(mixer, adapter, keys=keys, scope=scope)
        self.options = options

    def same_as(self, other: Gate) -> bool:
        """See `Gate.same_as`."""
        return super().same_as(other) and isinstance(other, CloudGate) and other.options == self.options
