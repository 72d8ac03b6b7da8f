"""Puts an evaluation together from what a user chose: mixer, matchers, baselines, attacks, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from anonymix_lab.data import Protocol
from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.evaluation.attacks import (
    Attack,
    Direct,
    KeyGuessing,
    Linkage,
    PreImageSearch,
    RecordMultiplicity,
    ReEncoding,
    References,
    Regression,
    Student,
    WithKey,
)
from anonymix_lab.evaluation.features import FeatureMatcher, feature_part
from anonymix_lab.evaluation.report.files import write_report
from anonymix_lab.evaluation.report.photos import contact_sheet
from anonymix_lab.evaluation.requirements import Requirement
from anonymix_lab.evaluation.run import MixerFacts, Settings, evaluate
from anonymix_lab.evaluation.schema import Report
from anonymix_lab.matchers import CodeMatcher, EmbeddingStore, Extractor, Panel, load_matchers
from anonymix_lab.protections import (
    Blur,
    GuidedProtection,
    LayerSwap,
    MixerProtection,
    Pixelation,
    Protection,
)
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.encoder import load_encoder
from anonymix_plugin.errors import ModelError
from anonymix_plugin.faces import Detector, FaceChoice, Scrfd, YuNet
from anonymix_plugin.generator import Engine
from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
from anonymix_plugin.mixer.weights import SHIPPED, MixerWeights, load_mixer_weights
from anonymix_plugin.models import locate, weights_hash
from anonymix_plugin.recognisers import load_recogniser


@dataclass(frozen=True, eq=False)
class Choice:
    """What a user chose; the options of `anonymix evaluate` say what it means."""

    protocol: Protocol
    output: Path
    matchers: Sequence[str]
    detector: str
    policy: str
    mixer_weights: Path | None
    method: str
    engine: str
    generator: Path | None
    shared_keys: int
    claimed: bool
    scopes: bool
    references: bool
    seed: int
    key_seed: int
    replicates: int
    attacks: Sequence[str]
    baselines: Sequence[str]
    baseline_pairs: int
    quick: bool
    groups: Mapping[str, Sequence[str]] | None
    features: Path | None
    rules: Sequence[Requirement]
    with_photos: bool
    cache: Path
    workers: int
    command: tuple[str, ...]


def run_choice(choice: Choice, progress: Callable[[str, int, int], None], step: Callable[[str], None]) -> Report:
    """Evaluate, and write the report.

    Raises:
        AnonymixError: Whatever stops it; what was computed is in the cache.
    """
    store = EmbeddingStore(choice.cache)
    detector: Detector = YuNet(locate("yunet")) if choice.detector == "yunet" else Scrfd(locate("scrfd-500m"))
    identity = f"{choice.detector} {weights_hash(choice.detector)}"
    panel = Panel(load_matchers(choice.matchers), detector, identity)
    features = FeatureMatcher(choice.features) if choice.features else None
    # On photos of LFW the person meant is the one in the middle; matchers and mixer must mean the same one.
    faces: FaceChoice = "central" if choice.protocol.name == "lfw" else "largest"
    extractor = Extractor(panel, store, choice.workers, faces, progress)
    policy = MixingPolicy()
    if choice.policy:
        policy = replace(policy, attributes=AttributePolicy(choice.policy))
    keys = SeededKeys(choice.key_seed)
    step("opening the mixer")
    engine = cast("Engine", choice.engine)
    method = cast("Literal['fast', 'refine']", choice.method)
    with Anonymixer(
        keys,
        policy=policy,
        method=method,
        engine=engine,
        generator=choice.generator,
        mixer_weights=choice.mixer_weights,
        faces=faces,
    ) as mixer:
        protection = MixerProtection(mixer, choice.key_seed)
        guided = reader = None
        if choice.references and mixer.guided_fingerprint:
            guided = GuidedProtection(mixer, choice.key_seed)
            codes = CodeMatcher(load_recogniser("arcface-mbf"), load_recogniser("sface"), _weights(choice).subspace)
            reader = Extractor(Panel([codes], detector, identity), store, choice.workers, faces, progress)
        baselines = [_baseline(name, mixer, detector, keys, choice) for name in choice.baselines]

        def attacks(on: Protection) -> list[Attack]:
            return _attacks(on, mixer, detector, choice)

        result = evaluate(
            choice.protocol,
            protection,
            extractor,
            Settings(
                seed=choice.seed,
                key_seed=choice.key_seed,
                shared_keys=choice.shared_keys,
                replicates=choice.replicates,
                baseline_pairs=choice.baseline_pairs,
                claimed=choice.claimed,
                scopes=choice.scopes,
                command=choice.command,
            ),
            facts=MixerFacts(mixer.fingerprint, choice.method, policy.describe()),
            baselines=baselines,
            attacks=attacks,
            requirements=choice.rules,
            groups=choice.groups,
            guided=guided,
            reader=reader,
            step=step,
        )
        report = result.report
        if features is not None:
            part = feature_part(features, choice.protocol, protection, store, identity, detector, progress)
            report = report.model_copy(update={"features": (part,)})
        sheet = contact_sheet(choice.protocol, protection) if choice.with_photos else ()
    step("writing the report")
    write_report(choice.output, report, result.measured, sheet)
    return report


def _weights(choice: Choice) -> MixerWeights:
    return load_mixer_weights(choice.mixer_weights or SHIPPED)


def _baseline(
    name: str,
    mixer: Anonymixer,
    detector: Detector,
    keys: SeededKeys,
    choice: Choice,
) -> Protection:
    faces = mixer.face_policy
    if name == "blur":
        return Blur(detector, faces=faces)
    if name == "pixelation":
        return Pixelation(detector, faces=faces)
    if name == "swap":
        encoder = load_encoder()
        if encoder.generator_hash != mixer.generator.weights_hash():
            raise ModelError("the layer swap needs an encoder for this generator", fix="leave swap out of --baselines")
        centre = _weights(choice).centre
        return LayerSwap(detector, encoder, mixer.generator, centre, keys, choice.key_seed, faces=faces)
    refined = Anonymixer(
        keys,
        policy=mixer.policy,
        method="refine",
        generator=choice.generator,
        mixer_weights=choice.mixer_weights,
        faces=faces,
    )
    return MixerProtection(refined, choice.key_seed, name="refine", title="Anonymix, refine method (paper)")


def _attacks(on: Protection, mixer: Anonymixer, detector: Detector, choice: Choice) -> list[Attack]:
    generator = mixer.generator
    makers: dict[str, Callable[[], Attack]] = {
        "direct": Direct,
        "references": References,
        "regression": Regression,
        "student": Student,
        "multiplicity": RecordMultiplicity,
        "linkage": Linkage,
        "with-key": WithKey,
        "key-guessing": KeyGuessing,
        "reencode": lambda: ReEncoding(load_encoder(), generator, detector, attempts=20 if choice.quick else 200),
        "preimage": lambda: PreImageSearch(
            generator,
            _weights(choice).centre,
            choice.cache / "candidates",
            candidates=20 if choice.quick else 300,
        ),
    }
    # The slow method makes no hundreds of further faces.
    slow = {"preimage", "reencode"} if on.name == "refine" or choice.method == "refine" else set()
    return [makers[name]() for name in choice.attacks if name not in slow]
