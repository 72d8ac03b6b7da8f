"""The London figures: what is kept and what is protected, on 102 people, neutral against smiling.

Everybody's neutral photo is enrolled and everybody's smiling photo probes: 102 genuine and 10,302 impostor
comparisons in each scenario.

- unprotected: photos as they are.
- one key: everybody under the same key, the worst case (ISO/IEC 30136's stolen token), for several keys.
- own key: each subject under a key of its own, the normal case.
- anonymity: each photo against its own protected faces, under every key drawn here.
- renewal: protected faces of the same person under different keys against each other.

Operating thresholds are those at which the matcher, on the *unprotected* photos of the set, lets at most one
impostor in a thousand pass. Anonymity and renewal are also given at the matcher's threshold of FMR .1 % on
photos from the street (LFW view 1, `verification.THRESHOLDS`), which is lower, because studio photos of
different people are more alike; error rates also at its threshold for cancelable faces of such photos.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from anonymix_lab.data.keys import SHARED_SCOPE, SeededKeys
from anonymix_lab.metrics.error_rates import eer, error_rates, threshold_at_fmr
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import Detector, meant_face
from anonymix_plugin.images import decode_photo
from anonymix_plugin.mixer.policy import MixingPolicy
from anonymix_plugin.options import MethodName
from anonymix_plugin.recognisers import MeasuringRecogniser, Recogniser
from anonymix_plugin.values import Floats, Photo, Pixels
from anonymix_plugin.verification import THRESHOLDS

if TYPE_CHECKING:
    from anonymix_plugin.mixer.refine.presets import PresetName  # imports torch

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Separation:
    """How well genuine and impostor scores are apart: EER, and mean and standard deviation of both."""

    eer: float
    genuine_mean: float
    genuine_std: float
    impostor_mean: float
    impostor_std: float
    fnmr_at_threshold: float
    fmr_at_threshold: float


@dataclass(frozen=True)
class Recalibrated:
    """Error rates at the matcher's threshold for cancelable faces, FMR .1 % on street photos under one key.

    Attributes:
        threshold: That threshold, "cancelable-fmr-0.1%".
        one_key: FMR and FNMR under one key, over all shared keys.
        own_key: FMR and FNMR with a key each.
        renewal_match_rate: Share of comparisons of one person under two different keys that match.
    """

    threshold: float
    one_key: tuple[float, float]
    own_key: tuple[float, float]
    renewal_match_rate: float


@dataclass(frozen=True)
class MatcherFigures:
    """What one recogniser says.

    Attributes:
        matcher: Its name.
        seen_by_mixer: Whether the mixer or its training uses it; figures of those that do not count.
        threshold: Operating threshold.
        unprotected: Photos as they are.
        one_key: One entry for each shared key.
        own_key: Each subject with its own key.
        below_threshold: Share of comparisons of a photo with its own protected faces that do not match (the
            protection success rate).
        highest_original: The highest score among them.
        renewal_match_rate: Share of comparisons of one person under two different keys that match.
        renewal_comparisons: How many there were.
        street_threshold: The matcher's threshold of FMR .1 % on LFW view 1, None where it was not measured.
        below_street_threshold: `below_threshold` at that threshold.
        renewal_at_street_threshold: `renewal_match_rate` at that threshold.
        recalibrated: Error rates at the threshold for cancelable faces, None where it was not measured.
        one_person: Mean and standard deviation of the cosine of a person's two photos under one key, over all keys.
        quality: Mean length of the recogniser's embeddings of protected faces before they are normalised,
            over that of the photos (see `anonymix_plugin.quality`): 1 where it sees protected faces as well
            as photos. None for recognisers that do not tell.
        least_quality: The least of a protected face, over the mean of the photos.
    """

    matcher: str
    seen_by_mixer: bool
    threshold: float
    unprotected: Separation
    one_key: tuple[Separation, ...]
    own_key: Separation
    below_threshold: float
    highest_original: float
    original_comparisons: int
    renewal_match_rate: float
    renewal_comparisons: int
    street_threshold: float | None
    below_street_threshold: float | None
    renewal_at_street_threshold: float | None
    recalibrated: Recalibrated | None
    one_person: tuple[float, float]
    quality: float | None
    least_quality: float | None

    @property
    def one_key_eer(self) -> float:
        """Mean EER over the shared keys."""
        return float(np.mean([entry.eer for entry in self.one_key]))


@dataclass(frozen=True)
class LondonFigures:
    """All figures of one run.

    Attributes:
        people: How many.
        shared_keys: How many keys for everybody were tried.
        fingerprint: The mixer's.
        policy: The mixing policy's settings.
        method: "fast", or "refine" and the name of the preset.
        undetected: On how many protected pictures no face was found.
        seconds: How long it took.
        matchers: What each recogniser says.
    """

    people: int
    shared_keys: int
    fingerprint: str
    policy: Mapping[str, str | float]
    method: str
    undetected: int
    seconds: float
    matchers: tuple[MatcherFigures, ...]

    def as_json(self) -> dict[str, object]:
        """Return everything as JSON takes it."""
        content: dict[str, object] = asdict(self)
        for entry, matcher in zip(content["matchers"], self.matchers, strict=True):  # type: ignore[call-overload]
            entry["one_key_eer"] = matcher.one_key_eer
        return content


@dataclass(frozen=True, eq=False)
class _Embedded:
    """What matchers see in everybody's two photos under one set of keys.

    Attributes:
        by_matcher: Matcher -> embeddings, (people, 2, dim).
        lengths: Matcher -> their lengths before they were normalised, (people, 2); of those that tell.
        undetected: On how many pictures no face was found.
    """

    by_matcher: Mapping[str, Floats]
    lengths: Mapping[str, Floats]
    undetected: int


def london_photos(folder: Path, limit: int | None = None) -> list[tuple[Path, Path]]:
    """List (neutral, smiling) of each person of the London set.

    Raises:
        UsageError: The folder does not hold such pairs.
    """
    pairs = [
        (neutral, neutral.with_name(neutral.name.replace("_neutral", "_smiling")))
        for neutral in sorted(folder.glob("*_neutral.*"))
    ]
    pairs = [pair for pair in pairs if pair[1].exists()][:limit]
    if len(pairs) < 2:
        raise UsageError("no pairs NAME_neutral.jpg and NAME_smiling.jpg in there", where=str(folder))
    return pairs


def london_figures(
    photos: Sequence[tuple[Path, Path]],
    matchers: Sequence[Recogniser],
    detector: Detector,
    *,
    shared_keys: int = 2,
    seed: int = 1,
    policy: MixingPolicy | None = None,
    generator: Path | Literal["small"] | None = None,
    refinement: PresetName | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> LondonFigures:
    """Measure.

    Args:
        photos: (enrolment, probe) of each person.
        matchers: Recognisers, at least one.
        detector: Finds faces in photos and in protected faces.
        shared_keys: How many keys for everybody are tried.
        seed: Seed of all keys.
        policy: Mixing policy; the default one without it.
        generator: As in `MixerOptions`.
        refinement: Preset of the refine method; the fast method without it.
        progress: Called with stage, done and total.

    Returns:
        The figures.
    """
    started = time.monotonic()
    plain = _embed(photos, matchers, detector, decode_photo, "unprotected", progress)
    people = {path: str(number) for number, pair in enumerate(photos) for path in pair}
    keys = [(f"{SHARED_SCOPE} {number + 1}", 1) for number in range(shared_keys)] + [("own", 1), ("own", 2)]
    sets: list[_Embedded] = []
    method: MethodName = "fast" if refinement is None else "refine"
    with Anonymixer(
        SeededKeys(seed), policy=policy, method=method, generator=generator, refinement=refinement
    ) as mixer:
        fingerprint = mixer.fingerprint
        for scope, version in keys:

            def protect(path: Path, scope: str = scope, version: int = version) -> Photo:
                face = mixer.protect(path, subject=people[path], scope=scope, version=version)
                return Photo(face.pixels, f"protected {path.name}")

            stage = f"protected, {scope} {version}"
            sets.append(_embed(photos, matchers, detector, protect, stage, progress))
    figures = [
        _rate(matcher, plain, sets[:shared_keys], sets[shared_keys], sets[shared_keys + 1]) for matcher in matchers
    ]
    return LondonFigures(
        people=len(photos),
        shared_keys=shared_keys,
        fingerprint=fingerprint,
        policy=(policy or MixingPolicy()).describe(),
        method=method if refinement is None else f"{method}, {refinement}",
        undetected=sum(entry.undetected for entry in sets),
        seconds=time.monotonic() - started,
        matchers=tuple(figures),
    )


def _rate(
    matcher: Recogniser,
    plain: _Embedded,
    shared: Sequence[_Embedded],
    own: _Embedded,
    renewed: _Embedded,
) -> MatcherFigures:
    name = matcher.name
    genuine, impostor = _scores(plain.by_matcher[name])
    threshold = threshold_at_fmr(impostor, 0.001)
    street = THRESHOLDS.get(name, {}).get("fmr-0.1%")
    protected = [entry.by_matcher[name] for entry in (*shared, own, renewed)]
    original = np.concatenate([np.einsum("pid,pjd->pij", plain.by_matcher[name], entry).ravel() for entry in protected])
    renewal = np.concatenate([np.einsum("pid,pjd->pij", a, b).ravel() for a, b in combinations(protected, 2)])
    together = np.concatenate([np.einsum("pd,pd->p", entry[:, 0], entry[:, 1]) for entry in protected])
    lengths = [entry.lengths[name] for entry in (*shared, own, renewed) if name in entry.lengths]
    ordinary = float(plain.lengths[name].mean()) if lengths else 1.0
    return MatcherFigures(
        matcher=name,
        seen_by_mixer=matcher.seen_by_mixer,
        threshold=float(threshold),
        unprotected=_separation(genuine, impostor, threshold),
        one_key=tuple(_separation(*_scores(entry.by_matcher[name]), threshold) for entry in shared),
        own_key=_separation(*_scores(own.by_matcher[name]), threshold),
        below_threshold=float((original < threshold).mean()),
        highest_original=float(original.max()),
        original_comparisons=len(original),
        renewal_match_rate=float((renewal >= threshold).mean()),
        renewal_comparisons=len(renewal),
        street_threshold=street,
        below_street_threshold=None if street is None else float((original < street).mean()),
        renewal_at_street_threshold=None if street is None else float((renewal >= street).mean()),
        recalibrated=_recalibrated(name, shared, own, renewal),
        one_person=(float(together.mean()), float(together.std())),
        quality=float(np.mean(lengths)) / ordinary if lengths else None,
        least_quality=float(np.min(lengths)) / ordinary if lengths else None,
    )


def _recalibrated(name: str, shared: Sequence[_Embedded], own: _Embedded, renewal: Floats) -> Recalibrated | None:
    threshold = THRESHOLDS.get(name, {}).get("cancelable-fmr-0.1%")
    if threshold is None:
        return None
    sets = [_scores(entry.by_matcher[name]) for entry in shared]
    together = [np.concatenate(parts) for parts in zip(*sets, strict=True)]
    rates = [
        error_rates(genuine, impostor, [threshold])
        for genuine, impostor in ((together[0], together[1]), _scores(own.by_matcher[name]))
    ]
    one, each = ((float(fmr[0]), float(fnmr[0])) for fmr, fnmr in rates)
    return Recalibrated(threshold, one, each, float((renewal >= threshold).mean()))


def _separation(genuine: Scores, impostor: Scores, threshold: float) -> Separation:
    fmr, fnmr = error_rates(genuine, impostor, [threshold])
    return Separation(
        eer=eer(genuine, impostor),
        genuine_mean=float(genuine.mean()),
        genuine_std=float(genuine.std()),
        impostor_mean=float(impostor.mean()),
        impostor_std=float(impostor.std()),
        fnmr_at_threshold=float(fnmr[0]),
        fmr_at_threshold=float(fmr[0]),
    )


def _scores(embeddings: Floats) -> tuple[Scores, Scores]:
    """Compare all enrolments with all probes: (N, 2, dim) -> genuine (N,), impostor (N (N - 1),)."""
    all_pairs = (embeddings[:, 0] @ embeddings[:, 1].T).astype(np.float64)
    own = np.eye(len(all_pairs), dtype=bool)
    return all_pairs[own], all_pairs[~own]


def _embed(
    photos: Sequence[tuple[Path, Path]],
    matchers: Sequence[Recogniser],
    detector: Detector,
    load: Callable[[Path], Photo],
    stage: str,
    progress: Callable[[str, int, int], None],
) -> _Embedded:
    rows: dict[str, list[Floats]] = {matcher.name: [] for matcher in matchers}
    lengths: dict[str, list[Floats]] = {}
    undetected = 0
    for done, pair in enumerate(photos):
        crops: dict[str, list[Pixels]] = {matcher.name: [] for matcher in matchers}
        for path in pair:
            face = meant_face(detector.detect(load(path)), "largest")
            # A recogniser behind would refuse a photo without a face: it counts as one that matches nobody.
            undetected += face is None
            for matcher in matchers:
                size = matcher.input_size
                blank_crop = np.zeros((size, size, 3), np.uint8)
                crops[matcher.name].append(blank_crop if face is None else matcher.crop(face))
        for matcher in matchers:
            seen = np.stack(crops[matcher.name])
            blank = [not crop.any() for crop in seen]
            if isinstance(matcher, MeasuringRecogniser):
                embedded, length = matcher.embed_with_lengths(seen)
                lengths.setdefault(matcher.name, []).append(np.where(blank, 0.0, length).astype(np.float32))
            else:
                embedded = matcher.embed(seen)
            embedded[blank] = 0.0
            rows[matcher.name].append(embedded)
        progress(stage, done + 1, len(photos))
    return _Embedded(
        {name: np.stack(found) for name, found in rows.items()},
        {name: np.stack(found) for name, found in lengths.items()},
        undetected,
    )
