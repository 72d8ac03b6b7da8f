"""Several photos of one person optimised together, as FaceAnonyMixer (arXiv 2508.05636) does it.

For comparison with the paper only. A plug-in never sees enrolment and probe side by side: the probe comes
alone and later, so what is measured this way tells what the optimisation could do, and not what a user gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.refine.losses import anonymity_loss, attribute_loss, pairwise_distance
from anonymix_plugin.mixer.refine.refiner import Refiner, RefineStep
from anonymix_plugin.mixer.refine.resample import Matrix
from anonymix_plugin.values import Pixels


@dataclass(frozen=True, eq=False)
class PersonPhoto:
    """One photo of the person.

    Attributes:
        w_plus: (layers, 512) float32, the mixed code to start from.
        crop: (112, 112, 3) uint8 RGB, the real face as recognisers see it.
        framed: (S, S, 3) uint8 RGB, the real face in FFHQ framing.
    """

    w_plus: torch.Tensor
    crop: Pixels
    framed: Pixels


class JointRefiner(Refiner):
    """Refines all photos of a person together: L_idp is the mean distance between the photos' faces.

    Arguments are those of `Refiner`; its settings' augmentations, anchor and early stop play no part.
    """

    def refine_together(
        self, photos: Sequence[PersonPhoto], *, progress: Callable[[RefineStep], None] | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Refine the codes of several photos of one person under one key.

        Args:
            photos: Two or more.
            progress: Called after each step with the losses' means over the photos.

        Returns:
            The refined codes, (layers, 512) float32 each, in order.

        Raises:
            UsageError: There are fewer than two photos, or the generator has no gradients.
            BadArrayError: An array has another shape or dtype.
            RefinementError: A loss or a gradient is not finite.
        """
        if len(photos) < 2:
            raise UsageError("a joint optimisation needs two or more photos of the person", where="photos")
        with torch.inference_mode(False), torch.enable_grad():
            codes = [self._checked(photo.w_plus).clone() for photo in photos]
            aims = [self._aim(code, photo.crop, photo.framed, None) for code, photo in zip(codes, photos, strict=True)]
            start, stop = self._layers.start, self._layers.stop
            moving = [code[:, start:stop].clone().requires_grad_() for code in codes]
            optimiser = torch.optim.Adam(moving, lr=self.settings.learning_rate)
            to_crops: list[Matrix] = []
            for step in range(self.settings.steps):
                pictures = [
                    self._picture(torch.cat((code[:, :start], part, code[:, stop:]), dim=1), step)
                    for code, part in zip(codes, moving, strict=True)
                ]
                if step == 0 or (self.settings.realign_every and step % self.settings.realign_every == 0):
                    to_crops = [self._alignment(picture.detach()) for picture in pictures]
                seen = [
                    self._embeddings(picture, to_crop, ()) for picture, to_crop in zip(pictures, to_crops, strict=True)
                ]
                anonymity = torch.stack(
                    [
                        anonymity_loss(looks[name], aim.real[name], self.settings.margin)
                        for looks, aim in zip(seen, aims, strict=True)
                        for name in looks
                    ]
                ).mean()
                names = list(seen[0])
                identity = torch.stack(
                    [pairwise_distance(torch.cat([looks[name] for looks in seen])) for name in names]
                ).mean()
                attributes = torch.stack(
                    [
                        attribute_loss(self._attributes.features(picture), aim.attributes)
                        for picture, aim in zip(pictures, aims, strict=True)
                    ]
                ).mean()
                total, entry = self._weighed(
                    {"anonymity": anonymity, "identity": identity, "attributes": attributes}, step
                )
                for part, gradient in zip(moving, torch.autograd.grad(total, moving), strict=True):
                    part.grad = self._sound(gradient, step, "the gradient")
                for group in optimiser.param_groups:
                    group["lr"] = entry.learning_rate
                optimiser.step()
                if progress is not None:
                    progress(entry)
        return tuple(
            torch.cat((code[:, :start], part.detach(), code[:, stop:]), dim=1)[0]
            for code, part in zip(codes, moving, strict=True)
        )
