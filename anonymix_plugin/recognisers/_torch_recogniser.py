"""Recognisers as torch modules, for losses: gradients go from the embedding back to the pixels."""

from __future__ import annotations

from torch import Tensor, nn

from anonymix_plugin.errors import BadArrayError
from anonymix_plugin.models import load_checked
from anonymix_plugin.recognisers._inception_resnet import standardised
from anonymix_plugin.recognisers._recogniser import Alignment
from anonymix_plugin.recognisers.keras_weights import read_inception_resnet
from anonymix_plugin.recognisers.onnx_file import read_onnx
from anonymix_plugin.recognisers.onnx_torch import OnnxModule


class TorchRecogniser(nn.Module):
    """A frozen recogniser that takes pixels in -1..1.

    Args:
        name: Its name in the registry.
        network: The network itself.
        alignment: How crops are to be cut.
        to_grey_levels: Whether the network wants 0..255 instead of -1..1.
        standardise: Whether the network wants each image standardised.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        alignment: Alignment,
        to_grey_levels: bool,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.alignment = name, alignment
        self.input_size = 160 if alignment == "box-160" else 112
        self._to_grey_levels, self._standardise = to_grey_levels, standardise
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed.

        Args:
            pixels: (N, 3, input_size, input_size) float32 RGB, -1..1.

        Returns:
            (N, dim) float32, not normalised.

        Raises:
            BadArrayError: The tensor has another shape.
        """
        size = self.input_size
        if pixels.shape[1:] != (3, size, size):
            raise BadArrayError(
                f"a tensor of shape {tuple(pixels.shape)} can't be embedded",
                where=self.name,
                fix=f"pass (N, 3, {size}, {size})",
            )
        values = pixels * 127.5 + 127.5 if self._to_grey_levels else pixels
        result: Tensor = self.network(standardised(values) if self._standardise else values)
        return result

    def train(self, mode: bool = True) -> TorchRecogniser:  # noqa: ARG002
        """Stays in evaluation: its batch normalisations must not learn, whatever it is a part of."""
        return super().train(False)


def build(name: str) -> TorchRecogniser:
    """See `torch_recogniser`; the name is one of `TORCH_NAMES`."""
    content = load_checked(name)
    if name == "facenet":
        network = read_inception_resnet(content)
        return TorchRecogniser(name, network, alignment="box-160", to_grey_levels=True, standardise=True)
    onnx_network = OnnxModule(read_onnx(content))
    return TorchRecogniser(name, onnx_network, alignment="arcface-112", to_grey_levels=name == "sface")
