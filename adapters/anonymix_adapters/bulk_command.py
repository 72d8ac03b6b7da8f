"""`anonymix bulk renew`: after a rotation, exchange the entries of a back end, in a way that survives interruptions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from anonymix_adapters.bulk_renewal import BulkRenewal, Counts, Photos
from anonymix_adapters.drawn import DrawnFaces
from anonymix_adapters.errors import AdapterError, asked_to_stop, in_words
from anonymix_adapters.interceptor import FaceMixer, Interceptor
from anonymix_adapters.protocol import BackEnd
from anonymix_adapters.renewal import sealed_original
from anonymix_keystore import EnrolmentInfo, KeystoreError
from anonymix_plugin.bulk import photo_store, rehearse
from anonymix_plugin.cli.bulk_work import (
    MOST_FAILURES,
    SAMPLE,
    Bar,
    WorkChoice,
    print_estimate,
    print_failures,
    works,
)
from anonymix_plugin.cli.keys import open_keys
from anonymix_plugin.cli.options import (
    ClockOption,
    DescriptorOption,
    JsonOption,
    KeystoreOption,
    MixerChoice,
    Several,
    mixes,
    takes_photos,
)
from anonymix_plugin.cli.report import EXIT_KEYS, EXIT_SOME_FAILED, fault_of, print_json, printable
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.images import default_limits, read_source

_NAMES: Final = ("interceptor", "collection", "enrol", "verify", "delete", "entries")
Opener: TypeAlias = Callable[[FaceMixer], AbstractContextManager[BackEnd]]


@takes_photos
@mixes()
@works
def renew(
    back_end: Annotated[
        str,
        typer.Argument(
            metavar="BACK_END",
            help="FILE.py:NAME or MODULE:NAME, a function of yours that takes the mixer and opens the back end; see "
            "docs/scale.md.",
            show_default=False,
        ),
    ],
    *,
    photos: Annotated[
        str | None,
        typer.Option(
            "--photos",
            metavar="PLACE",
            help="A folder with a folder of photos for each subject, or a table (.csv, .parquet) with the columns "
            "subject and photo (and scope). Without it the keystore's sealed originals are taken.",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        str, typer.Option("--scope", help="Scope of the subjects in a folder, and of table rows that name none.")
    ] = "default",
    outcomes: Annotated[
        Path | None,
        typer.Option(
            "--outcomes", "-o", metavar="FILE", help="Where a CSV table of all outcomes goes.", show_default=False
        ),
    ] = None,
    calls: Annotated[
        int, typer.Option("--calls", metavar="N", min=1, max=256, help="Calls that the back end gets at a time.")
    ] = 1,
    working: WorkChoice,
    mixing: MixerChoice,
    accept_clock: ClockOption = False,
    keystore: KeystoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """After a rotation: make a new entry for everybody whose entry is due, verify it, delete the old one.

    The work list is that of `anonymix keys due`. The same command again goes on where a run was stopped, and takes
    up what failed.
    """
    mixing.check()
    if mixing.faces is Several.ALL:
        raise UsageError("an entry shows one face", where="--faces", fix="choose largest, central or error")
    work, options = working.work(), working.mixer_options(mixing)
    opener = _opener(back_end)
    stored = None if photos is None else photo_store(photos, scope)

    def from_store(item: EnrolmentInfo) -> Sequence[bytes]:
        return stored(item.subject, item.scope) if stored is not None else ()

    how: dict[str, Any] = {"accept_clock": accept_clock, "references_of": "", "originals": photos is None}
    with open_keys(keystore, passphrase_fd, **how) as store:
        faces = DrawnFaces(store)
        with _opened(opener, faces, back_end) as opened:
            source = from_store if stored is not None else _originals(opened.interceptor)
            with BulkRenewal(store, faces, opened, source, calls=calls) as job, Bar() as bar:
                if working.dry_run:
                    rows, entries, people = job.sample(work.workers * SAMPLE)
                    figures = rehearse(rows, options, work)
                    _say_due(entries, people, as_json=as_json)
                    if job.damage is None or not as_json:
                        print_estimate(figures, people, work.workers, as_json=as_json)
                    if job.damage is not None:
                        raise job.damage
                    return
                if outcomes is not None:
                    job.export(outcomes)  # a place that can't be written to is told before anything is done
                counts = job.run(options, work, lambda it: bar.show(it.renewed + it.failed, it.failed, it.total))
                if outcomes is not None:
                    job.export(outcomes)
                _finish(job, counts, outcomes, as_json=as_json)


def _say_due(entries: int, people: int, *, as_json: bool) -> None:
    if not as_json:
        typer.echo(f"{entries:,} entries are due; {people:,} people are to be enrolled again")
        typer.echo("the back end's own time comes on top of what follows:")


def _originals(interceptor: Interceptor) -> Photos:
    sealed = sealed_original(interceptor)

    def photos(item: EnrolmentInfo) -> Sequence[bytes]:
        found = sealed(item)
        several = found if isinstance(found, list) else [] if found is None else [found]
        return [read_source(one, default_limits())[0] for one in several]  # type: ignore[arg-type]

    return photos


def _opener(name: str) -> Opener:
    """The function that a back end is named by.

    Raises:
        UsageError: There is none.
        AdapterError: Its module can't be imported.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute.isidentifier():
        raise UsageError("this names no back end", where="BACK_END", fix="write PATH:NAME, or MODULE:NAME")
    try:
        module: Any = _module_in(Path(place)) if place.endswith(".py") else import_module(place)
    except UsageError:
        raise
    except BaseException as error:
        if asked_to_stop(error):
            raise
        raise AdapterError(f"it can't be imported: {in_words(error)}", where=place, fix="run it by itself") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise UsageError(f"there is no function {attribute} in it", where=place, fix="see docs/scale.md")
    return found  # type: ignore[no-any-return]


def _module_in(path: Path) -> Any:
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError("there is no such file", where=str(path), fix="name the file that opens your back end")
    module = module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _opened(opener: Opener, faces: DrawnFaces, name: str) -> Iterator[BackEnd]:
    with ExitStack() as stack:
        try:
            opened = opener(faces)
            if not isinstance(opened, AbstractContextManager):
                fix = "write @contextmanager over it, and yield the back end"
                raise UsageError("the function gives no context manager", where=name, fix=fix)
            back_end = stack.enter_context(opened)
        except (AnonymixError, KeystoreError):
            raise
        except Exception as error:
            what, fix = f"the back end can't be opened: {in_words(error)}", "see to it, and start again"
            raise AdapterError(what, where=name, fix=fix) from error
        missing = [each for each in _NAMES if not hasattr(back_end, each)]
        if missing:
            what = f"what the function yields is no back end: it has no {', '.join(missing)}"
            raise UsageError(what, where=name, fix="see BackEnd in docs/scale.md")
        yield back_end


def _finish(job: BulkRenewal, counts: Counts, outcomes: Path | None, *, as_json: bool) -> None:
    code = EXIT_KEYS if job.damage is not None else EXIT_SOME_FAILED if counts.failed else 0
    if as_json:
        told: dict[str, object] = {
            "renewed": counts.renewed,
            "failed": counts.failed,
            "deleted": counts.deleted,
            "strays": counts.strays,
            "due": counts.total,
            "finished": counts.finished,
            "outcomes": None if outcomes is None else str(outcomes),
            "exit_code": code,
        }
        print_json(told if job.damage is None else told | {"error": fault_of(job.damage).as_json()})
    else:
        typer.echo(f"{counts.renewed} people renewed, {counts.failed} failed, {counts.deleted} old entries deleted")
        if counts.strays:
            typer.echo(f"{counts.strays} entries without a record, left by an interrupted run, were deleted")
        failures = job.failures(MOST_FAILURES if counts.failed else 0)
        print_failures((item.subject, item.what, item.fix) for item in failures)
        if outcomes is not None:
            typer.echo(f"outcomes: {printable(outcomes)}")
        if not counts.finished:
            typer.echo("not finished: the same command goes on")
        if job.damage is not None:
            raise job.damage
    if code:
        raise typer.Exit(code)
