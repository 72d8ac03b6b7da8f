"""What a protocol is made of, and the checks that every protocol goes through."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_plugin.datasets import PackedPhoto
from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import content_of
from anonymix_plugin.images import default_limits

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_EXAMPLES = 5


@dataclass(frozen=True)
class Notice:
    """Something that was left out or looks wrong, and how often.

    Attributes:
        kind: Stable name, "identical_across_people" for instance.
        what: One sentence on what it is and what was done about it.
        count: How many times.
        examples: The first few of them.
    """

    kind: str
    what: str
    count: int
    examples: tuple[str, ...] = ()

    @classmethod
    def of(cls, kind: str, what: str, cases: Sequence[str]) -> Notice:
        """A notice about listed cases."""
        return cls(kind, what, len(cases), tuple(cases[:_EXAMPLES]))


@dataclass(frozen=True)
class Sample:
    """A photo of a person.

    Attributes:
        photo: The file, or the place in the file of a data set.
        person: Who is on it; the subject id of the evaluation's keys.
        fold: Which fold the person belongs to, from 0. People of different folds are different people.
        sha256: Of the encoded photo, 64 hex digits; "" before `checked` has read it.
    """

    photo: Path | PackedPhoto
    person: str
    fold: int = 0
    sha256: str = ""

    @property
    def source(self) -> Path | bytes:
        """The photo as `decode_photo` takes it: a path, or the bytes of an image file.

        Raises:
            UnreadableImageError: It lies in a data set, and can't be read any more, or is too large.
        """
        if isinstance(self.photo, PackedPhoto):
            return self.photo.read(default_limits().max_bytes)
        return self.photo


@dataclass(frozen=True, eq=False)
class Pairs:
    """Comparisons between samples.

    Attributes:
        first: (n,) int64, index of a sample: the enrolled one.
        second: (n,) int64, index of a sample: the probe.
        same: (n,) bool, whether both show one person.
    """

    first: Integers
    second: Integers
    same: Flags

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, bool]]) -> Pairs:
        """Pairs from (first, second, same)."""
        listed = list(rows)
        columns: tuple[Sequence[int], ...] = tuple(zip(*listed, strict=True)) if listed else ((), (), ())
        return cls(np.array(columns[0], np.int64), np.array(columns[1], np.int64), np.array(columns[2], np.bool_))

    def picked(self, which: npt.NDArray[np.generic]) -> Pairs:
        """Those pairs that an index or a mask picks out."""
        return Pairs(self.first[which], self.second[which], self.same[which])


@dataclass(frozen=True, eq=False)
class Protocol:
    """What is to be compared.

    Attributes:
        name: "lfw", "folder", "pairs", "bin" or "rec".
        title: What it is called in a report.
        samples: Photos under test.
        pairs: Comparisons between them.
        development: Photos of other people, from whom thresholds are taken.
        official: Whether folds and pairs are those of a published protocol.
        notices: What was left out or looks wrong.
        settings: Everything that it depends on, for the report.
    """

    name: str
    title: str
    samples: tuple[Sample, ...]
    pairs: Pairs
    development: tuple[Sample, ...] = ()
    official: bool = False
    notices: tuple[Notice, ...] = ()
    settings: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody under test, in order of appearance."""
        return tuple(dict.fromkeys(sample.person for sample in self.samples))

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len({sample.fold for sample in self.samples})

    def genuine(self) -> Pairs:
        """Pairs of one person."""
        return self.pairs.picked(self.pairs.same)

    def impostor(self) -> Pairs:
        """Pairs of different people."""
        return self.pairs.picked(~self.pairs.same)


def checked(protocol: Protocol, progress: Callable[[int, int], None] = lambda *_: None) -> Protocol:
    """Read the hash of every file, leave out what can't be compared fairly, and say so.

    Left out are pairs whose files are the same bytes: under one person's name they would be no comparison,
    under two names they contradict each other.

    Args:
        protocol: Fresh from one of the readers.
        progress: Called with files read and all files.

    Returns:
        The protocol with hashes, without such pairs and without samples that no pair needs.

    Raises:
        UsageError: A file can't be read, or no genuine or no impostor pairs are left.
    """
    everything = (*protocol.samples, *protocol.development)
    hashed = []
    for number, sample in enumerate(everything, 1):
        hashed.append(replace(sample, sha256=_hash(sample)))
        progress(number, len(everything))
    samples, development = hashed[: len(protocol.samples)], hashed[len(protocol.samples) :]
    notices = [*protocol.notices, *_duplicates(samples)]
    known = {sample.sha256 for sample in samples}
    shared = [sample for sample in development if sample.sha256 in known]
    if shared:
        notices.append(
            Notice.of(
                "development_under_test",
                "files of the development set are under test, too; left out of the development set",
                [str(sample.photo) for sample in shared],
            )
        )
    names = np.array([sample.sha256 for sample in samples])
    pairs = protocol.pairs
    identical = names[pairs.first] == names[pairs.second] if len(pairs) else np.zeros(0, np.bool_)
    if identical.any():
        notices.append(
            Notice.of(
                "identical_pair",
                "pairs of identical files; left out",
                [
                    f"{samples[a].photo} = {samples[b].photo}"
                    for a, b in zip(pairs.first[identical], pairs.second[identical], strict=True)
                ],
            )
        )
    rest = pairs.picked(~identical)
    for kind, present, cure in (
        ("of one person (genuine)", bool(rest.same.any()), "at least one person needs two different photos"),
        ("of different people (impostor)", bool((~rest.same).any()), "at least two people are needed"),
    ):
        if not present:
            raise UsageError(f"no pairs {kind} are left" + _account(notices), where=protocol.title, fix=cure)
    clean = replace(
        protocol,
        samples=tuple(samples),
        development=tuple(sample for sample in development if sample.sha256 not in known),
        pairs=rest,
        notices=tuple(notices),
    )
    return without_idle(clean)


def without_idle(protocol: Protocol) -> Protocol:
    """Leave out samples that no pair needs."""
    used = np.unique(np.concatenate([protocol.pairs.first, protocol.pairs.second]))
    place = np.full(len(protocol.samples), -1, np.int64)
    place[used] = np.arange(len(used))
    pairs = protocol.pairs
    return replace(
        protocol,
        samples=tuple(protocol.samples[int(i)] for i in used),
        pairs=Pairs(place[pairs.first], place[pairs.second], pairs.same),
    )


def excluded(samples: Sequence[Sample], names: Collection[str]) -> tuple[list[Sample], list[Notice]]:
    """Leave out people by name; names that nobody bears are told, as a misspelt one would go unseen."""
    kept = [sample for sample in samples if sample.person not in names]
    found = {sample.person for sample in samples} & set(names)
    notices = []
    if found:
        notices.append(Notice.of("excluded", "people excluded by the list that was given", sorted(found)))
    if missing := sorted(set(names) - found):
        notices.append(Notice.of("unknown_excluded", "names on that list that nobody bears", missing))
    return kept, notices


def require_share(share: float) -> None:
    """Refuse a share of the people for development that is out of range.

    Raises:
        UsageError: It is below 0 or above .8.
    """
    if not 0 <= share <= 0.8:
        raise UsageError(f"a share of {share} can't be", where="development share", fix="use 0..0.8")


def read_names(path: Path) -> frozenset[str]:
    """Read a list of people: one name a line, empty lines and lines that begin with # don't count.

    Raises:
        UsageError: It can't be read, or names nobody.
    """
    try:
        lines = content_of(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the list of people can't be read", where=str(path), fix="give a text file, one name a line"
        ) from error
    names = frozenset(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not names:
        raise UsageError("the list of people is empty", where=str(path))
    return names


def _duplicates(samples: Sequence[Sample]) -> list[Notice]:
    holders: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        holders[sample.sha256].append(sample)
    several = [group for group in holders.values() if len(group) > 1]
    across = [group for group in several if len({sample.person for sample in group}) > 1]
    within = [group for group in several if len({sample.person for sample in group}) == 1]
    notices = []
    for kind, what, groups in (
        (
            "identical_across_people",
            "one file under the names of several people: one of them is wrong",
            across,
        ),
        ("identical_files", "one file several times under one person's name", within),
    ):
        if groups:
            notices.append(
                Notice.of(kind, what, [" = ".join(str(sample.photo) for sample in group) for group in groups])
            )
    return notices


def _account(notices: Sequence[Notice]) -> str:
    return "".join(f"; {notice.count} × {notice.what}" for notice in notices)


def _hash(sample: Sample) -> str:
    if isinstance(sample.photo, PackedPhoto):
        return hashlib.sha256(sample.photo.read(sample.photo.size)).hexdigest()
    try:
        with sample.photo.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"a photo can't be read: {error.strerror}",
            where=str(sample.photo),
            fix="check the path and permissions",
        ) from error


def photos_each(samples: Iterable[Sample]) -> Counter[str]:
    """How many samples there are of each person."""
    return Counter(sample.person for sample in samples)
