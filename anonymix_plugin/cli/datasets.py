"""`anonymix protect --dataset`: copies of data sets in which all faces are cancelable ones."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import typer

from anonymix_plugin.cli._photos import jobs_by_folder
from anonymix_plugin.cli.options import SetKeys
from anonymix_plugin.cli.report import EXIT_SOME_FAILED, print_json, printable
from anonymix_plugin.datasets import (
    PackedPhoto,
    Record,
    RecordWriter,
    VerificationWriter,
    is_verification_set,
    people_of,
    read_records,
    read_verification_set,
)
from anonymix_plugin.errors import OutputError, PhotoError, UsageError
from anonymix_plugin.files import content_of, write_bytes

if TYPE_CHECKING:
    from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_plugin.faces import Detector
    from anonymix_plugin.images import ImageFormat, ImageLimits
    from anonymix_plugin.production import PhotoRequest
    from anonymix_plugin.values import CancelableFace

_ALIGNED: Final = 112  # side in pixels of the aligned crops that InsightFace's sets hold
_SHOWN: Final = 20
_KEPT_LABELS: Final = 2
_FORMATS: Final[dict[str, ImageFormat]] = {"JPEG": "JPEG", "WEBP": "WEBP"}  # all others become PNG
_SUFFIXES: Final = {".jpg", ".jpeg", ".jpe", ".png", ".webp"}


@dataclass
class Copied:
    """What became of one data set.

    Attributes:
        source: Where it lies.
        output: Where its copy lies.
        photos: How many photos it holds.
        made: How many cancelable faces are in the copy.
        failures: The first photos that could not be protected, and why.
        failed: How many those are.
        notes: What else is different in the copy.
    """

    source: Path
    output: Path
    photos: int = 0
    made: int = 0
    failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fail(self, name: str, reason: str) -> None:
        """Count a photo that is not in the copy."""
        self.failed += 1
        if len(self.failures) < _SHOWN:
            self.failures.append((name, reason))

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "source": str(self.source),
            "output": str(self.output),
            "photos": self.photos,
            "made": self.made,
            "failed": self.failed,
            "failures": [{"photo": name, "reason": reason} for name, reason in self.failures],
            "notes": self.notes,
        }


Tag = TypeVar("Tag")


@dataclass(frozen=True)
class _Item(Generic[Tag]):
    """A photo of a set: what it is there, where it lies, and whose key it gets (None: the gallery's)."""

    tag: Tag
    photo: Path | PackedPhoto
    subject: str | None

    def read(self, limits: ImageLimits) -> bytes:
        from anonymix_plugin.images import read_source

        if isinstance(self.photo, PackedPhoto):
            return self.photo.read(limits.max_bytes)
        return read_source(self.photo, limits)[0]


class _Lazy:
    """A binary file that is read when the photo's turn comes: what is wrong with it is then that photo's."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._done = False

    def read(self, _: int = -1) -> bytes:
        if self._done:
            return b""
        self._done = True
        return self._read()


@dataclass(frozen=True)
class SetCopier:
    """Makes protected copies of data sets.

    Attributes:
        mixer: Makes cancelable faces.
        detector: Finds the landmarks of cancelable faces, where aligned crops are wanted.
        keys: Whose keys.
        scope: Scope of the keys.
        enrol: Whether first keys are issued.
        force: Whether files that are there are replaced.
        advance: Called after each photo.
    """

    mixer: Anonymixer
    detector: Detector
    keys: SetKeys
    scope: str
    enrol: bool
    force: bool
    advance: Callable[[], None] = lambda: None

    def copy(self, source: Path, output: Path) -> Iterator[Copied]:
        """Copy one set, or all that lie in a folder.

        Raises:
            UsageError: It is no data set, is damaged, or no photo of it can be protected.
            OutputError: The copy can't be written, or is there already.
        """
        for one in sets_in(source):
            if one.is_dir():
                yield self._folder(one, output)
            elif one.suffix.lower() == ".rec":
                yield self._records(one, output / one.name)
            else:
                yield self._pairs(one, output / one.name)

    # --- kinds of sets

    def _pairs(self, source: Path, output: Path) -> Copied:
        self._refuse_taken(source, output)
        found = read_verification_set(source)
        copied = Copied(source, output, len(found.photos))
        people = people_of(found)[0] if self.keys is not SetKeys.GALLERY else []

        def subject(number: int) -> str | None:
            if self.keys is SetKeys.GALLERY:
                return None
            # A claim is made for the first photo of the pair: the second is mixed under the same key.
            owner = number - number % 2 if self.keys is SetKeys.CLAIM else number
            return f"{source.name}:{people[owner] + 1}"

        items = (_Item(number, photo, subject(number)) for number, photo in enumerate(found.photos))
        same: list[bool] = []
        first: bytes | None = None
        with VerificationWriter.into(output, lambda: same) as writer:
            for item, face in self._faces(items, copied):
                if item.tag % 2 == 0:
                    first = face
                    continue
                if first is not None and face is not None:
                    writer.add(first)
                    writer.add(face)
                    same.append(found.same[item.tag // 2])
            copied.made = 2 * len(same)
            self._refuse_nothing(copied)
        if left := len(found.same) - len(same):
            copied.notes.append(f"{left:,} of {len(found.same):,} pairs are left out, both photos of each")
        return copied

    def _records(self, source: Path, output: Path) -> Copied:
        self._refuse_pairs(source)
        self._refuse_taken(source, output)
        self._refuse_taken(source.with_suffix(".idx"), output.with_suffix(".idx"))
        facts, copy = source.with_name("property"), output.with_name("property")
        if facts.is_file():
            self._refuse_taken(facts, copy)
        layout = _Layout(source)
        copied = Copied(source, output)

        def photos() -> Iterator[_Item[Record]]:
            for record in layout.photos():
                if record.photo is not None:
                    copied.photos += 1
                    yield _Item(record, record.photo, self._labelled(source, record))

        with RecordWriter.into(output) as writer:
            if layout.head is not None:
                writer.add(layout.head)
            for item, face in self._faces(photos(), copied):
                if face is None:
                    layout.lost(item.tag.key)
                    continue
                labels = item.tag.labels[:_KEPT_LABELS]
                layout.measured += len(item.tag.labels) > _KEPT_LABELS
                writer.add(replace(item.tag, key=layout.place(item.tag.key), labels=labels), face)
                copied.made += 1
            for record in layout.identities():
                writer.add(record)
            if layout.head is not None:
                writer.relabel(layout.head)
            self._refuse_nothing(copied)
        copied.notes += layout.notes
        if facts.is_file():
            write_bytes(copy, content_of(facts))
        return copied

    def _labelled(self, source: Path, record: Record) -> str | None:
        return None if self.keys is SetKeys.GALLERY else f"{source.name}:{record.label:.9g}"

    def _folder(self, source: Path, output: Path) -> Copied:
        self._refuse_pairs(source)
        jobs = jobs_by_folder([source], recursive=True)
        copied = Copied(source, output, len(jobs))
        targets: dict[Path, Path] = {}
        taken: set[str] = set()
        for job in jobs:
            kept = job.source.suffix.lower() in _SUFFIXES
            target = output / job.folder / (job.source.name if kept else f"{job.source.name}.png")
            if str(target).casefold() in taken:
                raise UsageError("two photos would become one file", where=str(target), fix="rename one of them")
            taken.add(str(target).casefold())
            self._refuse_taken(job.source, target)
            targets[job.source] = target
        if renamed := sum(target.name != path.name for path, target in targets.items()):
            copied.notes.append(f"files of formats that are not written became PNG files, with .png added: {renamed:,}")
        gallery = self.keys is SetKeys.GALLERY
        items = (_Item(job.source, job.source, None if gallery else job.subject) for job in jobs)
        for item, face in self._faces(items, copied):
            if face is not None:
                write_bytes(targets[item.tag], face)
                copied.made += 1
        self._refuse_nothing(copied)
        return copied

    # --- what they have in common

    def _faces(self, items: Iterable[_Item[Tag]], copied: Copied) -> Iterator[tuple[_Item[Tag], bytes | None]]:
        """Each photo with the file of its cancelable face; None where there is none."""
        from anonymix_plugin.images import default_limits

        limits = default_limits()
        waiting: deque[_Item[Tag]] = deque()

        def requests() -> Iterator[PhotoRequest]:
            from anonymix_plugin.production import PhotoRequest

            for item in items:
                waiting.append(item)
                image: Any = _Lazy(partial(item.read, limits))
                yield PhotoRequest(image, item.subject, self.scope, None, self.enrol)

        with closing(self.mixer.protect_stream(requests())) as outcomes:
            for outcome in outcomes:
                item = waiting.popleft()
                face: bytes | None = None
                try:
                    if outcome.error is not None:
                        raise outcome.error
                    face = self._file_of(outcome.faces[0], item.read(limits))
                except PhotoError as error:
                    copied.fail(_name(item.photo), error.what)
                self.advance()
                yield item, face

    def _file_of(self, face: CancelableFace, original: bytes) -> bytes:
        """A file of the original's format; an aligned crop where the original is one."""
        from anonymix_plugin.faces import recogniser_crop, select_faces
        from anonymix_plugin.images import encode_cancelable, glance
        from anonymix_plugin.values import Photo

        seen = glance(original)
        if (seen.width, seen.height) == (_ALIGNED, _ALIGNED):
            drawn = Photo(face.pixels, "the cancelable face")
            found = select_faces(self.detector.detect(drawn), "largest", drawn)[0]
            face = replace(face, pixels=recogniser_crop(found, _ALIGNED))
        return encode_cancelable(face, _FORMATS.get(seen.kind, "PNG"))

    def _refuse_taken(self, source: Path, target: Path) -> None:
        if target.exists() and source.exists() and target.samefile(source):
            raise OutputError("the copy would replace the data set", where=str(target), fix="choose another folder")
        if target.exists() and not self.force:
            raise OutputError(
                "there is already a file here",
                where=str(target),
                fix="choose another folder, or add --force to replace it",
            )

    def _refuse_pairs(self, source: Path) -> None:
        if self.keys is SetKeys.CLAIM:
            raise UsageError(
                "claims are for sets of pairs, InsightFace's .bin files",
                where=str(source),
                fix="--dataset person or --dataset gallery",
            )

    def _refuse_nothing(self, copied: Copied) -> None:
        if not copied.made:
            reason = f": {copied.failures[0][1]}" if copied.failures else ""
            raise UsageError(f"no photo of it could be protected{reason}", where=str(copied.source))


def sets_in(path: Path) -> list[Path]:
    """The data sets that a path stands for: itself, or those that lie in the folder, or the folder.

    Raises:
        UsageError: It is none.
    """
    if path.is_dir():
        inside = sorted(one for one in path.iterdir() if one.is_file() and _is_packed(one))
        return inside or [path]
    if path.is_file() and _is_packed(path):
        return [path]
    raise UsageError(
        "this is no data set" if path.exists() else "there is no such file or folder",
        where=str(path),
        fix="give a folder with one sub-folder for each person, a verification set (.bin), or a .rec file",
    )


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".rec" or is_verification_set(path)


class _Layout:
    """The order of records, and what becomes of it where photos are left out.

    InsightFace's sets begin with a record 0 whose labels are the number after the last photo's key and the
    one after the last identity's; identities come after the photos, with the range of their photos as labels.
    Keys then run without a gap. Any other file keeps its keys.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        first = next(read_records(source), None)
        self._head = first if first is not None and first.key == 0 and _is_range(first) else None
        self._identities: list[Record] = []
        self._lost: list[int] = []
        self.measured = 0

    def photos(self) -> Iterator[Record]:
        """The records with photos; the identities are remembered."""
        before = -1
        for record in read_records(self._source):
            if self._head is not None and record.key != before + 1:
                raise UsageError(f"record {record.key} stands out of order", where=str(self._source))
            before = record.key
            if record.photo is not None:
                yield record
            elif self._head is None or not _is_range(record):
                raise UsageError(f"record {record.key} holds no photo", where=str(self._source))
            elif record.key:
                self._identities.append(record)

    @property
    def head(self) -> Record | None:
        """Record 0 with its labels as they are by now, where the file has one."""
        if self._head is None:
            return None
        photos, identities = self._head.labels
        return replace(self._head, labels=(photos - len(self._lost), identities - len(self._lost)))

    def identities(self) -> Iterator[Record]:
        """The identities, with the ranges that their photos have in the copy."""
        for record in self._identities:
            labels = tuple(float(self._moved(int(label))) for label in record.labels)
            yield replace(record, key=record.key - len(self._lost), labels=labels)

    def lost(self, key: int) -> None:
        """A photo is left out."""
        self._lost.append(key)

    def place(self, key: int) -> int:
        """The key of a photo in the copy."""
        return key if self._head is None else self._moved(key)

    def _moved(self, key: int) -> int:
        return key - bisect_left(self._lost, key)

    @property
    def notes(self) -> list[str]:
        """What is different in the copy."""
        notes = []
        if self._lost and self._head is not None:
            notes.append("keys were counted again, without the photos that are left out")
        if self.measured:
            notes.append(
                f"{self.measured:,} records lost their labels after the second: points and other measures of "
                "the original face"
            )
        return notes


def _is_range(record: Record) -> bool:
    return record.photo is None and record.several and len(record.labels) == 2


def _name(photo: Path | PackedPhoto) -> str:
    return photo.name if isinstance(photo, PackedPhoto) else str(photo)


def protect_sets(copier: SetCopier, sources: list[Path], output: Path, *, as_json: bool) -> None:
    """Copy data sets one after the other, and say what became of them.

    Raises:
        typer.Exit: Some photos could not be protected; code 1.
        UsageError: As of `SetCopier.copy`.
        OutputError: As of `SetCopier.copy`.
    """
    done = [copied for source in sources for copied in copier.copy(source, output)]
    code = EXIT_SOME_FAILED if any(copied.failed for copied in done) else 0
    if as_json:
        print_json({"sets": [copied.as_json() for copied in done], "exit_code": code})
    else:
        for copied in done:
            _say(copied)
    if code:
        raise typer.Exit(code)


def _say(copied: Copied) -> None:
    typer.echo(f"{printable(copied.output)}: {copied.made:,} of {copied.photos:,} photos")
    for note in copied.notes:
        typer.echo(f"  {printable(note)}")
    for name, reason in copied.failures:
        typer.echo(f"  {printable(name)}: {printable(reason)}", err=True)
    if (more := copied.failed - len(copied.failures)) > 0:
        typer.echo(f"  ... and {more:,} more", err=True)
