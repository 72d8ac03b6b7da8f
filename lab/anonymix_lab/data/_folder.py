"""A folder with one sub-folder for each person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import combinations
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
    photos_each,
    require_share,
)
from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import PHOTO_SUFFIXES

_FOLDS: Final = 5
_MOST_PAIRS: Final = 6000
_FEWEST_FOR_DEVELOPMENT: Final = 12


def folder_protocol(
    folder: Path,
    *,
    limit: int | None = None,
    exclude: Collection[str] = (),
    seed: int = 1,
    development_share: float = 0.3,
) -> Protocol:
    """Read a folder and draw pairs.

    People are divided by the seed: some are for development, the others are under test, in five folds.
    Genuine pairs are all of them, or as many from each person as from the others until half of the limit is
    reached; impostor pairs are drawn among the photos of the genuine pairs, as many again.

    Args:
        folder: Holds one folder for each person, with photos in it or below it.
        limit: At most so many pairs (6,000 by default).
        exclude: People who must not appear.
        seed: Divides people and draws pairs.
        development_share: Share of the people for development, 0..0.8. With fewer than twelve people all
            are under test, and thresholds are those known of the recogniser.

    Raises:
        UsageError: There is no such folder, it holds nobody or one person, nobody has two photos, or the
            share is out of range.
    """
    found, notices = _samples(folder)
    return drawn_protocol(
        "folder",
        folder,
        found,
        notices,
        limit=limit,
        exclude=exclude,
        seed=seed,
        development_share=development_share,
    )


def drawn_protocol(
    name: str,
    source: Path,
    found: Sequence[Sample],
    notices: list[Notice],
    *,
    limit: int | None,
    exclude: Collection[str],
    seed: int,
    development_share: float,
) -> Protocol:
    """Divide people and draw pairs, as `folder_protocol` says.

    Args:
        name: Of the protocol.
        source: What it was read from.
        found: All photos.
        notices: What was left out so far.
        limit: As of `folder_protocol`.
        exclude: As of `folder_protocol`.
        seed: As of `folder_protocol`.
        development_share: As of `folder_protocol`.
    """
    require_share(development_share)
    samples, more = excluded(found, exclude)
    notices = [*notices, *more]
    counts = photos_each(samples)
    if len(counts) < 2:
        raise UsageError(
            f"photos of {len(counts)} people are too few to compare",
            where=str(source),
            fix="put the photos of each person in a folder of its own; two people are the least",
        )
    if max(counts.values()) < 2:
        raise UsageError(
            f"of none of the {len(counts)} people there are two photos, so that nobody can be recognised",
            where=str(source),
            fix="add a second photo of at least one person",
        )
    if single := sorted(person for person, count in counts.items() if count == 1):
        notices.append(Notice.of("one_photo", "people with a single photo; they take part as impostors alone", single))
    random = np.random.Generator(np.random.Philox(seed))
    people = sorted(counts)
    order = [people[int(i)] for i in random.permutation(len(people))]
    kept_apart = round(len(order) * development_share) if len(order) >= _FEWEST_FOR_DEVELOPMENT else 0
    # Somebody with two photos must stay under test.
    several = next(i for i in reversed(range(len(order))) if counts[order[i]] > 1)
    order.append(order.pop(several))
    apart, tested = set(order[:kept_apart]), order[kept_apart:]
    fold = {person: number % min(_FOLDS, max(len(tested) // 2, 1)) for number, person in enumerate(tested)}
    under_test = [
        Sample(sample.photo, sample.person, fold[sample.person]) for sample in samples if sample.person not in apart
    ]
    return checked(
        Protocol(
            name=name,
            title=source.name or str(source),
            samples=tuple(under_test),
            pairs=draw_pairs(under_test, limit or _MOST_PAIRS, random),
            development=tuple(sample for sample in samples if sample.person in apart),
            notices=tuple(notices),
            settings={
                "limit": limit or 0,
                "seed": seed,
                "development": f"{len(apart)} of {len(people)} people",
            },
        )
    )


def draw_pairs(samples: Sequence[Sample], limit: int, random: np.random.Generator) -> Pairs:
    """Draw pairs, half of them genuine.

    Args:
        samples: Photos.
        limit: At most so many pairs, at least 2.
        random: Draws.
    """
    if limit < 2:
        raise UsageError("a limit of at least 2 pairs is needed", where=f"limit {limit}")
    own: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        own[sample.person].append(number)
    queues = []
    for numbers in own.values():
        if len(numbers) > 1:
            pairs = list(combinations(numbers, 2))
            queues.append([pairs[int(i)] for i in random.permutation(len(pairs))])
    queues = [queues[int(i)] for i in random.permutation(len(queues))]
    genuine: list[tuple[int, int]] = []
    step, wanted = 0, (limit + 1) // 2
    while len(genuine) < wanted and any(step < len(queue) for queue in queues):
        genuine += [queue[step] for queue in queues if step < len(queue)]
        step += 1
    genuine = genuine[:wanted]
    used = sorted({number for pair in genuine for number in pair})
    # Some who have one photo alone take part, too; and a single person needs somebody to be compared with.
    single = [numbers[0] for numbers in own.values() if len(numbers) == 1]
    used += [single[int(i)] for i in random.permutation(len(single))[: max(len(used) // 4, 2)]]
    impostor: set[tuple[int, int]] = set()
    different = [pair for pair in combinations(used, 2) if samples[pair[0]].person != samples[pair[1]].person]
    # Folds are people apart: pairs within a fold serve figures whose threshold comes from the others.
    inside = [pair for pair in different if samples[pair[0]].fold == samples[pair[1]].fold]
    for pool in (inside, different):
        for i in random.permutation(len(pool)):
            if len(impostor) >= limit // 2:
                break
            impostor.add(pool[int(i)])
    return Pairs.of([(a, b, True) for a, b in genuine] + [(a, b, False) for a, b in sorted(impostor)])


def _samples(folder: Path) -> tuple[list[Sample], list[Notice]]:
    if not folder.is_dir():
        raise UsageError(
            "there is no such folder", where=str(folder), fix="name the folder that holds one for each person"
        )
    samples: list[Sample] = []
    empty: list[str] = []
    other: list[Path] = []
    loose: list[str] = []
    for child in sorted(folder.iterdir()):
        if child.name.startswith("."):
            continue
        if not child.is_dir():
            loose.append(str(child))
            continue
        photos: list[Path] = []
        for path in sorted(child.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                (photos if path.suffix.lower() in PHOTO_SUFFIXES else other).append(path)
        if not photos:
            empty.append(str(child))
        samples += (Sample(path, child.name) for path in photos)
    if not samples:
        hint = "; there are photos beside each other, not in folders" if loose else ""
        raise UsageError(
            f"there are no photos in sub-folders{hint}",
            where=str(folder),
            fix="put the photos of each person in a folder with the person's name",
        )
    notices = [
        Notice.of(kind, what, [str(case) for case in cases])
        for kind, what, cases in (
            ("empty_folder", "folders without a photo", empty),
            ("loose_file", "files outside of the folders of people; left out", loose),
            ("other_file", "files that are no photos by their suffix; left out", other),
        )
        if cases
    ]
    return samples, notices
