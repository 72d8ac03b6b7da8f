"""Labeled Faces in the Wild: the official pairs and folds of view 2, thresholds from people of view 1.

Huang, Ramesh, Berg, Learned-Miller, "Labeled Faces in the Wild", UMass TR 07-49, 2007. Pairs are those of
the image-restricted protocol. People of view 1 appear in view 2 as well; those who are under test are left
out of the development set, so that no threshold has seen anybody whom it is applied to.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np

from anonymix_lab.data._values import (
    Notice,
    Pairs,
    Protocol,
    Sample,
    checked,
    excluded,
)
from anonymix_plugin.errors import UsageError

_CURE: Final = "give the folder of Labeled Faces in the Wild, with pairs.txt, pairsDevTrain.txt and images/"
_QUICK_DEVELOPMENT: Final = 400

LFW_FOLDS: Final = 10
"""How many folds view 2 has."""

Row = tuple[str, int, str, int]


def lfw_protocol(
    folder: Path,
    *,
    limit: int | None = None,
    exclude: Collection[str] = (),
    folds: Collection[int] | None = None,
    seed: int = 1,
) -> Protocol:
    """Read the protocol.

    Args:
        folder: Holds `pairs.txt`, `pairsDevTrain.txt`, `pairsDevTest.txt` and `images/NAME/NAME_0001.jpg`.
        limit: At most so many pairs, half of them genuine, as many from each fold as from the others; the
            development set is then 400 photos at most.
        exclude: People who must not appear.
        folds: Numbers of the folds to test on, from 1; None means all. The others' pairs are left out, and
            none of their people set thresholds.
        seed: Picks the development photos under a limit.

    Raises:
        UsageError: The folder does not hold that data, or nothing is left.
    """
    view2 = _read_view2(folder / "pairs.txt")
    tested_folds = range(1, len(view2) + 1) if folds is None else sorted(set(folds))
    require_folds(tested_folds, len(view2))
    left_out = [rows for number, rows in enumerate(view2, 1) if number not in tested_folds]
    chosen = _limited([view2[fold - 1] for fold in tested_folds], limit)
    paths: dict[tuple[str, int], int] = {}
    samples: list[Sample] = []
    rows: list[tuple[int, int, bool]] = []
    missing: list[str] = []
    for fold, row in chosen:
        ends = []
        for name, number in ((row[0], row[1]), (row[2], row[3])):
            path = photo_path(folder, name, number)
            if (name, number) not in paths:
                paths[name, number] = len(samples)
                samples.append(Sample(path, name, fold))
                if not path.is_file():
                    missing.append(str(path))
            ends.append(paths[name, number])
        rows.append((ends[0], ends[1], row[0] == row[2]))
    if missing:
        raise UsageError(f"{len(missing)} photos of the pairs are missing", where=missing[0], fix=_CURE)
    kept, notices = excluded(samples, exclude)
    pairs = Pairs.of(rows)
    if len(kept) < len(samples):
        out = np.array([sample.person in exclude for sample in samples])
        pairs = pairs.picked(~(out[pairs.first] | out[pairs.second]))
    tested = {sample.person for sample in kept}
    untested = {name for rows in left_out for row in rows for name in (row[0], row[2])}
    development, dropped = _development(folder, tested | untested | set(exclude))
    notices.append(
        Notice(
            "view1_people_under_test",
            "people of view 1 who are under test or excluded; left out of the development set",
            dropped,
        )
    )
    notices.append(
        Notice(
            "folds_left_out",
            "pairs of view 2 in folds that are not tested on",
            sum(len(rows) for rows in left_out),
        )
    )
    if limit is not None and len(development) > _QUICK_DEVELOPMENT:
        random = np.random.Generator(np.random.Philox(seed))
        picked = np.sort(random.permutation(len(development))[:_QUICK_DEVELOPMENT])
        development = [development[int(i)] for i in picked]
    return checked(
        Protocol(
            name="lfw",
            title="Labeled Faces in the Wild, view 2",
            samples=tuple(samples),
            pairs=pairs,
            development=tuple(development),
            official=limit is None and not exclude and not left_out,
            notices=tuple(notices),
            settings={
                "limit": limit or 0,
                "seed": seed,
                "pairs": "pairs.txt",
                "folds": ",".join(map(str, tested_folds)),
                "development": "view 1",
            },
        )
    )


def lfw_folds(folder: Path) -> list[frozenset[str]]:
    """Who appears in which fold of view 2, fold 1 first. No two folds share anybody.

    Args:
        folder: As for `lfw_protocol`.

    Raises:
        UsageError: The folder does not hold that data.
    """
    return [frozenset(name for row in rows for name in (row[0], row[2])) for rows in _read_view2(folder / "pairs.txt")]


def require_folds(folds: Collection[int], count: int) -> None:
    """Refuse folds that view 2 does not have, and none at all.

    Raises:
        UsageError: It is one of those.
    """
    if not folds:
        raise UsageError("there is no fold left", where="--folds", fix=f"name some of 1 to {count}")
    if unknown := [fold for fold in folds if not 1 <= fold <= count]:
        raise UsageError(f"there is no fold {unknown[0]} in view 2, only 1 to {count}", where="--folds")


def parse_folds(text: str) -> tuple[int, ...]:
    """Read "1-5" or "2,4,6-8" as numbers in order.

    Raises:
        UsageError: It is neither.
    """
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            found |= set(range(int(first), int(last if dash else first) + 1))
    except ValueError as error:
        raise UsageError(f"{text!r} names no folds", where="--folds", fix="write 1-5 or 2,4") from error
    if not found:
        raise UsageError(f"{text!r} names no folds", where="--folds", fix="write 1-5 or 2,4")
    return tuple(sorted(found))


def photo_path(folder: Path, name: str, number: int) -> Path:
    """Where a photo of that data set lies."""
    return folder / "images" / name / f"{name}_{number:04d}.jpg"


def _limited(folds: list[list[Row]], limit: int | None) -> list[tuple[int, Row]]:
    if limit is None:
        return [(fold, row) for fold, rows in enumerate(folds) for row in rows]
    if limit < 2:
        raise UsageError("a limit of at least 2 pairs is needed", where=f"limit {limit}")
    queues = [[[row for row in rows if (row[0] == row[2]) is same] for rows in folds] for same in (True, False)]
    chosen: list[tuple[int, Row]] = []
    for kind, queue in enumerate(queues):
        wanted = limit // 2 + (limit % 2 if kind == 0 else 0)
        turn = [
            (fold, queue[fold][step])
            for step in range(max(map(len, queue)))
            for fold in range(len(folds))
            if step < len(queue[fold])
        ]
        chosen += turn[:wanted]
    return sorted(chosen, key=lambda entry: entry[0])


def _development(folder: Path, tested: Collection[str]) -> tuple[list[Sample], int]:
    found: dict[tuple[str, int], Sample] = {}
    people: set[str] = set()
    for listing in ("pairsDevTrain.txt", "pairsDevTest.txt"):
        for row in _rows(folder / listing):
            for name, number in ((row[0], row[1]), (row[2], row[3])):
                people.add(name)
                if name not in tested:
                    found[name, number] = Sample(photo_path(folder, name, number), name)
    return [found[name] for name in sorted(found)], len(people & set(tested))


def _read_view2(path: Path) -> list[list[Row]]:
    rows = _rows(path, header=2)
    first = path.read_text(encoding="utf-8").split(maxsplit=2)[:2]
    count, size = (int(part) for part in first)
    if len(rows) != 2 * count * size:
        raise UsageError(f"{len(rows)} pairs where {2 * count * size} should be", where=str(path), fix=_CURE)
    return [rows[2 * size * fold : 2 * size * (fold + 1)] for fold in range(count)]


def _rows(path: Path, header: int = 1) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the list of pairs can't be read", where=str(path), fix=_CURE) from error
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if number == 1:
            if len(parts) != header or not all(part.isdecimal() for part in parts):
                raise UsageError("the first line is not that of the data set", where=f"{path}:1", fix=_CURE)
        elif len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
            rows.append((parts[0], int(parts[1]), parts[0], int(parts[2])))
        elif len(parts) == 4 and parts[1].isdecimal() and parts[3].isdecimal():
            rows.append((parts[0], int(parts[1]), parts[2], int(parts[3])))
        elif parts:
            raise UsageError(f"no pair: {line[:60]!r}", where=f"{path}:{number}", fix=_CURE)
    return rows
