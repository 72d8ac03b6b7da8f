"""What the commands of bulk work have in common: how it is done, how far it is, what it will take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from anonymix_plugin.cli.options import MixerChoice, chosen_as
from anonymix_plugin.cli.report import print_json, printable
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from anonymix_plugin.bulk import Cluster, Figures, Work
    from anonymix_plugin.options import MixerOptions

SAMPLE: Final = 24
"""So many photos each worker rehearses."""

MOST_FAILURES: Final = 20
"""So many failures are printed."""

WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, max=1024, help="Processes; one for two cores.", show_default=False),
]
ThreadsOption = Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Threads that a worker draws with.")]
BlockOption = Annotated[int, typer.Option("--block", metavar="N", min=1, max=10_000, help="Photos in a block.")]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, help="Begin N photos in this run, whole blocks.", show_default=False),
]
PatienceOption = Annotated[
    float, typer.Option("--patience", metavar="SECONDS", min=1, help="The most that one photo may take.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Write nothing and touch no key: try some photos and estimate the job.")
]

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="local|ADDRESS",
        help="Workers on Ray (extra [ray]): one started on this machine, or a cluster.",
        show_default=False,
    ),
]
CpusOption = Annotated[
    float | None, typer.Option("--cpus", metavar="N", min=0.01, help="On Ray: CPUs of a worker.", show_default="1")
]
GpusOption = Annotated[
    float | None, typer.Option("--gpus", metavar="N", min=0.0, help="On Ray: GPUs of a worker.", show_default="0")
]


@dataclass(frozen=True)
class WorkChoice:
    """How bulk work is to be done, as it stands on the command line.

    Attributes:
        workers: How many workers, and so on: `bulk.Work` and `bulk.Cluster` say more; None takes the default.
        dry_run: Whether the job is tried and estimated alone.
    """

    workers: int | None = None
    threads: int = 1
    block: int = 32
    limit: int | None = None
    patience: float = 600.0
    ray: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    dry_run: bool = False

    @property
    def count(self) -> int:
        """How many workers there are to be: a worker reads one photo while it draws another."""
        from anonymix_plugin.pool import CORES

        return self.workers or max(1, CORES // 2)

    def work(self, **how: Any) -> Work:
        """What the driver is told, with what else the command has to say.

        Raises:
            UsageError: The options contradict each other, or leave something open.
        """
        from anonymix_plugin.bulk import Work

        chosen: dict[str, Any] = {"limit": self.limit, "patience": self.patience, "cluster": self._cluster()}
        return Work(self.count, self.block, **chosen, **how)

    def mixer_options(self, mixing: MixerChoice) -> MixerOptions:
        """What the workers' mixers are to be like."""
        from anonymix_plugin.images import default_limits

        return replace(mixing.options(), threads=self.threads, limits=default_limits())

    def _cluster(self) -> Cluster | None:
        if self.ray is None:
            if self.cpus is not None or self.gpus is not None:
                raise UsageError("--cpus and --gpus are for workers on Ray", fix="add --ray, or leave them out")
            return None
        if self.ray != "local" and self.workers is None:
            raise UsageError("how many workers the cluster is to have is not said", fix="add --workers N")
        from anonymix_plugin.bulk import Cluster

        return Cluster(self.ray, 1.0 if self.cpus is None else self.cpus, self.gpus or 0.0)


works: Final = chosen_as(
    "working",
    WorkChoice,
    {
        "workers": WorkersOption,
        "threads": ThreadsOption,
        "block": BlockOption,
        "limit": LimitOption,
        "patience": PatienceOption,
        "ray": RayOption,
        "cpus": CpusOption,
        "gpus": GpusOption,
        "dry_run": DryRunOption,
    },
)
"""A command with the options of bulk work, called with `working=WorkChoice(...)`."""


class Bar:
    """A bar with the time left on standard error, if that is a terminal."""

    def __init__(self, total: int | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("loading weights", total=total)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, failed: int, total: int | None = None) -> None:
        """Show how far the job is; a total that was not known before can come along."""
        self._bar.update(self._task, completed=done, total=total, description=f"{failed} failed")


def print_estimate(figures: Figures, total: int, workers: int, *, as_json: bool) -> None:
    """Print what a rehearsal says about a job of so many photos."""
    rate = figures.photos / figures.seconds if figures.photos else 0.0
    size = figures.image_bytes / figures.made if figures.made else 0.0
    seconds, share = (total / rate if rate else 0.0), figures.made / max(1, figures.photos)
    if as_json:
        told = {
            "photos": total,
            "workers": workers,
            "tried": figures.photos,
            "tried_made": figures.made,
            "photos_per_second": round(rate, 3),
            "bytes_per_face": round(size),
            "estimated_seconds": round(seconds, 1),
            "estimated_bytes": round(size * share * total),
        }
        print_json(told)
        return
    typer.echo(f"{total:,} photos; {figures.made} of the {figures.photos} that were tried gave a face")
    typer.echo(f"{rate:.1f} photos a second with {workers} workers: {_span(seconds)}")
    typer.echo(f"{size / 1000:.0f} kB a face: {size * share * total / 1e9:.2f} GB; nothing was written")


def print_failures(failures: Iterable[tuple[str, str, str]]) -> None:
    """Print what failed, on standard error: its name, what was wrong, and what to do."""
    for name, what, fix in failures:
        cure = f" ({fix})" if fix else ""
        typer.echo(f"  {printable(name)}: {printable(what)}{printable(cure)}", err=True)


def _span(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
