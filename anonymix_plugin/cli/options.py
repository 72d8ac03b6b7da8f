"""Options that several commands have in common."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_plugin.keys import KeySource
    from anonymix_plugin.mixer.policy import MixingPolicy
    from anonymix_plugin.mixer.refine import RefineStep

# The choices are spelled out here once more: the modules that know them import torch, and a mistyped option
# should be told at once.


class Format(StrEnum):
    """Formats of image files."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class Policy(StrEnum):
    """What of the photo is kept."""

    NONE = "none"
    POSE = "pose"
    FULL = "full"


class Road(StrEnum):
    """How a face is made."""

    FAST = "fast"
    REFINE = "refine"


class Refinement(StrEnum):
    """Presets of the refine road."""

    QUICK = "quick"
    ANCHORED = "anchored"
    PAPER = "paper"
    PAPER_CODE = "paper-code"


class Several(StrEnum):
    """What to do with several faces."""

    LARGEST = "largest"
    CENTRAL = "central"
    ALL = "all"
    ERROR = "error"


class DetectorName(StrEnum):
    """What finds faces."""

    YUNET = "yunet"
    SCRFD = "scrfd-500m"


class EngineName(StrEnum):
    """What draws faces."""

    AUTO = "auto"
    OPENVINO = "openvino"
    TORCH = "torch"
    CUDA = "cuda"


SIZES = (512, 1024)

SubjectOption = Annotated[
    str | None,
    typer.Option("--subject", "-s", metavar="ID", help="Whose key: the person's id in your application."),
]
ScopeOption = Annotated[str, typer.Option(help="The application or gallery that the key belongs to.")]
GalleryOption = Annotated[
    bool, typer.Option("--gallery", help="Take the one key of the scope, for search without a name.")
]
VersionOption = Annotated[
    int | None,
    typer.Option("--version", metavar="N", min=1, help="Version of the key; the active one by default."),
]
PolicyOption = Annotated[
    Policy | None,
    typer.Option(help="What of the photo is kept; the measured default if left out.", show_default=False),
]
RoadOption = Annotated[
    Road, typer.Option(help="One forward pass, or the optimisation on top (slow without a GPU).")
]
RefinementOption = Annotated[
    Refinement | None,
    typer.Option(
        help="Preset of the refine road: quick (the default) or with the paper's weights towards a keyed "
        "anchor, or as FaceAnonyMixer has it.",
        show_default=False,
    ),
]
MinQualityOption = Annotated[
    float | None,
    typer.Option(
        "--min-quality",
        metavar="Q",
        min=0,
        help="Refuse faces that are poorer than this: 1 is ordinary, .7 the default, 0 takes every face.",
        show_default=False,
    ),
]
SeveralOption = Annotated[Several, typer.Option(help="What to do where a photo shows several faces.")]
DetectorOption = Annotated[DetectorName, typer.Option(help="What finds faces.")]
EngineOption = Annotated[
    EngineName, typer.Option(help="What draws faces; auto takes the fastest on this processor.")
]
GeneratorOption = Annotated[
    Path | None,
    typer.Option(
        "--generator",
        metavar="FILE",
        help="A StyleGAN2 checkpoint of your own; it needs mixer weights of your own, too.",
        show_default=False,
    ),
]
MixerWeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--mixer-weights",
        metavar="FILE",
        help="Mixer weights of your own, made by `anonymix train mapper`.",
        show_default=False,
    ),
]
EncoderWeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--encoder-weights",
        metavar="FILE",
        help="Encoder weights of your own, made by `anonymix train encoder`, or e4e's checkpoint.",
        show_default=False,
    ),
]
KeystoreOption = Annotated[
    Path | None,
    typer.Option("--keystore", envvar="ANONYMIX_KEYSTORE", metavar="PATH", help="The keystore's file."),
]
DescriptorOption = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd",
        metavar="N",
        min=0,
        max=(1 << 31) - 1,
        help="Read the passphrase from this file descriptor; otherwise ANONYMIX_PASSPHRASE or a prompt.",
    ),
]
ClockOption = Annotated[
    bool,
    typer.Option(
        "--accept-clock",
        help="Take the clock as right, though it stands before the keystore's last change or far after it.",
    ),
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Refuse photos of more pixels; 64,000,000 by default, JPEG files of up to four times as many are"
        " decoded smaller. Decoding takes up to 18 bytes for each.",
        show_default=False,
    ),
]
MaxSideOption = Annotated[
    int | None,
    typer.Option(
        "--max-side",
        metavar="N",
        min=1,
        help="Refuse photos with a longer side; 16,384 pixels by default.",
        show_default=False,
    ),
]
MaxFacesOption = Annotated[
    int | None,
    typer.Option(
        "--max-faces",
        metavar="N",
        min=1,
        help="Refuse photos of more faces where all of them are asked for; 20 by default.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def takes_photos(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options --max-pixels, --max-side and --max-faces, for all photos that it reads."""

    @wraps(command)
    def limited(*args: Any, **options: Any) -> None:
        chosen = {name: options.pop(name) for name in own}
        given = {name: value for name, value in chosen.items() if value is not None}
        if not given:
            return command(*args, **options)
        from anonymix_plugin.images import default_limits, limits_for_all

        with limits_for_all(replace(default_limits(), **given)):
            return command(*args, **options)

    # Typer reads the options off the signature and the annotations, in the module that it finds them in.
    own = {"max_pixels": MaxPixelsOption, "max_side": MaxSideOption, "max_faces": MaxFacesOption}
    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in own.items()
    ]
    signature = signature.replace(parameters=[*signature.parameters.values(), *added])
    limited.__signature__ = signature  # type: ignore[attr-defined]
    limited.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
    return limited


def check_owner(subject: str | None, gallery: bool, version: int | None) -> None:
    """Refuse options that leave open, or contradict, whose key is meant.

    Raises:
        UsageError: They do.
    """
    if (subject is None) != gallery:
        what = "--subject and --gallery exclude each other" if gallery else "nobody said whose key to use"
        raise UsageError(what, fix="give --subject ID, or --gallery for the one key of the scope")
    if gallery and version is not None:
        raise UsageError("--version is for the keys of subjects", fix="leave --version or --gallery out")


def mixing_policy(policy: Policy | None) -> MixingPolicy:
    """The mixing policy with what the user chose."""
    from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy

    default = MixingPolicy()
    return default if policy is None else replace(default, attributes=AttributePolicy(policy.value))


@contextmanager
def opened_mixer(
    store: KeySource,
    *,
    policy: Policy | None,
    road: Road,
    detector: DetectorName,
    engine: EngineName,
    faces: Several = Several.LARGEST,
    size: int | None = None,
    generator: Path | None = None,
    mixer_weights: Path | None = None,
    encoder_weights: Path | None = None,
    refinement: Refinement | None = None,
    min_quality: float | None = None,
    progress: Callable[[RefineStep], None] | None = None,
) -> Iterator[Anonymixer]:
    """A mixer over an open keystore, which it leaves open."""
    from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_plugin.quality import LEAST_QUALITY

    if refinement is not None and road is not Road.REFINE:
        raise UsageError("--refinement belongs to the refine road", fix="add --road refine")
    mixer = Anonymixer(
        store,
        road=road.value,
        policy=mixing_policy(policy),
        faces=faces.value,
        detector=detector.value,
        engine=engine.value,
        size=size,
        generator=generator,
        mixer_weights=mixer_weights,
        encoder_weights=encoder_weights,
        refinement=None if refinement is None else refinement.value,
        min_quality=LEAST_QUALITY if min_quality is None else min_quality,
        progress=progress,
    )
    with mixer:
        yield mixer
