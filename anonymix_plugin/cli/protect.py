"""`anonymix protect`: photos in, cancelable faces out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anonymix_plugin.cli._photos import Job, Names, jobs_by_folder, jobs_for
from anonymix_plugin.cli.options import (
    ClockOption,
    DescriptorOption,
    Format,
    GalleryOption,
    JsonOption,
    KeystoreOption,
    MixerChoice,
    RecursiveOption,
    ScopeOption,
    SetKeys,
    Several,
    SubjectOption,
    VersionOption,
    check_owner,
    mixes,
    takes_photos,
)
from anonymix_plugin.cli.report import EXIT_SOME_FAILED, Fault, fault_of, print_json, printable, show_fault
from anonymix_plugin.errors import AnonymixError, DifferentPeopleError, OutputError, PhotoError, UsageError
from anonymix_plugin.files import make_folder

if TYPE_CHECKING:
    from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_plugin.mixer.refine.refiner import RefineStep
    from anonymix_plugin.production import PhotoRequest
    from anonymix_plugin.values import CancelableFace

_MOST_ROWS = 20
_LEFT_OUT = "it does not look like the subject's other photos, and was left out of the enrolment"


@dataclass(frozen=True)
class _Row:
    """One cancelable face, or one photo that failed."""

    job: Job
    scope: str
    output: Path | None = None
    face: CancelableFace | None = None
    fault: Fault | None = None

    def as_json(self) -> dict[str, Any]:
        face = self.face
        return {
            "source": self.job.name,
            "subject": self.job.subject,
            "scope": self.scope,
            "output": None if self.output is None else str(self.output),
            "key_version": None if face is None else face.key_version,
            "fingerprint": None if face is None else face.fingerprint,
            "method": None if face is None else face.method,
            "engine": None if face is None else face.engine,
            "quality": None if face is None else round(face.quality, 3),
            "guided": None if face is None else face.guided,
            "photos": None if face is None else face.photos,
            "box": None if face is None else [round(value, 2) for value in face.box],
            "timings": None if face is None else {k: round(v, 6) for k, v in face.timings.items()},
            "error": None if self.fault is None else self.fault.as_json(),
        }


class _StoppedError(Exception):
    """The output can't be written; going on would fail at each photo again."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault


@takes_photos
@mixes()
def protect(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO...", help="Photos, and folders of photos.", show_default=False),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the cancelable faces go.")],
    subject: SubjectOption = None,
    scope: ScopeOption = "default",
    enrol: Annotated[
        bool, typer.Option("--enrol", help="Issue a first key to whoever has none; leave it out for probes.")
    ] = False,
    together: Annotated[
        bool,
        typer.Option("--together", help="Enrol: one face from all photos of a subject, drawn from their mean."),
    ] = False,
    gallery: GalleryOption = False,
    version: VersionOption = None,
    subjects_from_folders: Annotated[
        bool,
        typer.Option(
            "--subjects-from-folders",
            help="Each sub-folder holds the photos of the subject it is named after.",
        ),
    ] = False,
    dataset: Annotated[
        SetKeys | None,
        typer.Option(
            "--dataset",
            help="Make copies of data sets (a folder of people, a .bin verification set, a train.rec) under a"
            " key for each person, for each claim (.bin: both photos of a pair), or of the gallery.",
        ),
    ] = None,
    recursive: RecursiveOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="Format of the files: png, unless told otherwise.", show_default=False),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Photos in biometric records (ISO/IEC 19794-5 and 39794-5, DG2, ANSI/NIST-ITL): write the record"
            " with the face in it. Of a folder every file is taken.",
        ),
    ] = False,
    mixing: MixerChoice,
    accept_clock: ClockOption = False,
    keystore: KeystoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn photos into cancelable faces.

    One bad photo does not stop the rest: it is listed at the end with the reason. The photos themselves
    are never copied, and no file is replaced without --force.
    """
    if dataset is not None:
        _refuse_beside_dataset(
            dataset,
            {
                "--subject": subject is not None,
                "--gallery": gallery,
                "--version": version is not None,
                "--subjects-from-folders": subjects_from_folders,
                "--together": together,
                "--format": format_ is not None,
                "--faces all": mixing.faces is Several.ALL,
            },
            enrol=enrol,
            record=record,
        )
        jobs = []
    elif subjects_from_folders:
        if subject is not None or gallery or version is not None:
            raise UsageError(
                "--subjects-from-folders takes the subjects from the folders, and their active keys",
                fix="leave --subject, --gallery and --version out",
            )
        jobs = jobs_by_folder(photos, recursive=recursive, every=record)
    else:
        check_owner(subject, gallery, version, also="; or --subjects-from-folders, where each folder is a subject's")
        jobs = jobs_for(photos, subject, recursive=recursive, every=record)
    if enrol and (gallery or version is not None):
        raise UsageError("--enrol issues a first key to a subject", fix="leave --gallery and --version out")
    if together and not (enrol or gallery):
        raise UsageError("--together is for enrolments", fix="add --enrol, or --gallery")
    mixing.check()
    _check_output(output, format_, record=record)

    from anonymix_plugin.cli.keys import open_keys

    with open_keys(keystore, passphrase_fd, accept_clock=accept_clock, references_of=scope) as store:
        if dataset is not None:
            from anonymix_plugin.cli.datasets import SetCopier, protect_sets, sets_in
            from anonymix_plugin.faces import YuNet
            from anonymix_plugin.models import content_of_model

            for path in photos:
                sets_in(path)  # before seconds go into loading weights
            with _Progress(None) as progress, mixing.opened(store, progress.refining) as mixer:
                detector = YuNet(content_of_model("yunet"))
                copier = SetCopier(mixer, detector, dataset, scope, enrol, force, progress.advance)
                protect_sets(copier, photos, output, as_json=as_json)
            return
        if subject is not None and not enrol:  # before seconds go into loading weights
            from anonymix_plugin.keys import KeyChoice

            KeyChoice(subject, scope, version, enrol=False).look_up(store)
        with _Progress(len(jobs)) as progress:
            progress.say("loading weights")
            with mixing.opened(store, progress.refining) as mixer:
                run = _Run(
                    mixer,
                    scope,
                    version,
                    enrol,
                    Names(output, "" if record else (format_ or Format.PNG).suffix),
                    force,
                    progress,
                    record,
                )
                if together:
                    run.enrol_together(jobs)
                else:
                    run.protect(jobs)
    _finish(run, len(jobs), as_json=as_json)


def _check_output(output: Path, format_: Format | None, *, record: bool) -> None:
    if record and format_ is not None:
        raise UsageError("--record keeps the form of the picture in a record", fix="leave --format out")
    if output.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"} and not output.is_dir():
        raise UsageError("the output is a folder, and this looks like a file", where=str(output), fix="-o FOLDER")


def _refuse_beside_dataset(keys: SetKeys, given: Mapping[str, bool], *, enrol: bool, record: bool) -> None:
    if record:
        raise UsageError("--record writes biometric records, and --dataset data sets", fix="leave one of them out")
    if named := [option for option, here in given.items() if here]:
        raise UsageError(
            f"--dataset takes the people from the data set, and {named[0]} contradicts that",
            fix="leave it out",
        )
    if enrol and keys is SetKeys.GALLERY:
        raise UsageError("--enrol issues first keys to subjects", fix="leave it out")


class _Run:
    """Protects photos and writes down what became of each."""

    def __init__(
        self,
        mixer: Anonymixer,
        scope: str,
        version: int | None,
        enrol: bool,
        names: Names,
        force: bool,
        progress: _Progress,
        record: bool,
    ) -> None:
        self._mixer, self._scope, self._version, self._enrol = mixer, scope, version, enrol
        self._names, self._force, self._progress, self._record = names, force, progress, record
        self._inputs: set[tuple[int, int]] = set()
        self.rows: list[_Row] = []
        self.stopped: Fault | None = None

    def protect(self, jobs: Sequence[Job]) -> None:
        """Protect photos; while one face is drawn, the next photo is read and the last face written."""
        # All first faces get their names before any second one, so that a photo of two people does not
        # change what another photo's face is called.
        targets = [self._names.allot(job) for job in jobs]
        self._inputs = {found for job in jobs if (found := _identity(job.source)) is not None}
        work = [(job, target) for job, target in zip(jobs, targets, strict=True) if self._is_free(job, target)]
        with closing(self._mixer.protect_stream(self._requests(job for job, _ in work))) as outcomes:
            try:
                for (job, target), outcome in zip(work, outcomes, strict=True):
                    if outcome.error is not None:
                        self._failed(job, fault_of(outcome.error))
                        continue
                    self._save(job, target, outcome.faces)
                    self._progress.advance()
            except _StoppedError as stop:
                self.stopped = stop.fault
        order = {id(job): number for number, job in enumerate(jobs)}
        self.rows.sort(key=lambda row: order[id(row.job)])
        self._take_back(jobs)

    def enrol_together(self, jobs: Sequence[Job]) -> None:
        """Make one face of all photos of each subject, named after the first one."""
        subjects: dict[str | None, list[Job]] = {}
        for job in jobs:
            subjects.setdefault(job.subject, []).append(job)
        self._inputs = {found for job in jobs if (found := _identity(job.source)) is not None}
        targets = [(group, self._names.allot(group[0])) for group in subjects.values()]
        for group, target in targets:
            if not self._is_free(group[0], target):
                continue
            self._progress.say(printable(Path(group[0].name).name))
            from anonymix_keystore import KeystoreError

            try:
                face = self._mixer.protect(
                    [job.source for job in group], subject=group[0].subject, scope=self._scope, enrol=True
                )[0]
                self._save(group[0], target, [face])
            except (AnonymixError, KeystoreError) as error:
                self._failed(group[0], fault_of(error))
                continue
            except _StoppedError as stop:
                self.stopped = stop.fault
                break
            for number in face.left_out:
                self._failed(group[number], fault_of(DifferentPeopleError(_LEFT_OUT)))
            for _ in group[len(face.left_out) :]:
                self._progress.advance()
        self._take_back(jobs)

    def _take_back(self, jobs: Sequence[Job]) -> None:
        """Leave no subject who is new and has no face: what could be drawn could not be written."""
        from anonymix_plugin.first_keys import TakesBack

        store = self._mixer.keystore
        if self._enrol and isinstance(store, TakesBack):
            made = {row.job.subject for row in self.rows if row.face is not None}
            for subject in {job.subject for job in jobs} - made:
                if subject is not None:
                    store.take_back(subject, self._scope)

    def _requests(self, jobs: Iterator[Job]) -> Iterator[PhotoRequest]:
        from anonymix_plugin.production import PhotoRequest

        for job in jobs:
            self._progress.say(printable(Path(job.name).name))
            yield PhotoRequest(job.source, job.subject, self._scope, self._version, self._enrol)

    def _is_free(self, job: Job, target: Path) -> bool:
        try:
            self._refuse_taken(target)
        except OutputError as error:
            self._failed(job, fault_of(error))
            return False
        return True

    def _refuse_taken(self, target: Path) -> None:
        found = _identity(target)
        if found is None:
            return
        if found in self._inputs:
            raise OutputError(
                "the cancelable face would replace a photo", where=str(target), fix="choose another folder"
            )
        if not self._force:
            raise OutputError(
                "there is already a file here",
                where=str(target),
                fix="choose another folder, or add --force to replace it",
            )

    def _save(self, job: Job, first: Path, faces: Sequence[CancelableFace]) -> None:
        from anonymix_plugin.images import save_cancelable

        for number, face in enumerate(faces):
            target = first if number == 0 else self._names.allot(job)
            try:
                self._refuse_taken(target)
            except OutputError as error:
                self.rows.append(_Row(job, self._scope, fault=fault_of(error)))
                continue
            try:
                make_folder(target.parent)
                save_cancelable(face, target, record=job.source if self._record else None)
            except PhotoError as error:
                self.rows.append(_Row(job, self._scope, fault=fault_of(error)))
                continue
            except OutputError as error:
                fault = fault_of(error)
                self._failed(job, fault)
                raise _StoppedError(fault) from error
            self.rows.append(_Row(job, self._scope, target, face))

    def _failed(self, job: Job, fault: Fault) -> None:
        self.rows.append(_Row(job, self._scope, fault=fault))
        self._progress.advance()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells one file from another, whatever it is called; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


# --- what people see --------------------------------------------------------------------------------


class _Progress:
    """A bar on standard error, if that is a terminal."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)
        self._photo = ""

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Show what is being done."""
        self._photo = text
        self._bar.update(self._task, description=text)

    def refining(self, step: RefineStep) -> None:
        """Show how far the refine method has come with a photo."""
        self._bar.update(self._task, description=f"{self._photo}, step {step.step + 1}")

    def advance(self) -> None:
        """One photo is done."""
        self._bar.advance(self._task)


def _finish(run: _Run, total: int, *, as_json: bool) -> None:
    made = [row for row in run.rows if row.face is not None]
    failed = [row for row in run.rows if row.fault is not None]
    code = _exit_code(run, made, failed)
    if as_json:
        print_json(
            {
                "photos": total,
                "made": len(made),
                "failed": len(failed),
                "exit_code": code,
                "results": [row.as_json() for row in run.rows],
                "error": None if run.stopped is None else run.stopped.as_json(),
            }
        )
    else:
        _print_table(made)
        _print_failures(failed, total)
        if run.stopped is not None:
            show_fault(run.stopped, as_json=False)
    if code:
        raise typer.Exit(code)


def _exit_code(run: _Run, made: list[_Row], failed: list[_Row]) -> int:
    if run.stopped is not None:
        return run.stopped.exit_code
    if not failed:
        return 0
    codes = {row.fault.exit_code for row in failed if row.fault is not None}
    return codes.pop() if not made and len(codes) == 1 else EXIT_SOME_FAILED


def _print_table(made: list[_Row]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    if not made:
        return
    table = Table(
        Column("photo", overflow="fold"),
        Column("cancelable face", overflow="fold"),
        Column("key", justify="right"),
        Column("ms", justify="right"),
    )
    for row in made[:_MOST_ROWS]:
        if row.face is not None:
            table.add_row(
                Text(printable(row.job.name)),
                Text(printable(row.output)),
                f"v{row.face.key_version}",
                f"{1000 * row.face.timings['total']:.0f}",
            )
    console = Console()
    console.print(table)
    left = len(made) - _MOST_ROWS
    if left > 0:
        console.print(f"... and {left} more")


def _print_failures(failed: list[_Row], total: int) -> None:
    from rich.console import Console
    from rich.text import Text

    if not failed:
        return
    console = Console(stderr=True, highlight=False)
    console.print(Text(f"{len({row.job.source for row in failed})} of {total} photos failed:", "bold red"))
    for row in failed:
        if row.fault is None:
            continue
        place = "" if row.fault.where in {"", row.job.name} else f"{row.fault.where}: "
        cure = f" ({row.fault.fix})" if row.fault.fix else ""
        reason = printable(f"{place}{row.fault.what}{cure}")
        console.print(Text.assemble("  ", (printable(row.job.name), "bold"), ": ", reason), soft_wrap=True)
