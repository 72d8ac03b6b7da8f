"""Files of pairs: CSV, and InsightFace's verification sets."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from anonymix_lab.data._values import Notice, Pairs, Protocol, Sample, checked, excluded, require_share
from anonymix_plugin.datasets import PackedPhoto, people_of, read_verification_set
from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import require_regular

_YES: Final = frozenset({"1", "true", "yes", "same", "genuine"})
_NO: Final = frozenset({"0", "false", "no", "different", "impostor"})
_NEEDED: Final = ("first", "second", "same")
_FORM: Final = "a header first,second,same (and fold, if wanted), then one pair a line: a.jpg,b.jpg,1"

Photo = Path | PackedPhoto


@dataclass
class _Row:
    line: int
    first: Photo
    second: Photo
    same: bool
    fold: str


def pairs_protocol(
    path: Path,
    *,
    root: Path | None = None,
    limit: int | None = None,
    exclude: Collection[str] = (),
    seed: int = 1,
    development_share: float = 0.3,
) -> Protocol:
    """Read a CSV file of pairs.

    Its header is `first,second,same`, with an optional `fold`; paths are relative to `root`. Who is one
    person follows from the genuine pairs: photos that they connect are one person's. A person is called
    after the first of the photos, as it stands in the file.

    Args:
        path: The CSV file, UTF-8.
        root: Folder that paths are relative to; the file's own by default.
        limit: At most so many pairs, half of them genuine, drawn by the seed.
        exclude: People (paths of first photos) who must not appear.
        seed: Draws pairs and divides people.
        development_share: Share of the people for development, 0..0.8; the pairs among them are not tested.

    Raises:
        UsageError: The file can't be read, has no such header, no pairs that can be used, or contradicts
            itself: a pair is impostor although genuine pairs connect its photos.
    """
    require_share(development_share)
    rows, notices = _read(path, root or path.parent)
    return _protocol("pairs", path, rows, notices, root or path.parent, limit, exclude, seed, development_share)


def verification_protocol(
    path: Path,
    *,
    limit: int | None = None,
    exclude: Collection[str] = (),
    seed: int = 1,
    development_share: float = 0.0,
) -> Protocol:
    """Read a verification set of InsightFace, such as `lfw.bin`.

    Folds are ten runs of its pairs, as InsightFace's own script has them. Who is one person follows from the
    genuine pairs and from equal photos; a person is called after the first photo: "lfw.bin[12]".

    Args:
        path: The file.
        limit: As of `pairs_protocol`.
        exclude: As of `pairs_protocol`.
        seed: As of `pairs_protocol`.
        development_share: As of `pairs_protocol`. With 0, as by default, all pairs are tested, and thresholds
            are those known of the recogniser: the impostor pairs of such sets join most people.

    Raises:
        UsageError: It is no such file, or contradicts itself as of `pairs_protocol`.
    """
    require_share(development_share)
    found = read_verification_set(path)
    _, digests = people_of(found)
    first: dict[str, PackedPhoto] = {}
    photos = [first.setdefault(digest, photo) for digest, photo in zip(digests, found.photos, strict=True)]
    rows: list[_Row] = []
    repeated: list[_Row] = []
    equal: list[_Row] = []
    seen: set[tuple[frozenset[PackedPhoto], bool]] = set()
    for pair, same in enumerate(found.same):
        row = _Row(pair, photos[2 * pair], photos[2 * pair + 1], same, f"{10 * pair // len(found.same)}")
        name = (frozenset((photos[2 * pair], photos[2 * pair + 1])), same)
        (repeated if name in seen else equal if row.first == row.second else rows).append(row)
        seen.add(name)
    notices = [
        Notice.of(kind, what, [f"pair {row.line}" for row in cases])
        for kind, what, cases in (
            ("repeated_pair", "pairs that stand in the file before; left out", repeated),
            ("identical_pair", "pairs of identical files; left out", equal),
        )
        if cases
    ]
    return _protocol("bin", path, rows, notices, path.parent, limit, exclude, seed, development_share)


def _protocol(
    name: str,
    path: Path,
    rows: list[_Row],
    notices: list[Notice],
    root: Path,
    limit: int | None,
    exclude: Collection[str],
    seed: int,
    development_share: float,
) -> Protocol:
    person = _people(rows, root)
    contradictions = [row for row in rows if not row.same and person[row.first] == person[row.second]]
    if contradictions:
        row = contradictions[0]
        raise UsageError(
            f"{len(contradictions)} impostor pairs show one person by other pairs of the file",
            where=f"{path}:{row.line}",
            fix=f"{row.first.name} and {row.second.name} can't be both one person's and not",
        )
    random = np.random.Generator(np.random.Philox(seed))
    people = sorted(set(person.values()))
    # Only people whom impostor pairs and genuine pairs can do without are kept apart: whole groups of people
    # who are compared with each other stay together.
    order = [people[int(i)] for i in random.permutation(len(people))]
    apart = set(order[: round(len(order) * development_share)]) if len(order) >= 12 else set()
    crossing = [row for row in rows if (person[row.first] in apart) != (person[row.second] in apart)]
    if crossing:
        notices.append(
            Notice.of(
                "across_development",
                "pairs between people under test and people kept apart for thresholds; left out",
                [f"line {row.line}" for row in crossing],
            )
        )
    tested = [row for row in rows if person[row.first] not in apart and person[row.second] not in apart]
    tested = _drawn(tested, limit, random)
    names = {row.fold for row in tested}
    folds = {name: number for number, name in enumerate(sorted(names))}
    samples: dict[Photo, int] = {}
    listed: list[Sample] = []
    fold_of: dict[str, int] = {}  # a person stays in the fold where it is met first
    for row in tested:
        for photo in (row.first, row.second):
            if photo not in samples:
                samples[photo] = len(listed)
                fold = fold_of.setdefault(person[photo], folds[row.fold])
                listed.append(Sample(photo, person[photo], fold))
    kept, more = excluded(listed, exclude)
    notices += more
    pairs = Pairs.of((samples[row.first], samples[row.second], row.same) for row in tested)
    if len(kept) < len(listed):
        out = np.array([sample.person in exclude for sample in listed])
        pairs = pairs.picked(~(out[pairs.first] | out[pairs.second]))
    spare = sorted((photo for photo, who in person.items() if who in apart and who not in exclude), key=str)
    return checked(
        Protocol(
            name=name,
            title=path.name,
            samples=tuple(listed),
            pairs=pairs,
            development=tuple(Sample(photo, person[photo]) for photo in spare),
            notices=tuple(notices),
            settings={
                "limit": limit or 0,
                "seed": seed,
                "development": f"{len(apart)} of {len(people)} people",
            },
        )
    )


def _drawn(rows: list[_Row], limit: int | None, random: np.random.Generator) -> list[_Row]:
    if limit is None:
        return rows
    if limit < 2:
        raise UsageError("a limit of at least 2 pairs is needed", where=f"limit {limit}")
    chosen = []
    for same, count in ((True, (limit + 1) // 2), (False, limit // 2)):
        own = [number for number, row in enumerate(rows) if row.same is same]
        chosen += [own[int(i)] for i in random.permutation(len(own))[:count]]
    return [rows[number] for number in sorted(chosen)]


def _read(path: Path, root: Path) -> tuple[list[_Row], list[Notice]]:
    bad: list[str] = []
    missing: list[str] = []
    repeated: list[str] = []
    rows: list[_Row] = []
    seen: dict[frozenset[Path], bool] = {}
    for line, fields in _lines(path):
        same = fields["same"].strip().lower()
        first, second = fields["first"].strip(), fields["second"].strip()
        if same not in _YES | _NO or not first or not second:
            bad.append(f"line {line}")
            continue
        photos = (root / first, root / second)
        if absent := [photo for photo in photos if not photo.is_file()]:
            missing.append(f"line {line}: {absent[0]}")
            continue
        row = _Row(line, *photos, same in _YES, (fields.get("fold") or "").strip())
        name = frozenset(photos)
        if seen.get(name) == row.same:
            repeated.append(f"line {line}")
            continue
        if name in seen:
            raise UsageError(
                "this pair stands in the file as genuine and as impostor",
                where=f"{path}:{line}",
                fix="leave one of the two lines out",
            )
        seen[name] = row.same
        rows.append(row)
    notices = [
        Notice.of(kind, what, cases)
        for kind, what, cases in (
            ("unreadable_pair", "lines that are no pair; left out", bad),
            ("missing_photo", "pairs with a photo that is not there; left out", missing),
            ("repeated_pair", "pairs that stand in the file before; left out", repeated),
        )
        if cases
    ]
    if not rows:
        counts = "".join(f"; {notice.count} × {notice.what}" for notice in notices)
        raise UsageError(f"there is no pair that can be used{counts}", where=str(path), fix=_FORM)
    return rows, notices


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        require_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames is None or any(name not in reader.fieldnames for name in _NEEDED):
                raise UsageError("the header of the pairs is not there", where=f"{path}:1", fix=_FORM)
            for fields in reader:
                yield reader.line_num, {name: fields.get(name) or "" for name in (*_NEEDED, "fold")}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError("the pairs can't be read", where=str(path), fix=_FORM) from error


def _people(rows: list[_Row], root: Path) -> dict[Photo, str]:
    """Who is on each photo: the genuine pairs connect photos (union-find)."""
    parent: dict[Photo, Photo] = {}

    def find(photo: Photo) -> Photo:
        parent.setdefault(photo, photo)
        while parent[photo] != photo:
            parent[photo] = photo = parent[parent[photo]]
        return photo

    for row in rows:
        first, second = find(row.first), find(row.second)
        if row.same and first != second:
            parent[second] = first
    return {photo: _name(find(photo), root) for photo in list(parent)}


def _name(photo: Photo, root: Path) -> str:
    if isinstance(photo, PackedPhoto):
        return photo.name
    return (photo.relative_to(root) if photo.is_relative_to(root) else photo).as_posix()
