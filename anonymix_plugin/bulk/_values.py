"""The values of bulk work: rows in, blocks on the way, results out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from anonymix_keystore import KeystoreError, SubjectKey
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.words import clean, shown


class BulkError(AnonymixError):
    """A bulk job can't begin or go on; what is in its ledger stays."""

    exit_code = 1
    code = "bulk"


@dataclass(frozen=True)
class Row:
    """One photo of a bulk job.

    Attributes:
        source: The photo's path or address; what messages call it where `load` gives the photo.
        subject: Whose key; None for the gallery key of the scope.
        scope: The scope of the key.
        output: Where its cancelable face goes, relative to the target folder.
        load: Gives the image files where workers can't read them: called in the driver when the row is begun, and
            sealed on the way. Several are one enrolment, drawn from all of them.
        enrols: Whether it is an enrolment: where the scope keeps references, and the subject has none, it makes one.
    """

    source: Path | str
    subject: str | None
    scope: str
    output: Path
    load: Callable[[], Sequence[bytes]] | None = field(default=None, repr=False, compare=False)
    enrols: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Fault:
    """Why there is no face: the fields of an error (`AnonymixError`)."""

    code: str
    what: str
    where: str = ""
    fix: str = ""

    @classmethod
    def of(cls, error: AnonymixError | KeystoreError) -> Fault:
        """The fault that an error tells of, without photos and secrets that a text may quote."""
        return cls(error.code, clean(error.what), shown(error.where) if error.where else "", clean(error.fix))


@dataclass(frozen=True)
class Result:
    """What became of one row.

    Attributes:
        image: The image file; None after a fault.
        key_version: Version of the key, 0 after a fault.
        fingerprint: Mixer fingerprint.
        method: "fast" or "refine".
        engine: What drew the face.
        quality: Quality of the face, as `CancelableFace.quality`.
        box: Where the face was in the photo, as `CancelableFace.box`.
        photo: In which of several photos that was.
        fault: What went wrong, or None.
    """

    image: bytes | None = field(default=None, repr=False)
    key_version: int = 0
    fingerprint: str = ""
    method: str = ""
    engine: str = ""
    quality: float = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    photo: int = 0
    fault: Fault | None = None


@dataclass(eq=False)
class Block:
    """Rows that are done together.

    Attributes:
        number: 0, 1, ... in the order of the source.
        first: Number of its first row.
        rows: The rows.
        results: By place in the block; complete when there is one for each row.
        keys: The keys that its faces were made under, by place, until it is written.
    """

    number: int
    first: int
    rows: Sequence[Row]
    results: dict[int, Result] = field(default_factory=dict)
    keys: dict[int, SubjectKey] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """SHA-256 of its rows: a block of the same name asks for the same faces."""
        told = [[str(row.source), row.subject, row.scope, str(row.output)] for row in self.rows]
        return hashlib.sha256(json.dumps([self.first, told]).encode()).hexdigest()


def blocks_of(rows: Iterable[Row], size: int) -> Iterator[Block]:
    """Blocks of `size` rows, the last one smaller; rows are read as they are needed."""
    rest, number = iter(rows), 0
    while group := tuple(islice(rest, size)):
        yield Block(number, number * size, group)
        number += 1


@dataclass(frozen=True)
class Summary:
    """How a job stands.

    Attributes:
        made: Rows with a face.
        failed: Rows without.
        finished: Whether all rows of the source are done.
    """

    made: int
    failed: int
    finished: bool


@dataclass(frozen=True)
class Mixer:
    """What a worker's mixer is.

    Attributes:
        fingerprint: The mixer fingerprint.
        guided: The fingerprint of faces that a sealed reference had a say in; "" where none has.
        engine: What draws.
        subspace: Hash of the identity subspace that references belong to.
    """

    fingerprint: str
    guided: str
    engine: str
    subspace: str = ""


@dataclass(frozen=True)
class Figures:
    """What a rehearsal measured.

    Attributes:
        photos: How many photos were worked on.
        made: How many of them gave a face.
        seconds: How long it took, all workers together, without loading weights.
        image_bytes: Bytes of the faces.
    """

    photos: int
    made: int
    seconds: float
    image_bytes: int
