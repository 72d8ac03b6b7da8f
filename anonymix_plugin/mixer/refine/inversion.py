"""From a photo to the latent code that draws it again: an encoder's guess, bettered by optimisation.

FaceAnonyMixer starts from e4e and takes 150 steps of Adam on all layers, learning rate 5e-4, on LPIPS plus
a tenth of the mean squared error. LPIPS is in no package registry; the features of an attribute distance
stand in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from anonymix_plugin.errors import BadArrayError, UsageError
from anonymix_plugin.generator import Generator, as_pictures
from anonymix_plugin.mixer.refine.attributes import AttributeDistance
from anonymix_plugin.mixer.refine.resample import area_resize
from anonymix_plugin.values import Pixels


@dataclass(frozen=True)
class InversionSettings:
    """How to invert; the defaults are the paper's.

    Attributes:
        steps: Steps of Adam, >= 0; 0 leaves the encoder's guess.
        learning_rate: > 0.
        pixels: Weight of the mean squared error beside the perceptual distance, >= 0.
        size: Side of the picture that is drawn in each step.
    """

    steps: int = 150
    learning_rate: float = 5e-4
    pixels: float = 0.1
    size: int = 512

    def __post_init__(self) -> None:
        """Refuse settings that are out of range.

        Raises:
            UsageError: One is.
        """
        if self.steps < 0 or not 0 < self.learning_rate < 1 or self.pixels < 0:
            raise UsageError("the settings of the inversion are out of range", where=repr(self))

    def describe(self) -> dict[str, str | float]:
        """Return the settings in a form that JSON and the fingerprint take."""
        return {f"inversion/{name}": getattr(self, name) for name in self.__dataclass_fields__}


def invert(
    generator: Generator,
    perceptual: AttributeDistance,
    guess: torch.Tensor,
    photo: Pixels,
    settings: InversionSettings,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> torch.Tensor:
    """Better a guess of the code that draws a photo.

    Args:
        generator: With gradients to its code.
        perceptual: Features whose mean absolute difference is the perceptual distance.
        guess: (layers, 512) float32.
        photo: (S, S, 3) uint8 RGB in FFHQ framing.
        settings: How.
        progress: Called after each step with its number and the loss before it.

    Returns:
        (layers, 512) float32, detached: of all steps the code with the least loss.

    Raises:
        BadArrayError: The photo is no square uint8 picture.
        UsageError: The generator has no gradients.
    """
    square = photo.ndim == 3 and photo.shape[0] == photo.shape[1] and photo.shape[2] == 3
    if not square or photo.dtype.name != "uint8":
        raise BadArrayError(f"a photo is (S, S, 3) uint8, not {photo.shape} {photo.dtype}", where="photo")
    with torch.inference_mode(False), torch.enable_grad():
        device = (
            next((tensor.device for tensor in generator.parameters()), guess.device)
            if isinstance(generator, torch.nn.Module)
            else guess.device
        )
        code = guess.detach().to(device, copy=True)[None].requires_grad_()
        best, least = code.detach().clone(), float("inf")
        target = as_pictures(photo[None]).contiguous().to(code.device)
        with torch.no_grad():
            wanted = perceptual.features(target)
        optimiser = torch.optim.Adam([code], lr=settings.learning_rate)
        for step in range(settings.steps):
            drawn = generator.synthesise(code, settings.size)
            if not drawn.requires_grad:
                raise UsageError(
                    "this generator has no gradients", where="generator", fix="load it on its torch engine"
                )
            side = min(drawn.shape[-1], target.shape[-1])
            distance = (perceptual.features(drawn) - wanted).abs().mean()
            loss = distance + settings.pixels * functional.mse_loss(area_resize(drawn, side), area_resize(target, side))
            value = float(loss.detach())
            if value < least:
                best, least = code.detach().clone(), value
            (code.grad,) = torch.autograd.grad(loss, code)
            optimiser.step()
            if progress is not None:
                progress(step, value)
    return best[0].to(guess.device)
