"""Weights: the registry of what can be had, and fetching, finding and checking it."""

from anonymix_plugin.models._cache import home
from anonymix_plugin.models._locate import (
    Source,
    Verification,
    load_checked,
    locate,
    sources,
    verify,
    weights_hash,
)
from anonymix_plugin.models._pull import PullEvent, PullResult, pull
from anonymix_plugin.registry import REGISTRY, Group, ModelEntry, WeightFile, Wheel, entry, names_in

__all__ = [
    "REGISTRY",
    "Group",
    "ModelEntry",
    "PullEvent",
    "PullResult",
    "Source",
    "Verification",
    "WeightFile",
    "Wheel",
    "entry",
    "home",
    "load_checked",
    "locate",
    "names_in",
    "pull",
    "sources",
    "verify",
    "weights_hash",
]
