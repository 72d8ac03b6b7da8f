"""What of a face is no identity: pose, light, colour, surroundings, as features that can be compared.

FaceAnonyMixer takes FaRL's features. Its weights are in no package registry, so that the default here is
built from what every installation has; `AttributeDistance` is the place where FaRL fits in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from anonymix_plugin.mixer.refine.resample import area_resize
from anonymix_plugin.models import load_checked
from anonymix_plugin.recognisers.onnx_file import read_onnx
from anonymix_plugin.recognisers.onnx_torch import OnnxModule

_GRID: Final = 16  # features are compared on as many by as many places
_SFACE_DEPTH: Final = "conv_4_relu"  # 128 maps of half the input's side


@runtime_checkable
class AttributeDistance(Protocol):
    """Turns pictures into features whose mean absolute difference is the distance in attributes."""

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Describe pictures, differentiably.

        Args:
            pictures: (N, 3, S, S) float32 RGB in -1..1, FFHQ framing.

        Returns:
            (N, F) float32, F independent of S.
        """
        ...

    def describe(self) -> Mapping[str, str | float]:
        """Return its settings in a form that JSON and the fingerprint take."""
        ...


def surroundings(grid: int, face: float) -> torch.Tensor:
    """Weights over an FFHQ frame that count the inner face less than what surrounds it.

    The inner face, brows to chin, is where identity shows; there, being alike is not what is wanted.

    Args:
        grid: Places along a side.
        face: Weight within the ellipse of the inner face, 0..1; it is 1 outside.

    Returns:
        (grid, grid) float32 with mean 1.
    """
    centre = (torch.arange(grid) + 0.5) / grid
    # In the FFHQ frame eyes are at 47 % of the height, mouths at 73 %, temples at 27 and 73 % of the width.
    inside = ((centre[None] - 0.5) / 0.23).square() + ((centre[:, None] - 0.59) / 0.27).square() < 1
    weights = torch.where(inside, face, 1.0)
    return weights / weights.mean()


class LightAndColour:
    """Luminance and two colour differences, averaged over 16 x 16 places.

    Luminance and colour differences are those of ITU-R BT.601. So coarse a picture shows light, background
    and where the head is, and hardly who it is.

    Args:
        face: Weight of the inner face against what surrounds it, 0..1.
    """

    def __init__(self, face: float = 0.3) -> None:
        self._face = face
        self._weights = surroundings(_GRID, face)
        self._colours = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """See `AttributeDistance.features`; F = 768."""
        pooled = area_resize(pictures, _GRID)
        channels = torch.einsum("oc,nchw->nohw", self._colours.to(pooled), pooled)
        return (channels * self._weights.to(pooled)).flatten(1)

    def describe(self) -> dict[str, str | float]:
        """Return the settings."""
        return {"attributes": "light-and-colour", "attributes_face": self._face}


class LightColourAndForm:
    """`LightAndColour` and the early feature maps of a network, half of the distance each.

    Early maps answer to edges, shading and texture at their places: they keep pose and light. They are
    normalised along the channels, as Zhang et al. 2018 (LPIPS) do, so that no channel speaks louder for
    having large numbers.

    Args:
        stem: Takes (N, 3, 128, 128) float32 RGB in 0..255 and returns feature maps (N, C, H, H), H >= 16.
        face: Weight of the inner face against what surrounds it, 0..1.
    """

    def __init__(self, stem: nn.Module, face: float = 0.3) -> None:
        self._stem = stem
        self._light = LightAndColour(face)
        self._weights = surroundings(_GRID, face)

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """See `AttributeDistance.features`."""
        light = self._light.features(pictures)
        maps = self._stem(area_resize(pictures, 128) * 127.5 + 127.5)
        form = area_resize(functional.normalize(maps, dim=1), _GRID) * self._weights.to(maps)
        # An entry of a unit vector of C channels is about 1 / sqrt(C); times sqrt(C) it is of the size of
        # a colour. The mean over F would count the half with more entries more: each is scaled to F / 2.
        form = (form * form.shape[1] ** 0.5).flatten(1)
        total = light.shape[1] + form.shape[1]
        halves = [part * (total / (2 * part.shape[1])) for part in (light, form)]
        return torch.cat(halves, dim=1)

    def describe(self) -> dict[str, str | float]:
        """Return the settings."""
        return {**self._light.describe(), "attributes": "light-colour-and-form"}


def load_attribute_distance(device: str = "cpu") -> LightColourAndForm:
    """The default: light, colour and the early maps of SFace, on a torch device.

    Raises:
        MissingModelError: SFace's weights are not on this machine.
        DamagedModelError: They are, but altered.
    """
    model = read_onnx(load_checked("sface"))
    nodes = list(model.graph.node)
    depth = next(i for i, node in enumerate(nodes) if node.output[0] == _SFACE_DEPTH)
    del model.graph.node[depth + 1 :]
    model.graph.output[0].name = _SFACE_DEPTH
    used = {name for node in model.graph.node for name in node.input}
    weights = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return LightColourAndForm(OnnxModule(model).eval().requires_grad_(False).to(device))
