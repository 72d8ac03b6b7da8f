"""Commands of the laboratory, which `anonymix` finds by the entry points `anonymix.commands`."""

from collections.abc import Mapping
from typing import Final

from anonymix_plugin.cli import LazyCommand

__all__ = ["COMMANDS"]

_PANEL: Final = "Measuring and making"

COMMANDS: Final[Mapping[str, LazyCommand]] = {
    "demo": LazyCommand(
        "anonymix_lab.cli.demo:demo", "The whole story on sample photos, as a page with pictures.", "Faces"
    ),
    "bench": LazyCommand("anonymix_lab.cli.bench:bench", "Time faces on this machine.", _PANEL),
    "evaluate": LazyCommand(
        "anonymix_lab.cli.evaluate:evaluate",
        "Prove what it keeps and protects, on your data: accuracy, attacks, baselines, as a page.",
        _PANEL,
    ),
    "measure": LazyCommand(
        "anonymix_lab.cli.measure:app", "Measure one thing: accuracy, thresholds, leaks, adapters.", _PANEL
    ),
    "gallery": LazyCommand("anonymix_lab.cli.gallery:gallery", "Pictures of what it does, failures included.", _PANEL),
    "train": LazyCommand("anonymix_lab.cli.train:app", "Train the weights that the project ships.", _PANEL),
}
