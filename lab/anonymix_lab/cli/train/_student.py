"""What `train mapper` and `train adapt-encoder` learn through: the student, or whole faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anonymix_lab.cli._common import staged
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from rich.progress import Progress

    from anonymix_lab.training.card import RunCard
    from anonymix_lab.training.examples import FeatureGenerator
    from anonymix_lab.training.student import Student, StudentRecipe
    from anonymix_lab.training.whole import Disturbance, WholeReader
    from anonymix_plugin.faces import Detector
    from anonymix_plugin.generator import ArrayGenerator, Generator
    from anonymix_plugin.mixer.weights import MixerWeights


@dataclass(frozen=True)
class Teaching:
    """Who teaches, and where it is done.

    Attributes:
        teachers: Names of `training.teachers.load_teacher`.
        work: Folder of unfinished work.
        threads: CPU threads.
        device: Of torch.
    """

    teachers: tuple[str, ...]
    work: Path
    threads: int
    device: str = "cpu"

    def modules(self) -> dict[str, torch.nn.Module]:
        """The teachers on the device; raises what `load_teacher` does."""
        from anonymix_lab.training.teachers import load_teacher

        return {name: load_teacher(name).to(self.device) for name in self.teachers}


def say(bar: Progress, card: RunCard, text: str) -> None:
    """Tell the reader of the console and the reader of the card."""
    bar.console.print(text)
    card.figures.append(f"- {text}")


def make_or_read(
    bar: Progress,
    source: Generator,
    weights: MixerWeights,
    recipe: StudentRecipe,
    through: Teaching,
    card: RunCard,
) -> Student:
    """Make the student, or read it from the work folder; figures go to the bar's console and the card."""
    from anonymix_lab.training.student import make_student
    from anonymix_plugin.recognisers import load_recogniser

    report = staged(bar)

    def drawn(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if figures:
            values = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            say(bar, card, f"head, epoch {done}: held-out {values}")
        report(stage, done, total)

    drawer, features, detector = _drawn_with(source, through.threads)
    return make_student(
        drawer,
        features,
        weights,
        detector,
        {name: load_recogniser(name) for name in through.teachers},
        through.modules(),
        recipe,
        through.work,
        drawn,
    )


def whole_reader(
    bar: Progress,
    source: Generator,
    weights: MixerWeights,
    recipe: StudentRecipe,
    disturbance: Disturbance,
    through: Teaching,
    *,
    layers: int,
    half: bool = False,
) -> WholeReader:
    """Put the generator and the recognisers on the device; drawn faces say where landmarks lie.

    MobileStyleGAN draws those of the small generator, too: its faces lie in the same places.
    """
    import torch

    from anonymix_lab.training.examples import draw_landmarks
    from anonymix_lab.training.whole import WholeReader
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.generator import ArrayGenerator, load_generator
    from anonymix_plugin.models import locate

    report = staged(bar)
    drawer = load_generator(threads=through.threads)
    if not isinstance(drawer, ArrayGenerator):
        raise UsageError("this generator can't be learned through", fix="leave the linear map: --steps 0")
    if not isinstance(source, torch.nn.Module):  # for the type checker: generators on torch are modules
        raise UsageError(f"{source.name} can't be put on a GPU")
    landmarks = draw_landmarks(
        drawer,
        source,
        weights,
        YuNet(locate("yunet")),
        through.work,
        lambda done, total: report("examples", done, total),
        count=recipe.examples,
        seed=recipe.seed,
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return WholeReader(
        source.to(through.device),
        weights,
        landmarks,
        through.modules(),
        through.device,
        disturbance=disturbance,
        layers=layers,
        half=half,
        together=32 if through.device.startswith("cuda") else 8,
    )


def _drawn_with(source: Generator, threads: int) -> tuple[ArrayGenerator, FeatureGenerator, Detector]:
    """The fast engine, the generator that can be learned through, and what finds faces.

    Raises:
        UsageError: The generator's inner features are not to be had.
    """
    from anonymix_lab.training.examples import FeatureGenerator
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.generator import ArrayGenerator, load_generator
    from anonymix_plugin.models import locate

    drawer = load_generator(threads=threads)
    if not (isinstance(source, FeatureGenerator) and isinstance(drawer, ArrayGenerator)):
        raise UsageError("this generator can't be learned through", fix="leave the linear map: --steps 0")
    return drawer, source, YuNet(locate("yunet"))
