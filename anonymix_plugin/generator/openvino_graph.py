"""MobileStyleGAN as an OpenVINO graph, built straight from the published weights.

The graph computes what `mobilestylegan.MobileStyleGan` computes, in an order that suits a processor:

- Nothing is traced or converted: torch is not needed, and no converted graph has to be kept and trusted.
- The channels of each convolution before an upsampling are sorted by wavelet band, so that bands are
  slices, the inverse Haar transform is sums of them, and the pixels are interleaved in one pass. (The order
  of the published files has a channel's three detail bands side by side: pulling them apart took a third
  of the whole pass.)
- Factors that only follow each other are one factor: the upsampling's modulation, the next convolution's
  and the 1/2 of the Haar transform.
- A factor of one, an input, comes before each noise map: exact, and unknown to the optimiser. It would otherwise join
  the map to the convolution, and leave the slope's factor and the modulation to a further pass over the memory.
- Noise maps are inputs, not constants: as constants they would be added to the biases beforehand, which
  makes 225 MB out of 1.4 MB, to be compiled at each start.
- Large layers are drawn in strips of a few rows, each through all of them up to the picture, so that what lies
  between two layers stays in the cache, and nothing large is put together on the way; in the last block, where a row
  is largest, a strip is cut once more. A strip computes as many rows of its neighbours as its convolutions reach for;
  every pixel is computed from the same numbers in the same order as without strips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anonymix_plugin.generator.published_weights import (
    BLOCKS,
    HAAR,
    LAYERS,
    SLOPE,
    W_DIM,
    Affine,
    BlockWeights,
    ConvWeights,
    SynthesisWeights,
)
from anonymix_plugin.inference import runtime
from anonymix_plugin.values import Floats

Node = Any  # OpenVINO's nodes and outputs have no types of their own for mypy


@dataclass(frozen=True)
class Strips:
    """How the picture is cut up while it is drawn.

    Attributes:
        first: The first block that is drawn strip by strip; `BLOCKS` for none.
        count: How many strips, a power of two.
        inner: Into how many parts the last block of each strip is cut, a power of two.
    """

    first: int
    count: int
    inner: int = 1


STRIPS: Final = Strips(first=5, count=8, inner=2)
"""32 rows of the picture in the last block, about 4 MB between its layers."""

WHOLE: Final = Strips(first=BLOCKS, count=1)
"""No strips."""


@dataclass(frozen=True, eq=False)
class SynthesisGraph:
    """A graph and what its inputs but the first are to be set to.

    Attributes:
        model: An `openvino.Model`; input 0 is the W+ code, (1, 23, 512) float32, output 0 the picture,
            (1, 3, size, size) float32.
        fixed: Arrays of the inputs from 1 on.
    """

    model: Any
    fixed: tuple[Floats, ...]


def synthesis_graph(weights: SynthesisWeights, size: int, strips: Strips = STRIPS) -> SynthesisGraph:
    """Build the graph.

    Args:
        weights: The published weights.
        size: 512 or 1024.
        strips: How it is cut up while it is drawn; it changes no byte.
    """
    openvino = runtime()

    builder = GraphBuilder(openvino.opset13, weights, size, strips)
    return SynthesisGraph(openvino.Model([builder.picture()], builder.inputs, "synthesis"), builder.fixed)


class GraphBuilder:
    """Builds the graph with any library's operations.

    Args:
        op: OpenVINO's operations, or a module with the same ones.
        weights: The published weights.
        size: 512 or 1024.
        strips: How the picture is cut up while it is drawn.
    """

    def __init__(self, op: Any, weights: SynthesisWeights, size: int, strips: Strips) -> None:
        self._op = op
        self._weights, self._size, self._strips = weights, size, strips
        self._code = op.parameter([1, LAYERS.total, W_DIM], np.float32, name="w_plus")
        self._one = op.parameter([1, 1, 1, 1], np.float32, name="one")
        self._inputs: list[Node] = [self._code, self._one]
        self._fixed: list[Floats] = [np.ones((1, 1, 1, 1), np.float32)]

    @property
    def inputs(self) -> list[Node]:
        """The graph's inputs: the code and those of `fixed`."""
        return list(self._inputs)

    @property
    def fixed(self) -> tuple[Floats, ...]:
        """What the inputs but the first are to be set to."""
        return tuple(self._fixed)

    def picture(self) -> Node:
        """Build everything; returns the output."""
        return self.finished(self._strips.first, *self.blocks(self._strips.first))

    def blocks(self, count: int) -> tuple[Node, Node]:
        """The stem and the first `count` blocks: features that wait for activation, and the noise for it."""
        weights, op = self._weights, self._op
        x = op.multiply(_constant(op, weights.constant), self.modulation(weights.stem.modulation, 0))
        x = self.convolution(x, weights.stem.weight, weights.stem.bias, _bands(weights.blocks[0]), pad=1)
        return self.through(range(count), x, self.noise(weights.stem))

    def through(self, blocks: range, x: Node, noise: Node) -> tuple[Node, Node]:
        """Some blocks as a whole, from what comes into the first of them on."""
        for index in blocks:
            given = _Given(index, (0, 4 << index), x, noise)
            x, noise = self._part(index + 1, (0, 8 << index), {index: self._parts_of(index)}, given)
        return x, noise

    def finished(self, index: int, x: Node, noise: Node) -> Node:
        """The picture, from what comes into a block on: whole blocks, then strips to the end."""
        cut = self._strips
        x, noise = self.through(range(index, cut.first), x, noise)
        shared = {number: self._parts_of(number) for number in range(cut.first, BLOCKS)}
        head, strips = self.modulation(self._weights.head_modulation, LAYERS.total - 1), []
        for strip in _cut((0, 4 << BLOCKS), cut.count):
            given = _Given(cut.first, (0, 4 << cut.first), x, noise)
            if cut.inner > 1:  # what comes into the last block is made once, for all parts
                last = BLOCKS - 1
                read = Strip(strip[0] // 2, strip[1] // 2, 4 << last).read
                given = _Given(last, read, *self._part(last, read, shared, given))
            parts = (self._part(BLOCKS, part, shared, given) for part in _cut(strip, cut.inner))
            strips += [self._head(self.activated(*part, head)) for part in parts]
        return strips[0] if len(strips) == 1 else self._op.concat(strips, 2)

    def convolved_once(self, index: int, x: Node, noise: Node, strip: Strip) -> Node:
        """The first half of a block, up to its first convolution's bias; x and noise are the rows that it reads."""
        block = self._weights.blocks[index]
        return self._separable(self._upsampled(x, noise, self.band_scale(index, block)), block.conv1, None, strip)

    def _parts_of(self, index: int) -> _BlockParts:
        block = self._weights.blocks[index]
        return _BlockParts(
            self.band_scale(index, block),
            self.modulation(block.conv2.modulation, 3 + 3 * index),
            self.noise(block.conv1),
            self.noise(block.conv2),
        )

    def _part(
        self, index: int, wanted: tuple[int, int], shared: Mapping[int, _BlockParts], given: _Given
    ) -> tuple[Node, Node]:
        """Some rows of what comes into a block, and the noise for them.

        Args:
            index: The block.
            wanted: The rows.
            shared: What the blocks before it have in common for all rows.
            given: What there is to begin with.
        """
        if index == given.block:
            return self._rows(given.x, wanted, given.rows), self._rows(given.noise, wanted, given.rows)
        before = index - 1
        block, parts, rows = self._weights.blocks[before], shared[before], 4 << before  # rows that come in
        strip = Strip(wanted[0] // 2, -(-wanted[1] // 2), rows)
        y = self._upsampled(*self._part(before, strip.read, shared, given), parts.scale)
        y = self._separable(y, block.conv1, None, strip)
        y = self.activated(y, self._rows(parts.noise1, strip.middle, (0, 2 * rows)), parts.inner)
        y = self._separable(y, block.conv2, None if index == BLOCKS else _bands(self._weights.blocks[index]), strip)
        drawn = self._rows(y, wanted, (2 * strip.start, 2 * strip.end))
        return drawn, self._rows(parts.noise2, wanted, (0, 2 * rows))

    def _upsampled(self, x: Node, noise: Node, scale: Node) -> Node:
        """Activate, modulate and double the resolution by an inverse Haar transform."""
        op = self._op
        return self._inverse_haar(*op.split(self.activated(x, noise, scale), _integers(op, 1), 4).outputs())

    def _inverse_haar(self, low: Node, v: Node, u: Node, d: Node) -> Node:
        op = self._op
        lv, lu, ud, um = op.add(low, v), op.subtract(low, v), op.add(u, d), op.subtract(u, d)
        blocks = [op.add(lv, ud), op.subtract(lv, ud), op.add(lu, um), op.subtract(lu, um)]
        return op.depth_to_space(op.concat(blocks, 1), "blocks_first", 2)

    def _head(self, x: Node) -> Node:
        weights, op = self._weights, self._op
        if self._size == 512:
            return self.convolution(x, HAAR * weights.head_weight[:3], HAAR * weights.head_bias[:3], None)
        # For each colour the three detail bands stand side by side.
        order = np.concatenate([np.arange(3), *(3 + np.arange(3) * 3 + band for band in range(3))])
        bands = self.convolution(x, HAAR * weights.head_weight, HAAR * weights.head_bias, order)
        return self._inverse_haar(*op.split(bands, _integers(op, 1), 4).outputs())

    def _separable(self, x: Node, conv: ConvWeights, order: npt.NDArray[np.intp] | None, strip: Strip) -> Node:
        return self.convolution(self.depthwise(x, conv, strip), conv.weight, conv.bias, order)

    def depthwise(self, x: Node, conv: ConvWeights, strip: Strip) -> Node:
        """Convolve each channel by itself."""
        op = self._op
        assert conv.depthwise is not None  # noqa: S101 - all but the stem are separable
        kernels = conv.depthwise[:, None]
        # At the picture's edge the convolution sees zeros, within it the rows that the strip took along.
        return op.group_convolution(x, _constant(op, kernels), [1, 1], [strip.top, 1], [strip.bottom, 1], [1, 1])

    def convolution(
        self, x: Node, weight: Floats, bias: Floats, order: npt.NDArray[np.intp] | None, *, pad: int = 0
    ) -> Node:
        """Convolve, its outputs put into an order."""
        op = self._op
        if order is not None:
            weight, bias = weight[order], bias[order]
        x = op.convolution(x, _constant(op, weight), [1, 1], [pad, pad], [pad, pad], [1, 1])
        return op.add(x, _constant(op, bias.reshape(1, -1, 1, 1)))

    def activated(self, x: Node, noise: Node, scale: Node) -> Node:
        """Add the noise map, leaky ReLU, scale."""
        op = self._op
        noisy = op.add(op.multiply(x, self._one), noise)
        return op.multiply(op.prelu(noisy, _constant(op, np.array([SLOPE]))), scale)

    def modulation(self, values: Affine, layer: int) -> Node:
        """(1, C, 1, 1)."""
        return self._as_factors(self._affine(values, layer), len(values.bias))

    def band_scale(self, index: int, block: BlockWeights) -> Node:
        """What the bands are multiplied with, (1, C, 1, 1)."""
        op, order = self._op, _bands(block)
        up = Affine(HAAR * block.up.weight[order], HAAR * block.up.bias[order])
        scale = self._affine(up, 1 + 3 * index)
        inner = self._affine(block.conv1.modulation, 2 + 3 * index)
        return self._as_factors(op.multiply(scale, op.concat([inner] * 4, 1)), len(order))

    def _affine(self, values: Affine, layer: int) -> Node:
        """(1, C)."""
        op = self._op
        style = op.gather(self._code, _integers(op, layer), _integers(op, 1))
        product = op.matmul(style, _constant(op, values.weight), False, True)
        return op.add(product, _constant(op, values.bias[None]))

    def _as_factors(self, values: Node, channels: int) -> Node:
        return self._op.reshape(values, _integers(self._op, [1, channels, 1, 1]), False)

    def noise(self, conv: ConvWeights) -> Node:
        """The input of a noise map."""
        node = self._op.parameter(list(conv.noise.shape), np.float32, name=f"noise_{len(self._fixed)}")
        self._inputs.append(node)
        self._fixed.append(np.ascontiguousarray(conv.noise))
        return node

    def _rows(self, x: Node, wanted: tuple[int, int], there: tuple[int, int]) -> Node:
        """Some of the rows that x has."""
        op = self._op
        if wanted == there:
            return x
        start, end = ([row - there[0]] for row in wanted)
        return op.slice(x, _integers(op, start), _integers(op, end), _integers(op, [1]), _integers(op, [2]))


@dataclass(frozen=True, eq=False)
class _BlockParts:
    """What a block's strips share: factors before and between its convolutions, and its noise maps."""

    scale: Node
    inner: Node
    noise1: Node
    noise2: Node


@dataclass(frozen=True, eq=False)
class _Given:
    """Some rows of what comes into a block, and the noise for them."""

    block: int
    rows: tuple[int, int]
    x: Node
    noise: Node


@dataclass(frozen=True)
class Strip:
    """Rows `start` to `end` of the `rows` that a block takes in."""

    start: int
    end: int
    rows: int

    @property
    def top(self) -> int:
        """1 at the upper edge of the picture, where convolutions pad with zeros."""
        return int(self.start == 0)

    @property
    def bottom(self) -> int:
        """1 at the lower edge."""
        return int(self.end == self.rows)

    @property
    def read(self) -> tuple[int, int]:
        """The rows that it reads: two convolutions reach two rows of twice the resolution beyond it."""
        return self.start - 1 + self.top, self.end + 1 - self.bottom

    @property
    def middle(self) -> tuple[int, int]:
        """The rows, at twice the resolution, that lie between its two convolutions."""
        return 2 * self.start - 1 + self.top, 2 * self.end + 1 - self.bottom


def _cut(rows: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Rows in as many equal parts."""
    step = (rows[1] - rows[0]) // count
    return [(start, start + step) for start in range(*rows, step)]


def _bands(block: BlockWeights) -> npt.NDArray[np.intp]:
    """Order of the channels that come into a block, sorted by band: low, vertical, horizontal, diagonal.

    The published order is all of the low band, then for each channel its three detail bands.
    """
    quarter = len(block.up.bias) // 4
    details = (quarter + 3 * np.arange(quarter) + band for band in range(3))
    return np.concatenate([np.arange(quarter), *details])


def _constant(op: Any, values: npt.NDArray[Any]) -> Node:
    return op.constant(np.ascontiguousarray(values, dtype=np.float32))


def _integers(op: Any, values: int | list[int]) -> Node:
    return op.constant(np.array(values, dtype=np.int64))
