"""`anonymix evaluate`: accuracy, anonymity, unlinkability and irreversibility, as a page and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from anonymix_plugin.cli.options import (
    DetectorName,
    EngineName,
    EngineOption,
    GeneratorOption,
    Method,
    MethodOption,
    MixerWeightsOption,
    PolicyOption,
    takes_photos,
)
from anonymix_plugin.cli.report import EXIT_SOME_FAILED, print_json
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from anonymix_lab.data import Protocol
    from anonymix_lab.evaluation.schema import Report

__all__ = ["evaluate"]


class ProtocolName(StrEnum):
    """What is compared."""

    LFW = "lfw"
    FOLDER = "folder"
    PAIRS = "pairs"
    BIN = "bin"
    REC = "rec"


_ATTACKS = (
    "direct",
    "reencode",
    "regression",
    "student",
    "multiplicity",
    "linkage",
    "preimage",
    "with-key",
    "key-guessing",
    "references",
)
_BASELINES = ("blur", "pixelation", "swap", "refine")
_MEASURE, _ATTACK, _OUTPUT = "What is measured", "Attacks and baselines", "Report"


@takes_photos
def evaluate(
    protocol: Annotated[
        ProtocolName,
        typer.Argument(
            help="lfw: view 2. folder: one sub-folder for each person. pairs: a CSV file. bin: a "
            "verification set of InsightFace (lfw.bin). rec: MXNet's RecordIO (train.rec)."
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="PATH", help="The data: a folder, or the file.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where index.html, metrics.json, tables/, scores/ and exchange/ go.",
            rich_help_panel=_OUTPUT,
        ),
    ] = Path("out/evaluation"),
    limit: Annotated[int | None, typer.Option(metavar="N", min=2, help="At most N pairs, for a quick look.")] = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="pairs: what paths are relative to; the CSV's folder by default."),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="People who must not appear, those trained on: one name a line."),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDS",
            help="lfw: folds of view 2, like 6-10; those that the mixer has not learned from by default.",
            show_default=False,
        ),
    ] = None,
    development_share: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="All but lfw: share of the people for setting thresholds; .3, and 0 for bin.",
            show_default=False,
        ),
    ] = None,
    matchers: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Recognisers, with commas; PACKAGE.MODULE:FACTORY for one of your own."),
    ] = "facenet,arcface-mbf,sface",
    detector: Annotated[
        DetectorName, typer.Option(help="What finds faces for matchers, baselines and attackers.")
    ] = DetectorName.YUNET,
    policy: PolicyOption = None,
    mixer_weights: MixerWeightsOption = None,
    method: MethodOption = Method.FAST,
    engine: EngineOption = EngineName.OPENVINO,
    generator: GeneratorOption = None,
    shared_keys: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many keys for everybody are tried; 0 draws no such faces, with --attacks none.",
            rich_help_panel=_MEASURE,
        ),
    ] = 2,
    claimed: Annotated[
        bool,
        typer.Option(help="Also mix impostors' probes under the claimed person's key.", rich_help_panel=_MEASURE),
    ] = True,
    scopes: Annotated[
        bool,
        typer.Option(help="Also mix probes under the keys of another application.", rich_help_panel=_MEASURE),
    ] = True,
    references: Annotated[
        bool,
        typer.Option(
            help="Also enrol each pair's first person with a reference, and guide the second photo by it.",
            rich_help_panel=_MEASURE,
        ),
    ] = True,
    seed: Annotated[
        int, typer.Option(min=0, help="Of sampling, bootstrap and attackers.", rich_help_panel=_MEASURE)
    ] = 1,
    key_seed: Annotated[
        int, typer.Option(min=0, help="Of all keys; they are for evaluation alone.", rich_help_panel=_MEASURE)
    ] = 1,
    replicates: Annotated[int, typer.Option(min=20, help="Of the bootstrap.", rich_help_panel=_MEASURE)] = 200,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Lines of person,group: error rates for each group.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="ONNX",
            help="Weights that turn FFHQ crops in -1..1 into features: FID and KID are computed with them.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    attacks: Annotated[
        str,
        typer.Option(metavar="NAMES", help=f"all, none, or some of {', '.join(_ATTACKS)}.", rich_help_panel=_ATTACK),
    ] = "all",
    baselines: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=f"none, or some of {', '.join(_BASELINES)}; refine takes minutes a face without a GPU.",
            rich_help_panel=_ATTACK,
        ),
    ] = "blur,pixelation,swap",
    baseline_pairs: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="At most N pairs for baselines; 600, or a third of the limit.",
            rich_help_panel=_ATTACK,
            show_default=False,
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="RULE",
            help="eer<=.02, psr@facenet>=99%, ...; exit code 1 if one does not hold. Can be repeated.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML",
            help='The same from a file with a table [require]: eer = "<=.02".',
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    with_photos: Annotated[
        bool,
        typer.Option(
            "--with-photos",
            help="Show photos and protected faces of some people in the page: only with their consent.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    cache: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Where embeddings are kept between runs; they are biometric data.",
            rich_help_panel=_OUTPUT,
        ),
    ] = Path("out/evaluation-cache"),
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads.", rich_help_panel=_OUTPUT)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json.")] = False,
) -> None:
    """Prove what the mixer keeps and what it protects, on your data and by your recognisers.

    A run that is interrupted goes on where it stopped when it is started again with the same --cache. Keys
    are made from --key-seed, for evaluation alone; no keystore is touched. docs/evaluation.md explains the
    report.
    """
    from rich.console import Console

    from anonymix_lab.evaluation.requirements import DEFAULTS, GUIDED_DEFAULTS, parse, read_requirements
    from anonymix_plugin.files import make_folder

    console = Console(stderr=True, highlight=False)
    # What can be refused without loading anything comes first.
    rules = [parse(text) for text in require or ()]
    rules += read_requirements(requirements) if requirements else []
    shown = (*DEFAULTS, *(GUIDED_DEFAULTS if references and method is Method.FAST else ()))
    rules = rules or [parse(text, given=False) for text in shown]
    wanted_attacks = _names(attacks, _ATTACKS, "attacks")
    wanted_baselines = _names(baselines, _BASELINES, "baselines")
    if not shared_keys and wanted_attacks:
        raise UsageError("attacks need faces under one key", where="--shared-keys 0", fix="add --attacks none")
    matcher_names = [name.strip() for name in matchers.split(",") if name.strip()]
    if not matcher_names:
        raise UsageError("there is no matcher", where="--matchers", fix="name a recogniser: facenet")
    if method is Method.REFINE and "refine" in wanted_baselines:
        raise UsageError("the refine method is no baseline of itself", where="--baselines")
    make_folder(output)
    with _Progress(console) as progress:
        from anonymix_lab.data import read_names
        from anonymix_lab.evaluation.traits import read_groups

        labels = read_groups(groups) if groups else None
        names = read_names(exclude) if exclude else frozenset()
        compared = _protocol(
            protocol,
            data,
            root,
            limit,
            names,
            seed,
            development_share,
            _folds(folds, protocol, mixer_weights),
        )
        for notice in compared.notices:
            if notice.count:
                progress.note(f"{notice.count} × {notice.what}")
        from anonymix_lab.evaluation.assemble import Choice, run_choice

        default_pairs = 600 if limit is None else max(limit // 3, 20)
        report = run_choice(
            Choice(
                protocol=compared,
                output=output,
                matchers=matcher_names,
                detector=detector.value,
                policy="" if policy is None else policy.value,
                mixer_weights=mixer_weights,
                method=method.value,
                engine=engine.value,
                generator=generator,
                shared_keys=shared_keys,
                claimed=claimed,
                scopes=scopes,
                references=references,
                seed=seed,
                key_seed=key_seed,
                replicates=replicates,
                attacks=wanted_attacks,
                baselines=wanted_baselines,
                baseline_pairs=baseline_pairs or default_pairs,
                quick=limit is not None,
                groups=labels,
                features=features,
                rules=rules,
                with_photos=with_photos,
                cache=cache,
                workers=workers,
                command=("anonymix", *sys.argv[1:]),
            ),
            progress.update,
            progress.step,
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print(Console(highlight=False), report, output)
    if not report.holds:
        raise typer.Exit(EXIT_SOME_FAILED)


def _names(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == ("none",):
        return ()
    if names == ("all",):
        return tuple(known)
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"there is no {unknown[0]!r}", where=f"--{option}", fix="known are all, none, " + ", ".join(known)
        )
    return names


def _folds(text: str | None, name: ProtocolName, weights: Path | None) -> tuple[int, ...] | None:
    """Which folds of LFW are tested on: those that were asked for, or that the mixer has not learned from."""
    from anonymix_lab.data import LFW_FOLDS, parse_folds
    from anonymix_plugin.mixer.weights import SHIPPED, load_mixer_weights

    if text is not None:
        if name is not ProtocolName.LFW:
            raise UsageError("--folds is for lfw", where=text, fix="leave it out")
        return parse_folds(text)
    if name is not ProtocolName.LFW:
        return None
    learned = load_mixer_weights(weights or SHIPPED).subspace.lfw_folds
    return tuple(fold for fold in range(1, LFW_FOLDS + 1) if fold not in learned)


def _protocol(
    name: ProtocolName,
    data: Path,
    root: Path | None,
    limit: int | None,
    exclude: frozenset[str],
    seed: int,
    share: float | None,
    folds: tuple[int, ...] | None,
) -> Protocol:
    from anonymix_lab.data import (
        folder_protocol,
        lfw_protocol,
        pairs_protocol,
        records_protocol,
        verification_protocol,
    )

    if root is not None and name is not ProtocolName.PAIRS:
        raise UsageError("--root is for a CSV file of pairs", where=str(root), fix="leave it out")
    if name is ProtocolName.LFW:
        return lfw_protocol(data, limit=limit, exclude=exclude, folds=folds, seed=seed)
    given: dict[str, Any] = {} if share is None else {"development_share": share}
    if name is not ProtocolName.PAIRS:
        reader = {
            ProtocolName.FOLDER: folder_protocol,
            ProtocolName.BIN: verification_protocol,
            ProtocolName.REC: records_protocol,
        }[name]
        return reader(data, limit=limit, exclude=exclude, seed=seed, **given)
    return pairs_protocol(data, root=root, limit=limit, exclude=exclude, seed=seed, **given)


class _Progress:
    """A bar for each step, with time left; plain lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, step: str, done: int, total: int) -> None:
        """A step got further."""
        if step not in self._tasks:
            self._tasks[step] = self._bar.add_task(step, total=total)
        self._bar.update(self._tasks[step], completed=done, total=total)
        if not self._console.is_terminal and (done == total or (done and done % 500 == 0)):
            self._console.print(f"{step}: {done} of {total}", markup=False)

    def step(self, name: str) -> None:
        """Something without a count begins."""
        self._console.print(f"[dim]{name}")

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._console.print("[yellow]note[/]", text, markup=True, soft_wrap=True)


def _print(console: Console, report: Report, output: Path) -> None:
    from rich.table import Table

    table = Table(
        title=f"{report.protocol.title}: {report.protocol.people} people, {report.protocol.photos} photos",
        title_justify="left",
    )
    for heading in (
        "matcher",
        "in the mixer",
        "EER unprotected",
        "EER one key",
        "EER a key each",
        "EER guided",
        "own photo does not match",
        "old = new key",
    ):
        table.add_column(heading, justify="left" if heading == "matcher" else "right")
    eers = {(part.scenario, part.matcher): part.eer for part in report.two_class}
    for line in (line for line in report.protections if line.name == "anonymix"):
        plain, guided = (eers.get((scenario, line.matcher)) for scenario in ("unprotected", "guided"))
        table.add_row(
            line.matcher,
            "yes" if line.seen_by_mixer else "no",
            _percent(plain.value if plain else None),
            _percent(line.eer_one_key.value),
            _percent(line.eer_own_key.value),
            _percent(guided.value if guided else None),
            _percent(line.psr.value),
            _percent(line.renewal.value),
        )
    console.print(table)
    for part in report.requirements:
        mark = "[green]holds[/]" if part.holds else "[red]does not hold[/]"
        who = f" by {part.matcher}" if part.matcher else ""
        given = "" if part.given else " [dim](shown for want of --require)[/]"
        console.print(f"{mark} {part.requirement}{who}: {_percent(part.measured.value)}{given}", soft_wrap=True)
    console.print("The page:")
    console.print(str((output / "index.html").resolve()), style="bold", markup=False, soft_wrap=True)


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2%}"
