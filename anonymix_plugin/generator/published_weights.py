"""MobileStyleGAN's weights as arrays, read from the published OpenVINO files without torch.

The published graph takes one style vector for all layers; every layer has modulation weights of its own,
though, so engines built from these arrays take one vector per layer: 23 style inputs in W+.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.generator._ir import IrGraph
from anonymix_plugin.generator.protocol import LayerGroups
from anonymix_plugin.inference import Content
from anonymix_plugin.values import Floats

BLOCKS = 7  # 8x8 ... 512x512
HAAR = 0.5  # every entry of the 2x2 inverse Haar kernels is +-1/2
SLOPE = 0.2  # of the leaky ReLU
MIDDLE = 3  # the block at 64x64, within which the small generator leaves the large one

NAME = "mobilestylegan"
Z_DIM = W_DIM = 512
# Style input 0 is the convolution at 4x4, 1 + 3 i to 3 + 3 i are (up, conv1, conv2) of block i, 22 is
# the output head. Block 0 works at 8x8, block 6 at 512x512.
LAYERS = LayerGroups(coarse=range(4), identity=range(4, 11), fine=range(11, 23))
SIZES = (512, 1024)


@dataclass(frozen=True, eq=False)
class Affine:
    """From a style vector to one factor a channel: weight (C, 512) and bias (C,), float32."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, eq=False)
class ConvWeights:
    """A styled convolution.

    Attributes:
        modulation: What scales its input's channels.
        depthwise: (C, 1, 3, 3) float32, or None where the convolution is a plain one.
        weight: (D, C, 1, 1) after a depthwise part, (D, C, 3, 3) without.
        bias: (D,) float32.
        noise: (1, 1, H, W) float32, the fixed noise map.
    """

    modulation: Affine
    depthwise: Floats | None
    weight: Floats
    bias: Floats
    noise: Floats


@dataclass(frozen=True, eq=False)
class BlockWeights:
    """Upsampling by an inverse wavelet and two convolutions."""

    up: Affine
    conv1: ConvWeights
    conv2: ConvWeights


@dataclass(frozen=True, eq=False)
class SynthesisWeights:
    """From 23 style vectors to the picture.

    Attributes:
        constant: (1, 512, 4, 4) float32, where drawing begins.
        stem: The convolution at 4x4.
        blocks: Seven, 8x8 to 512x512.
        head_modulation: Scales the channels before the head.
        head_weight: (12, 64, 1, 1) float32; rows 0..2 are the LL band, and for each colour three detail
            bands follow.
        head_bias: (12,) float32.
    """

    constant: Floats
    stem: ConvWeights
    blocks: tuple[BlockWeights, ...]
    head_modulation: Affine
    head_weight: Floats
    head_bias: Floats


@dataclass(frozen=True, eq=False)
class MappingWeights:
    """From a Gaussian code to a style vector: eight layers, weights (512, 512) and biases (512,), float32."""

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]

    def apply(self, z: Floats) -> Floats:
        """Map codes: pixel norm, then fully connected layers with leaky ReLU times sqrt(2).

        It is computed in float64 and without BLAS, whose sums depend on processor and threads, and rounded
        once at the end: the synthetic code of a key is the same on every engine and machine.

        Args:
            z: (N, 512) float32.

        Returns:
            (N, 512) float32.
        """
        x = z.astype(np.float64)
        x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + 1e-8)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            # Layer by layer in double precision: a millisecond more, and 17 MB less for good.
            x = np.einsum("ij,nj->ni", weight.astype(np.float64), x) + bias
            x = np.where(x >= 0, x, SLOPE * x) * np.sqrt(2.0)
        styles: Floats = x.astype(np.float32)
        return styles


@dataclass(frozen=True, eq=False)
class PublishedWeights:
    """All of it, and the SHA-256 (hex) over the four published files."""

    mapping: MappingWeights
    synthesis: SynthesisWeights
    sha256: str


class PublishedFiles:
    """The same in files: the synthesis is read when it is needed, and not at all where it was compiled before.

    Args:
        files: The four: `MappingNetwork.xml` and .bin, `SynthesisNetwork.xml` and .bin.
    """

    def __init__(self, files: Sequence[Content]) -> None:
        self._files = tuple(files)
        self.sha256 = _over_all(bytes.fromhex(file.sha256) for file in self._files)
        xml, binary = self._files[:2]
        self.mapping = _mapping(IrGraph(xml.read(), binary.read(), xml.name))

    @property
    def synthesis(self) -> SynthesisWeights:
        """The synthesis' weights, read each time: 33 MB that nobody needs once they are compiled."""
        xml, binary = self._files[2:]
        return _synthesis(IrGraph(xml.read(), binary.read(), xml.name))

    def read(self) -> PublishedWeights:
        """All of it."""
        return PublishedWeights(self.mapping, self.synthesis, self.sha256)


def read_published(mapping_xml: Path, synthesis_xml: Path) -> PublishedWeights:
    """Read the published files.

    Args:
        mapping_xml: Path of `MappingNetwork.xml`, its .bin beside it.
        synthesis_xml: Path of `SynthesisNetwork.xml`, its .bin beside it.

    Raises:
        DamagedModelError: If the files are not the graph that is expected here.
    """
    contents: list[bytes] = []
    for xml in (mapping_xml, synthesis_xml):
        for path in (xml, xml.with_suffix(".bin")):
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise DamagedModelError(f"can't be read: {error.strerror}", where=str(path)) from error
    return parse_published(*contents)


def parse_published(
    mapping_xml: bytes, mapping_bin: bytes, synthesis_xml: bytes, synthesis_bin: bytes
) -> PublishedWeights:
    """Read the weights from the contents of the four published files; raises as `read_published`."""
    mapping = _mapping(IrGraph(mapping_xml, mapping_bin, "MappingNetwork.xml"))
    synthesis = _synthesis(IrGraph(synthesis_xml, synthesis_bin, "SynthesisNetwork.xml"))
    contents = (mapping_xml, mapping_bin, synthesis_xml, synthesis_bin)
    return PublishedWeights(mapping, synthesis, _over_all(hashlib.sha256(content).digest() for content in contents))


def _over_all(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _mapping(graph: IrGraph) -> MappingWeights:
    """Weights (out, in) and biases (out,) in the order of the graph, from the input on."""
    weights, biases = [], []
    for product in graph.chain("MatMul"):
        weights.append(graph.value(graph.constant_input(product)))
        # The bias reaches its Add through a Reshape to the batch's shape.
        reshaped = graph.input_of_kind(graph.consumer(product, "Add"), "Reshape")
        biases.append(graph.value(graph.constant_input(reshaped)).reshape(-1))
    return MappingWeights(tuple(weights), tuple(biases))


def _synthesis(graph: IrGraph) -> SynthesisWeights:
    constant = graph.named("m.input.input")
    blocks = tuple(
        BlockWeights(
            _affine(graph, f"m.layers.{i}.up"),
            _convolution(graph, f"m.layers.{i}.conv1"),
            _convolution(graph, f"m.layers.{i}.conv2"),
        )
        for i in range(BLOCKS)
    )
    head = f"m.layers.{BLOCKS - 1}.to_img"
    return SynthesisWeights(
        constant,
        _convolution(graph, "m.conv1"),
        blocks,
        _affine(graph, f"{head}.conv"),
        graph.named(f"{head}.conv.weight"),
        graph.named(f"{head}.bias").reshape(-1),
    )


def _affine(graph: IrGraph, name: str) -> Affine:
    weight = graph.find(f"{name}.modulation.weight")
    affine = graph.consumer(graph.consumer(weight, "MatMul"), "Add")
    product = graph.consumer(graph.consumer(affine, "Reshape"), "Multiply")
    # Convolutions carry a constant 1/sqrt(fan in) after the affine map; upsamplings do not.
    constants = graph.constant_inputs(product)
    scale = np.float32(graph.value(constants[0]).reshape(())) if constants else np.float32(1)
    bias = graph.named(f"{name}.modulation.bias").reshape(-1)
    return Affine(graph.value(weight) * scale, bias * scale)


def _convolution(graph: IrGraph, name: str) -> ConvWeights:
    bias = graph.find(f"{name}.bias")
    with_noise = graph.computed_input(graph.consumer(bias, "Add"))
    convolution = graph.computed_input(with_noise)
    depthwise = None
    if f"{name}.conv.weight_dw" in graph:
        depthwise = graph.named(f"{name}.conv.weight_dw")
        depthwise = depthwise.reshape(depthwise.shape[0], 1, 3, 3)
    return ConvWeights(
        _affine(graph, f"{name}.conv"),
        depthwise,
        graph.value(graph.constant_input(convolution)),
        graph.value(bias).reshape(-1),
        graph.value(graph.constant_input(with_noise)),
    )
