"""Learning the guiding curve: from what recognisers say of drawn faces, and from how codes of people lie.

Two things are measured apart. *Answers*: two faces are drawn under one key from codes with a given cosine,
and recognisers compare them. A key turns codes evenly over the sphere, so that the cosine alone counts.
*Cosines*: codes of photos of one person, and of strangers, by a subspace that was learned without them. A
curve is a map from the one to the other, so that what any curve brings is computed from the two, and the best
is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as every
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.metrics.error_rates import eer, fnmr_at_fmr
from anonymix_plugin.faces import Detector, meant_face
from anonymix_plugin.files import write_bytes
from anonymix_plugin.generator import Generator, pictures_of
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.guide import GuidingCurve
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.subspace import IdentitySubspace, fit_subspace
from anonymix_plugin.recognisers import Recogniser
from anonymix_plugin.values import Floats, Photo

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NO_ANSWER = -1.0
Look: TypeAlias = Mapping[str, Floats]
"""What each recogniser makes of one face: its embedding."""
_SIZE = 512
_OF_ONE = 6  # pairs of one person, so that nobody speaks for all


@dataclass(frozen=True, eq=False)
class Answers:
    """What recognisers say of faces that were drawn from codes with known cosines.

    Attributes:
        cosines: (N,) of the two codes.
        scores: Recogniser -> (N,) cosines of its embeddings; -1 where no face was found.
    """

    cosines: Array
    scores: Mapping[str, Array]

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        write_bytes(path, save({"cosines": self.cosines, **{f"of {name}": it for name, it in self.scores.items()}}))

    @classmethod
    def read(cls, path: Path) -> Answers:
        """Read what `save` wrote."""
        tensors = load_file(path)
        return cls(tensors.pop("cosines"), {name.removeprefix("of "): it for name, it in tensors.items()})


@dataclass(frozen=True, eq=False)
class CodeCosines:
    """Cosines of codes of people whom their subspace was not learned from.

    Attributes:
        genuine: (G,) of two photos of one person.
        impostor: (I,) of photos of two people.
    """

    genuine: Array
    impostor: Array


@dataclass(frozen=True)
class CurveFigures:
    """What a curve brings by one recogniser.

    Attributes:
        eer: Equal error rate.
        refused: Genuine claims below the recogniser's threshold for photos.
        accepted: Strangers' claims at or above it.
        fnmr: FNMR where the FMR is .1 %.
        fnmr_low: FNMR where the FMR is .01 %.
    """

    eer: float
    refused: float
    accepted: float
    fnmr: float
    fnmr_low: float


def draw_answers(
    generator: Generator,
    mixer: FastMixer,
    dims: int,
    detector: Detector,
    recognisers: Sequence[Recogniser],
    *,
    keys: int = 150,
    probes: int = 8,
    close: int = 4,
    seed: int = 1,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Answers:
    """Draw a face and others at random angles from it, under each of many keys, and compare.

    Args:
        generator: Draws.
        mixer: Mixes, without a reference.
        dims: Length of a code.
        detector: Finds the faces that were drawn.
        recognisers: Who compares.
        keys: How many keys, each with one face to compare with.
        probes: How many other faces under each; their cosines are spread evenly from -1 to 1.
        close: How many more, whose cosines' distances from 1 are spread evenly by their logarithm, from .3 to .003.
            A face is compared with itself, too.
        seed: Of codes and keys.
        progress: Called with faces done and all faces.
    """
    random, source = np.random.Generator(np.random.Philox(seed)), SeededKeys(seed)
    size = min(_SIZE, max(generator.sizes))
    cosines: list[float] = []
    found: dict[str, list[float]] = {recogniser.name: [] for recogniser in recognisers}
    for number in range(keys):
        material = source.current(str(number)).material
        reference, *others = _units(random, probes + close + 1, dims)
        even = (np.arange(probes) + random.random(probes)) * 2 / probes - 1
        near = 1 - 0.3 * 0.01 ** ((np.arange(close) + random.random(close)) / max(close, 1))
        spread = np.concatenate([even, near])
        across = [_units_outside(other, reference) for other in others]
        codes = [
            cosine * reference + np.sqrt(1 - cosine**2) * side for cosine, side in zip(spread, across, strict=True)
        ]
        entry: Look | None = None
        for place, code in enumerate((reference, *codes)):
            w_plus = mixer.mix(code, KeySchedule(material), material)
            picture = pictures_of(generator, w_plus[None], size)[0]
            pixels = np.rint((picture.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
            looks = look_at(Photo(np.ascontiguousarray(pixels), "a drawn face"), detector, recognisers)
            if place == 0:
                entry = looks
            cosines.append(float(spread[place - 1]) if place else 1.0)
            for name, scores in found.items():
                known = entry is not None and looks is not None
                scores.append(float(entry[name] @ looks[name]) if known else NO_ANSWER)  # type: ignore[index]
            progress(number * len(spread) + number + place + 1, keys * (len(spread) + 1))
    return Answers(np.array(cosines), {name: np.array(scores) for name, scores in found.items()})


def look_at(photo: Photo, detector: Detector, recognisers: Sequence[Recogniser]) -> Look | None:
    """What recognisers make of the largest face of a photo; None where there is none."""
    face = meant_face(detector.detect(photo), "largest")
    if face is None:
        return None
    return {it.name: it.embed(it.crop(face)[None])[0] for it in recognisers}


def _units(random: np.random.Generator, count: int, dims: int) -> list[Array]:
    rows = random.standard_normal((count, dims))
    return list(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _units_outside(code: Array, reference: Array) -> Array:
    rest = code - (code @ reference) * reference
    return np.asarray(rest / np.linalg.norm(rest))


def held_out_cosines(
    photos: Floats,
    people: Integers,
    others: Floats,
    fit: Callable[[Floats, Integers, Floats], IdentitySubspace] | None = None,
    *,
    parts: int = 4,
    impostors: int = 200_000,
    seed: int = 1,
    tested: npt.NDArray[np.bool_] | None = None,
) -> CodeCosines:
    """Cosines of people left out of what their subspace is learned from, part by part.

    Args:
        photos: (N, 640) float32 joint embeddings.
        people: (N,) int64, who is on each.
        others: (M, 640) float32 of other people, one each.
        fit: Learns a subspace of photos, people and others; today's recipe by default.
        parts: How many parts the people are dealt to.
        impostors: So many comparisons of strangers in all.
        seed: Of dealing and picking.
        tested: (N,) bool, photos that may be compared; all by default. The rest is learned from alone.
    """
    learn = fit or (lambda some, who, more: fit_subspace(some, who, dims=32, population=more))
    random = np.random.Generator(np.random.Philox(seed))
    names = np.unique(people)
    part = random.permutation(len(names)) % parts
    group = part[np.searchsorted(names, people)]
    usable = np.ones(len(people), np.bool_) if tested is None else tested
    genuine, strangers = [], []
    for number in range(parts):
        out = (group == number) & usable
        kept = others[np.arange(len(others)) % parts != number]
        subspace = learn(photos[~out], people[~out], kept)
        codes, who = subspace.project(photos[out]), people[out]
        for name in np.unique(who):
            rows = np.flatnonzero(who == name)
            a, b = np.triu_indices(len(rows), 1)
            chosen = random.permutation(len(a))[:_OF_ONE]
            genuine.append(np.einsum("nd,nd->n", codes[rows[a[chosen]]], codes[rows[b[chosen]]]))
        single = subspace.project(others[np.arange(len(others)) % parts == number])
        every_code = np.concatenate([codes, single])
        owner = np.concatenate([who, -1 - np.arange(len(single))])
        a, b = random.integers(0, len(owner), (2, impostors // parts))
        apart = owner[a] != owner[b]
        strangers.append(np.einsum("nd,nd->n", every_code[a[apart]], every_code[b[apart]]))
    return CodeCosines(np.concatenate(genuine), np.concatenate(strangers))


class Prediction:
    """What curves bring, computed from answers and cosines.

    At each cosine a recogniser's score has the mean of a polynomial that is fitted to the answers, and one of
    the answers' standard deviations from it, taken from those nearby.

    Args:
        answers: Of drawn faces.
        cosines: Of codes.
        thresholds: Recogniser -> its threshold for photos.
        seed: Of the standard deviations.
    """

    def __init__(
        self, answers: Answers, cosines: CodeCosines, thresholds: Mapping[str, float], *, seed: int = 1
    ) -> None:
        self._cosines, self._thresholds = cosines, thresholds
        random = np.random.Generator(np.random.Philox(seed))
        self._luck = [random.random(len(part)) for part in (cosines.genuine, cosines.impostor)]
        order = np.argsort(answers.cosines)
        self._at = answers.cosines[order]
        self._fits: dict[str, tuple[Array, Array]] = {}
        for name in thresholds:
            scores = answers.scores[name][order]
            seen = scores > NO_ANSWER
            fitted = np.polyfit(self._at[seen], scores[seen], 7)
            self._fits[name] = fitted, np.where(seen, scores - np.polyval(fitted, self._at), -2.0)

    def figures(self, curve: GuidingCurve | None) -> dict[str, CurveFigures]:
        """Figures by recogniser; None is no guiding."""
        both = [turned(curve, part) for part in (self._cosines.genuine, self._cosines.impostor)]
        found = {}
        for name, threshold in self._thresholds.items():
            own, other = (self.scores(name, part, luck) for part, luck in zip(both, self._luck, strict=True))
            found[name] = CurveFigures(
                eer(own, other),
                float((own < threshold).mean()),
                float((other >= threshold).mean()),
                fnmr_at_fmr(own, other, 0.001),
                fnmr_at_fmr(own, other, 0.0001),
            )
        return found

    def scores(self, name: str, cosines: Array, luck: Array) -> Array:
        """What a recogniser says of faces drawn from codes with these cosines.

        Args:
            name: The recogniser.
            cosines: (N,), as the faces were drawn: guided or not.
            luck: (N,) evenly spread in 0..1; it chooses the answers that the deviations are taken from.
        """
        fitted, stds = self._fits[name]
        near = max(len(self._at) // 40, 5)
        place = np.searchsorted(self._at, cosines) + ((luck - 0.5) * 2 * near).astype(np.int64)
        place = np.where(place >= len(self._at), 2 * len(self._at) - 2 - place, place)
        scores = np.polyval(fitted, cosines) + stds[np.abs(place)]
        return np.asarray(np.clip(scores, -1.0, 1.0))


def turned(curve: GuidingCurve | None, cosines: Array) -> Array:
    """What a curve makes of cosines, of any shape; None is no guiding."""
    if curve is None:
        return cosines
    at = np.clip((cosines - curve.low) / (curve.high - curve.low), 0.0, 1.0)
    near = np.clip((cosines - curve.high) / (1 - curve.high), 0.0, 1.0)
    return np.asarray(curve.floor + (curve.top - curve.floor) * at * at * (3 - 2 * at) + (1 - curve.top) * near)


def best_curve(
    prediction: Prediction,
    *,
    lows: Sequence[float] = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35),
    highs: Sequence[float] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75),
    floors: Sequence[float] = (0.0, -0.25, -0.5, -0.75),
    weight: float = 4.0,
) -> list[tuple[float, GuidingCurve, dict[str, CurveFigures]]]:
    """All curves of a grid, the best first, with their costs and figures.

    The cost is the mean over recognisers of the EER, of genuine claims refused at thresholds for photos, of
    strangers accepted there `weight` times, and of the FNMR where the FMR on guided faces is .1 %. The last
    one keeps `high` above the cosine that one stranger in a thousand reaches: whoever is nearer than `high`
    is drawn next to the reference, and a threshold hardly tells them apart any more. `top` is the default's.
    """
    tried = []
    for low, high, floor in every(lows, highs, floors):
        curve = GuidingCurve(low, high, floor)
        figures = prediction.figures(curve)
        cost = np.mean([f.eer + f.refused + weight * f.accepted + f.fnmr for f in figures.values()])
        tried.append((float(cost), curve, figures))
    return sorted(tried, key=lambda row: row[0])
