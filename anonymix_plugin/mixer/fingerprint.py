"""The mixer fingerprint: one short name for everything that, beside the key, a cancelable face depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

FORMAT_VERSION = 1
"""Raised when the same weights, policy and key would give another face than the release before."""


def fingerprint(
    weights: Mapping[str, str], policy: Mapping[str, str | float], method: Mapping[str, str | float]
) -> str:
    """Return the fingerprint of a mixer.

    Args:
        weights: Role -> SHA-256 (hex) of every set of weights that has a say.
        policy: Settings of the mixing policy.
        method: Name of the method ("fast", "refine") and its settings.

    Returns:
        32 hex digits: the first half of the SHA-256 of the canonical JSON of all of it.
    """
    # "road" is how the method was called when the first fingerprints were stored; they stay as they are.
    content = {"format": FORMAT_VERSION, "weights": dict(weights), "policy": dict(policy), "road": dict(method)}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
