"""The refine method: the optimisation of FaceAnonyMixer (arXiv 2508.05636) on top of a mixed code.

Adam moves the identity layers of the code, and nothing else, until the face that is drawn is unlike the
real person, like the person's keyed anchor, and in pose, light and surroundings like the photo. One step
draws the face once and looks at it, and at augmentations of it, through every recogniser.

What is refined also depends on the photo itself, through the embedding that L_anon pushes away from and
through L_attr, and not on the few numbers of the person's code alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from anonymix_plugin.errors import AnonymixError, BadArrayError, UsageError
from anonymix_plugin.faces import RECOGNISER_TEMPLATE, Detector, umeyama
from anonymix_plugin.generator import Generator, as_pictures
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.refine._augment import Augmentation, jitter, keyed_augmentations
from anonymix_plugin.mixer.refine.anchors import AnchorDirections
from anonymix_plugin.mixer.refine.attributes import AttributeDistance, LightAndColour
from anonymix_plugin.mixer.refine.losses import Anchor, anonymity_loss, attribute_loss, identity_loss, keyed_anchor
from anonymix_plugin.mixer.refine.resample import Matrix, sample_crops
from anonymix_plugin.values import Photo, Pixels

CROP: Final = 112
"""Side of a recogniser's crop in pixels."""

MEAN_POINTS: Final = np.array([[0.376, 0.472], [0.624, 0.472], [0.5, 0.624], [0.388, 0.728], [0.612, 0.728]])
"""Where the five landmarks of a drawn face lie on average, (5, 2) x y in sides of the picture.

Measured with YuNet on 24 faces at truncation 0.7 and made symmetric; they scatter by .005 to .02.
"""

MEAN_POINTS.setflags(write=False)


class RefinementError(AnonymixError):
    """The optimisation went astray; there is no face."""

    code = "refinement"


@dataclass(frozen=True)
class RefineSettings:
    """How to refine; the defaults are the paper's, where the paper has the setting.

    Attributes:
        steps: Steps of Adam at most, >= 1.
        learning_rate: That of the first step, > 0.
        decay: Factor of the learning rate at each of the `decay_at`, 0..1.
        decay_at: Shares of `steps` after which the rate decays, each 0..1.
        anonymity: Weight of L_anon, >= 0.
        identity: Weight of L_idp, >= 0.
        attributes: Weight of L_attr, >= 0.
        anchored: Whether L_idp pulls towards the keyed anchor, too. The paper has no anchor: there L_idp is
            the mean distance of the augmented looks from each other, and two photos of a person that are
            refined apart have nothing to meet at.
        margin: The cosine with the real person that L_anon aims at, -1..1.
        augmentations: Augmented looks at the face in each step, >= 0.
        layers: The style inputs that move; None for the generator's identity group.
        size: Side of the picture that is drawn in each step.
        realign_every: After how many steps the landmarks are looked for again, as the face moves under
            them; 0 for never after the first step.
        tolerance: By how much the total loss must fall to count as progress, >= 0.
        patience: Steps without progress after which refining stops early; 0 for never.
    """

    steps: int = 50
    learning_rate: float = 0.01
    decay: float = 0.8
    decay_at: tuple[float, ...] = (0.75, 0.9)
    anonymity: float = 10.0
    identity: float = 10.0
    attributes: float = 0.15
    anchored: bool = True
    margin: float = 0.0
    augmentations: int = 5
    layers: range | None = None
    size: int = 512
    realign_every: int = 10
    tolerance: float = 1e-3
    patience: int = 10

    def __post_init__(self) -> None:
        """Refuse settings that are out of range.

        Raises:
            UsageError: One is.
        """
        ranges = {
            "steps": (1, math.inf),
            "learning_rate": (1e-12, math.inf),
            "decay": (0, 1),
            "anonymity": (0, math.inf),
            "identity": (0, math.inf),
            "attributes": (0, math.inf),
            "margin": (-1, 1),
            "augmentations": (0, math.inf),
            "realign_every": (0, math.inf),
            "tolerance": (0, math.inf),
            "patience": (0, math.inf),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high or math.isinf(value):
                raise UsageError(f"{value} is out of range", where=name, fix=f"use {low} to {high}")
        if not all(0 <= share <= 1 for share in self.decay_at):
            raise UsageError(f"{self.decay_at} is out of range", where="decay_at", fix="use shares 0 to 1")
        if self.layers is not None and (len(self.layers) == 0 or self.layers.step != 1):
            raise UsageError(f"{self.layers} is no run of layers", where="layers", fix="use range(a, b)")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * self.decay ** sum(step >= share * self.steps for share in self.decay_at)

    def describe(self) -> dict[str, str | float]:
        """Return the settings in a form that JSON and the fingerprint take."""
        layers = "identity" if self.layers is None else f"{self.layers.start}-{self.layers.stop - 1}"
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**plain, "decay_at": " ".join(f"{share:g}" for share in self.decay_at), "layers": layers}


@dataclass(frozen=True)
class RefineStep:
    """The losses at one step, before it moved the code; without their weights, save in the total.

    Attributes:
        step: Its number, from 0.
        total: The weighted sum.
        anonymity: L_anon, mean over the recognisers.
        identity: L_idp, mean over the recognisers.
        attributes: L_attr.
        learning_rate: That of this step.
    """

    step: int
    total: float
    anonymity: float
    identity: float
    attributes: float
    learning_rate: float


@dataclass(frozen=True, eq=False)
class RefineResult:
    """A refined code.

    Attributes:
        w_plus: Of the shape that came in, float32, detached.
        losses: One entry for each step that was run.
        stopped_early: Whether patience ended before the steps did.
    """

    w_plus: torch.Tensor
    losses: tuple[RefineStep, ...]
    stopped_early: bool

    @property
    def steps(self) -> int:
        """How many steps were run."""
        return len(self.losses)


@dataclass(frozen=True, eq=False)
class _Aim:
    """What the drawn face is compared with."""

    real: Mapping[str, torch.Tensor]
    anchors: Mapping[str, torch.Tensor]
    attributes: torch.Tensor


class Refiner:
    """Refines mixed codes.

    The same inputs on the same device give the same code, bit by bit: augmentations come from the key, and
    no operation is used whose sums are added up in varying order.

    Args:
        generator: A generator with gradients to its code.
        recognisers: Name -> frozen module that takes (N, 3, 112, 112) float32 RGB in -1..1, aligned by five
            points, and returns (N, dim) embeddings. At least one.
        settings: How to refine; the paper's settings by default.
        attributes: What L_attr compares; `LightAndColour` by default, which needs no weights, while
            `load_attribute_distance` sees more.
        detector: Finds the landmarks of drawn faces; without one, or where it finds nothing, the mean
            landmarks of FFHQ framing serve.
        directions: Where drawn faces can be in the recognisers' spaces; without them anchors are keyed
            rotations of the code into the whole space, which faces reach only in part.

    Raises:
        UsageError: There is no recogniser or one that takes other crops or has no directions, or the layers
            or the size are not the generator's.

    All of them must be on one device, where the optimisation then runs. Pass the generator on its torch engine.
    """

    def __init__(
        self,
        generator: Generator,
        recognisers: Mapping[str, nn.Module],
        settings: RefineSettings | None = None,
        *,
        attributes: AttributeDistance | None = None,
        detector: Detector | None = None,
        directions: AnchorDirections | None = None,
    ) -> None:
        self._generator, self._detector, self._directions = generator, detector, directions
        self._attributes = LightAndColour() if attributes is None else attributes
        self._recognisers = dict(sorted(recognisers.items()))  # sums in the same order, however it was made
        self.settings = settings = settings or RefineSettings()
        if not self._recognisers:
            raise UsageError("refining needs at least one recogniser", where="recognisers")
        for name, module in self._recognisers.items():
            if getattr(module, "alignment", "arcface-112") != "arcface-112":
                raise UsageError("this recogniser is not aligned by five points", where=name)
            if directions is not None and name not in directions.directions:
                raise UsageError(
                    "no anchors were learned for this recogniser",
                    where=name,
                    fix="leave the directions out, or learn them: anonymix train anchors",
                )
        self._layers = generator.layers.identity if settings.layers is None else settings.layers
        if not 0 <= self._layers.start < self._layers.stop <= generator.layers.total:
            raise UsageError(f"the generator has no layers {self._layers}", where="layers")
        if settings.size not in generator.sizes:
            raise UsageError(f"this generator draws {generator.sizes} px", where="size")

    def describe(self) -> dict[str, str | float]:
        """Return everything but weights that a refined face depends on, for the fingerprint."""
        learned = self._directions if self.settings.anchored else None
        return {
            **self.settings.describe(),
            "name": "refine",
            "recognisers": " ".join(self._recognisers),
            "alignment": "mean" if self._detector is None else type(self._detector).__name__,
            **({} if learned is None else {"anchors": learned.sha256}),
            **{f"attributes/{name}": value for name, value in self._attributes.describe().items()},
        }

    def anchors(self, schedule: KeySchedule, code: npt.NDArray[np.float64]) -> dict[str, Anchor]:
        """The anchors of a person under a key, one for each recogniser.

        Args:
            schedule: The key.
            code: (d,) float64, the person's code.

        Returns:
            Name -> (dim,) float64 of length 1.

        Raises:
            UsageError: The code is longer than an embedding, not finite or zero.
        """
        if self._directions is not None:
            return {name: self._directions.anchor(schedule, name, code) for name in self._recognisers}
        anchors = {}
        for name, module in self._recognisers.items():
            with torch.no_grad():
                dim = int(module(torch.zeros(1, 3, CROP, CROP, device=_device(module))).shape[1])
            anchors[name] = keyed_anchor(schedule, name, code, dim)
        return anchors

    def refine(
        self,
        w_plus: torch.Tensor,
        photo_crop: Pixels,
        photo_attributes: Pixels,
        schedule: KeySchedule,
        anchors: Mapping[str, Anchor],
        *,
        progress: Callable[[RefineStep], None] | None = None,
    ) -> RefineResult:
        """Refine one code.

        Args:
            w_plus: (layers, 512) or (1, layers, 512) float32, the mixed code to start from.
            photo_crop: (112, 112, 3) uint8 RGB, the real face as recognisers see it.
            photo_attributes: (S, S, 3) uint8 RGB, the real face in FFHQ framing.
            schedule: The key; it draws the augmentations.
            anchors: Name of each recogniser -> (dim,) direction that both enrolment and probe can compute,
                as `anchors` does; not looked at where the settings have no anchor.
            progress: Called after each step. What it raises ends the refinement.

        Returns:
            The refined code. Layers that do not move have the bits that came in.

        Raises:
            BadArrayError: An array has another shape or dtype, or the code is not finite.
            UsageError: An anchor is missing or of another size, or the generator has no gradients.
            RefinementError: A loss or a gradient is not finite.
        """
        code = self._checked(w_plus).to(next((_device(one) for one in self._recognisers.values()), w_plus.device))
        with (
            torch.inference_mode(False),  # whatever the caller is in
            torch.enable_grad(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            code = code.clone()
            aim = self._aim(code, photo_crop, photo_attributes, anchors if self.settings.anchored else None)
            refined, losses, stopped = self._optimise(code, aim, schedule, progress)
        return RefineResult(refined.reshape(w_plus.shape).to(w_plus.device), losses, stopped)

    def _optimise(
        self,
        code: torch.Tensor,
        aim: _Aim,
        schedule: KeySchedule,
        progress: Callable[[RefineStep], None] | None,
    ) -> tuple[torch.Tensor, tuple[RefineStep, ...], bool]:
        settings = self.settings
        before, after = code[:, : self._layers.start], code[:, self._layers.stop :]
        moving = code[:, self._layers.start : self._layers.stop].clone().requires_grad_()
        optimiser = torch.optim.Adam([moving], lr=settings.learning_rate)
        losses: list[RefineStep] = []
        best, waited = math.inf, 0
        to_crop: Matrix | None = None
        for step in range(settings.steps):
            picture = self._picture(torch.cat((before, moving, after), dim=1), step)
            if to_crop is None or (settings.realign_every and step % settings.realign_every == 0):
                to_crop = self._alignment(picture.detach())
            looks = keyed_augmentations(schedule, step, settings.augmentations)
            total, entry = self._losses(picture, to_crop, looks, aim, step)
            (gradient,) = torch.autograd.grad(total, moving)
            _finite(gradient, step, "the gradient")
            for group in optimiser.param_groups:
                group["lr"] = entry.learning_rate
            moving.grad = gradient
            optimiser.step()
            losses.append(entry)
            if progress is not None:
                progress(entry)
            waited = 0 if entry.total < best - settings.tolerance else waited + 1
            best = min(best, entry.total)
            if settings.patience and waited >= settings.patience:
                break
        result = torch.cat((before, moving.detach(), after), dim=1)
        _finite(result, len(losses), "the refined code")
        return result, tuple(losses), len(losses) < settings.steps

    def _picture(self, code: torch.Tensor, step: int) -> torch.Tensor:
        """Draw (1, layers, w_dim), with gradients, cut off as what is saved is."""
        drawn = self._generator.synthesise(code, self.settings.size)
        if not drawn.requires_grad:
            raise UsageError("this generator has no gradients", where="generator", fix="load it on its torch engine")
        return self._sound(drawn, step, "the picture").clamp(-1, 1)

    def _embeddings(
        self, picture: torch.Tensor, to_crop: Matrix, looks: tuple[Augmentation, ...]
    ) -> dict[str, torch.Tensor]:
        """Embeddings of a picture, (1 + looks, dim) for each recogniser, the plain look first."""
        every = (Augmentation(), *looks)
        crops = sample_crops(picture, to_crop, np.stack([look.move(CROP) for look in every]), CROP)
        crops = jitter(crops, every)
        return {name: module(crops) for name, module in self._recognisers.items()}

    def _losses(
        self,
        picture: torch.Tensor,
        to_crop: Matrix,
        looks: tuple[Augmentation, ...],
        aim: _Aim,
        step: int,
    ) -> tuple[torch.Tensor, RefineStep]:
        settings = self.settings
        anonymity, identity = [], []
        for name, embeddings in self._embeddings(picture, to_crop, looks).items():
            anonymity.append(anonymity_loss(embeddings[:1], aim.real[name], settings.margin))
            anchor = aim.anchors[name] if settings.anchored else None
            identity.append(identity_loss(embeddings, anchor))
        parts = {
            "anonymity": torch.stack(anonymity).mean(),
            "identity": torch.stack(identity).mean(),
            "attributes": attribute_loss(self._attributes.features(picture), aim.attributes),
        }
        return self._weighed(parts, step)

    def _weighed(self, parts: Mapping[str, torch.Tensor], step: int) -> tuple[torch.Tensor, RefineStep]:
        """The weighted sum of the losses, and the entry that tells of them."""
        for name, loss in parts.items():
            self._sound(loss, step, f"the loss of {name}")
        total = torch.stack([getattr(self.settings, name) * loss for name, loss in parts.items()]).sum()
        values = {name: float(loss.detach()) for name, loss in parts.items()}
        rate = self.settings.rate(step)
        return total, RefineStep(step, float(total.detach()), **values, learning_rate=rate)

    @staticmethod
    def _sound(values: torch.Tensor, step: int, what: str) -> torch.Tensor:
        """The values, if all of them are finite."""
        _finite(values, step, what)
        return values

    def _aim(
        self,
        code: torch.Tensor,
        photo_crop: Pixels,
        photo_attributes: Pixels,
        anchors: Mapping[str, Anchor] | None,
    ) -> _Aim:
        crop = _as_tensor(photo_crop, "photo_crop", least=CROP, most=CROP).to(code.device)
        framed = _as_tensor(photo_attributes, "photo_attributes", least=16).to(code.device)
        real, wanted = {}, {}
        with torch.no_grad():
            for name, module in self._recognisers.items():
                real[name] = module(crop)[0]
                if anchors is None:
                    continue
                anchor = np.asarray(anchors.get(name, ()), np.float32)
                if anchor.shape != tuple(real[name].shape) or not np.isfinite(anchor).all():
                    raise UsageError(
                        f"an anchor of shape {tuple(real[name].shape)} is needed, this has {anchor.shape}",
                        where=name,
                        fix="take those of Refiner.anchors",
                    )
                wanted[name] = torch.from_numpy(anchor).to(real[name])
            attributes = self._attributes.features(framed)
        return _Aim(real, wanted, attributes)

    def _alignment(self, picture: torch.Tensor) -> Matrix:
        """The similarity from a drawn picture, (1, 3, S, S), to the recogniser's crop."""
        side = picture.shape[-1]
        # Shares of the side count from the edge, coordinates from the centre of the first pixel.
        mean = MEAN_POINTS * side - 0.5
        points = mean
        if self._detector is not None:
            pixels = ((picture[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
            faces = self._detector.detect(Photo(np.ascontiguousarray(pixels), "<drawn>"))
            # Now and then a second face peeps out of the background: the generator's own is where the
            # framing has it.
            found = [face.landmarks.astype(np.float64) for face in faces]
            points = min(found, key=lambda face: float(np.square(face - mean).sum()), default=mean)
        return umeyama(points, RECOGNISER_TEMPLATE)

    def _checked(self, w_plus: torch.Tensor) -> torch.Tensor:
        """The code as (1, layers, w_dim), detached."""
        shape = (self._generator.layers.total, self._generator.w_dim)
        if tuple(w_plus.shape) not in {shape, (1, *shape)} or w_plus.dtype != torch.float32:
            raise BadArrayError(
                f"a W+ code has shape {shape} and dtype float32, not {tuple(w_plus.shape)}, {w_plus.dtype}",
                where="w_plus",
            )
        if not torch.isfinite(w_plus).all():
            raise BadArrayError("the code holds numbers that are not finite", where="w_plus")
        return w_plus.detach().reshape(1, *shape)


def _device(module: nn.Module) -> torch.device:
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


def _finite(values: torch.Tensor, step: int, what: str) -> None:
    if not torch.isfinite(values).all():
        raise RefinementError(
            f"{what} is not finite at step {step}", fix="use the fast method, or a lower learning rate"
        )


def _as_tensor(pixels: npt.NDArray[Any], where: str, *, least: int, most: int | None = None) -> torch.Tensor:
    """(S, S, 3) uint8 as (1, 3, S, S) float32 in -1..1."""
    fits = pixels.ndim == 3 and pixels.shape[0] == pixels.shape[1] and pixels.shape[2] == 3
    if not fits or pixels.dtype != np.uint8 or not least <= len(pixels) <= (most or len(pixels)):
        raise BadArrayError(
            f"an array of shape {pixels.shape} and dtype {pixels.dtype} does not serve",
            where=where,
            fix=f"pass a square uint8 RGB picture of {least} px{'' if most else ' or more'}",
        )
    return as_pictures(pixels[None]).contiguous()
