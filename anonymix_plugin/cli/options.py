"""Options that several commands have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_plugin.images import ImageFormat
    from anonymix_plugin.keys import KeySource
    from anonymix_plugin.mixer.policy import MixingPolicy
    from anonymix_plugin.mixer.refine.refiner import RefineStep
    from anonymix_plugin.options import MixerOptions

# The choices are spelled out here once more: the modules that know them import torch, and a mistyped option
# should be told at once.


class Format(StrEnum):
    """Formats of image files."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def suffix(self) -> str:
        """What its files end in."""
        return ".jpg" if self is Format.JPEG else f".{self.value}"

    @property
    def kind(self) -> ImageFormat:
        """What encoders call it."""
        return cast("ImageFormat", self.value.upper())


class Policy(StrEnum):
    """What of the photo is kept."""

    NONE = "none"
    POSE = "pose"
    FULL = "full"


class Method(StrEnum):
    """How a face is made."""

    FAST = "fast"
    REFINE = "refine"


class Refinement(StrEnum):
    """Presets of the refine method."""

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
    OPENVINO_BF16 = "openvino-bf16"
    TORCH = "torch"
    CUDA = "cuda"


class SetKeys(StrEnum):
    """Whose keys the photos of a data set get."""

    PERSON = "person"
    CLAIM = "claim"
    GALLERY = "gallery"


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
SizeOption = Annotated[
    int | None,
    typer.Option(metavar="512|1024", help="Side of the faces in pixels; 512 unless told otherwise."),
]
PolicyOption = Annotated[
    Policy | None,
    typer.Option(help="What of the photo is kept; the measured default if left out.", show_default=False),
]
MethodOption = Annotated[
    Method, typer.Option(help="One forward pass, or the optimisation on top (slow without a GPU).")
]
RefinementOption = Annotated[
    Refinement | None,
    typer.Option(
        help="Preset of the refine method: quick (the default) or with the paper's weights towards a keyed "
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
EngineOption = Annotated[EngineName, typer.Option(help="What draws faces; auto takes the fastest on this processor.")]
GeneratorOption = Annotated[
    Path | None,
    typer.Option(
        "--generator",
        metavar="small|FILE",
        help="small: draws 256 px in a third of the pass. Or a StyleGAN2 checkpoint of your own; it needs "
        "mixer weights of your own, too.",
        show_default=False,
    ),
]
AtOnceOption = Annotated[
    int, typer.Option("--at-once", metavar="N", min=1, help="Faces drawn at the same time; one for each core is most.")
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
    typer.Option(
        "--keystore", envvar="ANONYMIX_KEYSTORE", metavar="PATH", help="The keystore's file, or https://HOST:PORT."
    ),
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
RecursiveOption = Annotated[bool, typer.Option("--recursive", "-r", help="Folders within folders, too.")]
FormatOption = Annotated[Format, typer.Option("--format", help="Format of the files.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def takes_photos(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options --max-pixels, --max-side and --max-faces, for all photos that it reads."""
    own = {"max_pixels": MaxPixelsOption, "max_side": MaxSideOption, "max_faces": MaxFacesOption}

    @wraps(command)
    def limited(*args: Any, **options: Any) -> None:
        chosen = {name: options.pop(name) for name in own}
        given = {name: value for name, value in chosen.items() if value is not None}
        if not given:
            return command(*args, **options)
        from anonymix_plugin.images import default_limits, limits_for_all

        with limits_for_all(replace(default_limits(), **given)):
            return command(*args, **options)

    return _with_options(limited, command, own, {})


@dataclass(frozen=True)
class MixerChoice:
    """The options of a mixer as they stand on the command line; None takes what `MixerOptions` has.

    Attributes:
        size: Side of the faces in pixels, and so on: the fields of `options.MixerOptions` of the same names.
    """

    size: int | None = None
    policy: Policy | None = None
    method: Method = Method.FAST
    refinement: Refinement | None = None
    min_quality: float | None = None
    faces: Several = Several.LARGEST
    detector: DetectorName = DetectorName.YUNET
    engine: EngineName = EngineName.AUTO
    generator: Path | None = None
    at_once: int = 1
    mixer_weights: Path | None = None
    encoder_weights: Path | None = None

    def check(self) -> None:
        """Refuse what makes no sense, before seconds go into loading weights.

        Raises:
            UsageError: A preset without the refine method, or a size that is not drawn.
        """
        if self.refinement is not None and self.method is not Method.REFINE:
            raise UsageError("--refinement belongs to the refine method", fix="add --method refine")
        if self.size not in (None, *SIZES) and self.generator is None:
            raise UsageError(f"faces are drawn at 512 or 1024 pixels, not {self.size}", where="--size")

    def options(self, progress: Callable[[RefineStep], None] | None = None) -> MixerOptions:
        """What a mixer is to be like."""
        from anonymix_plugin.options import MixerOptions

        self.check()
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        given["policy"] = mixing_policy(self.policy)
        chosen: dict[str, Any] = {
            name: value.value if isinstance(value, StrEnum) else value
            for name, value in given.items()
            if value is not None
        }
        return MixerOptions(progress=progress, **chosen)

    @contextmanager
    def opened(self, store: KeySource, progress: Callable[[RefineStep], None] | None = None) -> Iterator[Anonymixer]:
        """A mixer over an open keystore, which it leaves open."""
        from anonymix_plugin.anonymixer import Anonymixer

        with Anonymixer(store, self.options(progress)) as mixer:
            yield mixer


_MIXER_OPTIONS: Final = {
    "size": SizeOption,
    "policy": PolicyOption,
    "method": MethodOption,
    "refinement": RefinementOption,
    "min_quality": MinQualityOption,
    "faces": SeveralOption,
    "detector": DetectorOption,
    "engine": EngineOption,
    "generator": GeneratorOption,
    "at_once": AtOnceOption,
    "mixer_weights": MixerWeightsOption,
    "encoder_weights": EncoderWeightsOption,
}


def mixes(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with the options of a mixer but those left out, called with `mixing=MixerChoice(...)`."""
    own = {name: kind for name, kind in _MIXER_OPTIONS.items() if name not in left_out}
    return chosen_as("mixing", MixerChoice, own)


def chosen_as(
    parameter: str, choice: type[Any], own: Mapping[str, Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with options that it gets as one value.

    Args:
        parameter: The command's parameter for it.
        choice: A dataclass, whose fields are the options and have their defaults.
        own: The options, by field; a field that is left out keeps its default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def chosen(*args: Any, **options: Any) -> None:
            given = {name: options.pop(name) for name in own}
            return command(*args, **{parameter: choice(**given)}, **options)

        defaults = {each.name: each.default for each in fields(choice)}
        return _with_options(chosen, command, own, defaults, instead_of=parameter)

    return decorate


def _with_options(
    outer: Callable[..., None],
    command: Callable[..., None],
    own: Mapping[str, Any],
    defaults: Mapping[str, Any],
    instead_of: str = "",
) -> Callable[..., None]:
    """Give a wrapper the signature of its command with options of its own: Typer reads them off there."""
    signature = inspect.signature(command, eval_str=True)
    kept = [one for name, one in signature.parameters.items() if name != instead_of]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=kind)
        for name, kind in own.items()
    ]
    signature = signature.replace(parameters=[*kept, *added])
    outer.__signature__ = signature  # type: ignore[attr-defined]
    outer.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
    return outer


def check_owner(subject: str | None, gallery: bool, version: int | None, *, also: str = "") -> None:
    """Refuse options that leave open, or contradict, whose key is meant.

    Args:
        subject: As it was given.
        gallery: As it was given.
        version: As it was given.
        also: What else a command takes, for the error.

    Raises:
        UsageError: They do.
    """
    if (subject is None) != gallery:
        what = "--subject and --gallery exclude each other" if gallery else "nobody said whose key to use"
        raise UsageError(what, fix=f"give --subject ID, or --gallery for the one key of the scope{also}")
    if gallery and version is not None:
        raise UsageError("--version is for the keys of subjects", fix="leave --version or --gallery out")


def mixing_policy(policy: Policy | None) -> MixingPolicy:
    """The mixing policy with what the user chose."""
    from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy

    default = MixingPolicy()
    return default if policy is None else replace(default, attributes=AttributePolicy(policy.value))
