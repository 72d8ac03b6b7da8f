"""Numbers are made of photos, where these are, so that no photo travels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anonymix_lab.gpu.carried import Carried
from anonymix_lab.gpu.context import Progress
from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import FacePolicy
from anonymix_plugin.models import sources

if TYPE_CHECKING:
    from anonymix_lab.training.embedding import Embedder


def genuine_pairs(lfw: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Both photos of each genuine pair of "view1" and of "folds6-10" of view 2.

    Args:
        lfw: Labeled Faces in the Wild as a folder of photos, with its lists of pairs.

    Raises:
        UsageError: It is no such folder.
    """
    from anonymix_lab.data import lfw_protocol
    from anonymix_lab.studies.dimensions import read_view1_pairs

    rows = [
        (one, other)
        for listing in ("pairsDevTrain.txt", "pairsDevTest.txt")
        for one, other, same in read_view1_pairs(lfw, listing)
        if same
    ]
    protocol = lfw_protocol(lfw, folds=(6, 7, 8, 9, 10))
    listed = zip(protocol.pairs.first, protocol.pairs.second, protocol.pairs.same, strict=True)
    photos = [(protocol.samples[int(a)].photo, protocol.samples[int(b)].photo) for a, b, same in listed if same]
    genuine = [(a, b) for a, b in photos if isinstance(a, Path) and isinstance(b, Path)]
    if len(genuine) < len(photos):
        raise UsageError("its photos lie in a file", where=str(lfw), fix="give the folder of the unpacked photos")
    return {"view1": rows, "folds6-10": genuine}


def prepare(
    london: Path,
    lfw: Path,
    people: Path,
    work: Path,
    progress: Progress,
    embedder: Callable[[FacePolicy], Embedder],
) -> Carried:
    """Read photos where they are, and keep their codes.

    Args:
        london: Folder of photos named PERSON_NUMBER.
        lfw: Labeled Faces in the Wild, with its lists of pairs.
        people: One sub-folder of photos per person.
        work: Where embeddings are cached.
        progress: Told what is being done.
        embedder: Which face of a photo is meant -> what embeds it.

    Returns:
        The codes, and what a CPU's faces look like. Where landmarks lie on drawn faces is kept beside the
        cache, in `work`/../landmarks.
    """
    from anonymix_lab.bench.counts import generator_counts
    from anonymix_lab.gpu.engine import RECOGNISERS, landmarks_of, seen_on_cpu, watcher
    from anonymix_lab.training.embedding import embed_files
    from anonymix_lab.training.street import embed_street
    from anonymix_plugin.generator import OpenVinoGenerator, read_published
    from anonymix_plugin.mixer.weights import load_mixer_weights

    subspace = load_mixer_weights().subspace
    work.mkdir(parents=True, exist_ok=True)

    def told(stage: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if done == total or done % 500 == 0:
                progress(f"{stage}: {done} of {total}")

        return tell

    photos = sorted(london.glob("*.jpg"))
    joint, found = embed_files(embedder("largest"), photos, work / "london.npz", told("london"))
    names = [path.stem.partition("_")[0] for path in photos]
    who = np.unique(names, return_inverse=True)[1].astype(np.int64)

    pairs = {}
    for name, listed in genuine_pairs(lfw).items():
        paths = sorted({path for pair in listed for path in pair})
        number = {path: i for i, path in enumerate(paths)}
        seen, shown = embed_files(embedder("central"), paths, work / f"{name}.npz", told(name))
        kept = [(number[a], number[b]) for a, b in listed if shown[number[a]] and shown[number[b]]]
        codes = subspace.project(np.where(shown[:, None], seen, 1)).astype(np.float32)
        pairs[name] = codes[np.array(kept).T]
    published = read_published(*(source.path for source in sources("mobilestylegan") if source.path.suffix == ".xml"))
    counted = generator_counts(published, 512)
    learned = embed_street(
        embedder("largest"), embedder("central"), people, lfw, (1, 2, 3, 4, 5), work, lambda s, d, t: told(s)(d, t)
    )
    weights, drawer = load_mixer_weights(), OpenVinoGenerator(published)
    codes, who = subspace.project(joint[found]).astype(np.float32), who[found]
    landmarks = landmarks_of(work.parent, weights, drawer, progress)
    looking = watcher("cpu", weights, landmarks, RECOGNISERS)
    return Carried(
        codes,
        who,
        seen_on_cpu(drawer, looking, weights, codes, who),
        pairs=pairs,
        street=subspace.project(learned.photos).astype(np.float32),
        street_who=learned.who,
        counts=np.array([counted.operations, counted.convolutions, counted.parameters, counted.traffic]),
    )
