"""Taking a StyleGAN2 generator out of a checkpoint: which format it is, and whether everything fits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from anonymix_plugin.errors import CheckpointError
from anonymix_plugin.generator.checkpoint import Array, CheckpointFile, Module, Tensor, shown
from anonymix_plugin.generator.stylegan2_naming import GENFORCE, NVIDIA, ROSINALITY, Naming
from anonymix_plugin.generator.stylegan2_weights import StyleGan2Weights
from anonymix_plugin.values import Floats

RESOLUTIONS: Final = (64, 128, 256, 512, 1024)
_MAPPING_RATE: Final = 0.01  # learning rate multiplier of the mapping network, but in experiments
_MAX_WIDTH: Final = 2048  # channels and sizes of codes; published networks have 512
_MAX_DEPTH: Final = 16  # layers of the mapping network; published networks have 8, some 2
_FILTER: Final = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64

Value = Tensor | Array


def stylegan2_weights(file: CheckpointFile) -> StyleGan2Weights:
    """Take the generator out of a checkpoint.

    Where a file has several, the moving average is taken, which is what everybody draws with.

    Raises:
        CheckpointError: It holds no StyleGAN2 of a supported kind, or tensors are missing, of another shape,
            unknown, or not finite; the error names the tensor.
    """
    where = str(file.path)
    content = file.content
    if not isinstance(content, dict):
        raise _unknown(where, type(content).__name__)
    if "G_ema" in content:
        return _from_nvidia(content["G_ema"], where)
    if "state_dict" in content:
        members = _members(content["state_dict"], where)
        prefix = "decoder."
        decoder = {name.removeprefix(prefix): value for name, value in members.items() if name.startswith(prefix)}
        if not decoder:
            raise CheckpointError("it has no generator (no names that begin with decoder.)", where=where)
        weights = _Reader(decoder, ROSINALITY, where).weights(_centre(content.get("latent_avg"), where))
        return replace(weights, format="e4e")
    if "g_ema" in content:
        members = _members(content["g_ema"], where)
        return _Reader(members, ROSINALITY, where).weights(_centre(content.get("latent_avg"), where))
    models = content["models"] if isinstance(content.get("models"), dict) else content
    for name in ("generator_smooth", "generator"):
        if name in models:
            members = _members(models[name], where)
            return _Reader(members, GENFORCE, where).weights(_centre(members.get("truncation.w_avg"), where))
    raise _unknown(where, ", ".join(shown(key) for key in list(content)[:8]))


def _unknown(where: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"no StyleGAN2 checkpoint that is known; it holds {found or 'nothing'}",
        where=where,
        fix="supported: rosinality .pt (g_ema), NVIDIA .pkl (G_ema), genforce .pth (generator_smooth), "
        "e4e .pt (state_dict)",
    )


def _members(value: Any, where: str) -> dict[str, Value]:
    """The tensors of a state dict."""
    if not isinstance(value, dict):
        raise CheckpointError("the network's weights are no dictionary", where=where)
    members: dict[str, Value] = {}
    for name, member in value.items():
        if not isinstance(name, str) or not isinstance(member, Tensor | Array):
            raise CheckpointError(f"{shown(name)} is no tensor", where=where)
        members[name] = member
    return members


def _centre(value: Any, where: str) -> Floats | None:
    """The mean style vector; encoders repeat it for each style input."""
    if value is None:
        return None
    if not isinstance(value, Tensor | Array) or not 1 <= len(value.shape) <= 2:
        raise CheckpointError("the mean style vector is no vector", where=where)
    if math.prod(value.shape) > 64 * _MAX_WIDTH:
        raise CheckpointError(f"the mean style vector has shape {value.shape}", where=where)
    values = value.read(f"{where}, mean style vector")
    return values if values.ndim == 1 else np.asarray(values.mean(axis=0), np.float32)


def _from_nvidia(network: Any, where: str) -> StyleGan2Weights:
    """A network as a tree of modules, whose attributes say what the tensors alone do not."""
    if not isinstance(network, Module):
        raise CheckpointError("G_ema is no network", where=where)
    modules = dict(network.walk(where))
    if network.number("c_dim"):
        raise CheckpointError("a conditional network, which draws by class; that is not supported", where=where)
    clamps = set()
    for name, module in modules.items():
        for attribute, supported in (("architecture", "skip"), ("activation", "lrelu")):
            value = module.state.get(attribute, supported)
            linear = attribute == "activation" and value == "linear"  # the affine maps of styles
            if value != supported and not linear:
                raise CheckpointError(
                    f"{name} has {attribute} {shown(value)!r}; only {supported!r} is supported",
                    where=where,
                )
        if "conv_clamp" in module.state:
            clamps.add(module.number("conv_clamp"))
    if len(clamps) > 1:
        raise CheckpointError("layers with different bounds of activations", where=where)
    first = modules.get("mapping.fc0")
    rate = first.number("bias_gain") if first is not None else None
    members = network.tensors(where)
    centre = _centre(members.get("mapping.w_avg"), where)
    reader = _Reader(members, NVIDIA, where, rate=rate or _MAPPING_RATE, clamp=next(iter(clamps), None))
    return reader.weights(centre)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads one network out of named tensors: shapes first, values only when all of them fit."""

    members: Mapping[str, Value]
    naming: Naming
    where: str
    rate: float = _MAPPING_RATE
    clamp: float | None = None
    _used: set[str] = field(default_factory=set)

    def weights(self, centre: Floats | None) -> StyleGan2Weights:
        blocks = self._count(lambda b: f"{self.naming.rgb(b)}.bias", 12)
        resolution = 4 << max(blocks - 1, 0)
        if blocks == 0 or resolution not in RESOLUTIONS:
            found = f"{resolution} px" if blocks else f"no {self.naming.rgb(0)}.bias"
            raise CheckpointError(f"no StyleGAN2 of {', '.join(map(str, RESOLUTIONS))} px: {found}", where=self.where)
        noise = self.naming.noise(0) in self.members
        expected = dict(self._expected(blocks, noise))
        for key, shape in expected.values():
            self._check(key, shape)
        self._check_rest()
        tensors = {name: self._read(name, key, shape) for name, (key, shape) in expected.items()}
        if not noise:
            for k in range(2 * blocks - 1):
                tensors.setdefault(f"conv.{k}.strength", np.zeros((), np.float32))
                side = 4 << ((k + 1) // 2)
                tensors[f"conv.{k}.noise"] = np.zeros((side, side), np.float32)
        weights = StyleGan2Weights(tensors, resolution, self.rate, self.clamp, centre, noise, self.naming.format)
        if centre is not None and centre.shape != (weights.w_dim,):
            raise CheckpointError(
                f"the mean style vector has shape {centre.shape}, expected ({weights.w_dim},)",
                where=self.where,
            )
        return weights

    def _count(self, key: Callable[[int], str], most: int) -> int:
        return next((i for i in range(most) if key(i) not in self.members), most)

    def _shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor of the file without axes of length 1, all axes within bounds."""
        if key not in self.members:
            raise CheckpointError(f"{key} is missing", where=self.where)
        shape = tuple(size for size in self.members[key].shape if size != 1)
        if any(not 0 < size <= _MAX_WIDTH for size in shape):
            raise CheckpointError(f"{key} has shape {self.members[key].shape}", where=self.where)
        return shape

    def _axis(self, key: str, axis: int) -> int:
        shape = self._shape(key)
        if axis >= len(shape):
            raise CheckpointError(f"{key} has shape {self.members[key].shape}", where=self.where)
        return shape[axis]

    def _expected(self, blocks: int, noise: bool) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
        """Every tensor that there must be: our name, the file's name, the shape."""
        naming = self.naming
        depth = self._count(lambda i: f"{naming.mapping(i)}.bias", _MAX_DEPTH + 1)
        if not 1 <= depth <= _MAX_DEPTH:
            raise CheckpointError(f"a mapping network of {depth} layers", where=self.where)
        inside = self._axis(f"{naming.mapping(0)}.weight", 1)
        for i in range(depth):
            outside = self._axis(f"{naming.mapping(i)}.weight", 0)
            yield f"mapping.{i}.weight", (f"{naming.mapping(i)}.weight", (outside, inside))
            yield f"mapping.{i}.bias", (f"{naming.mapping(i)}.bias", (outside,))
            inside = outside
        w_dim = inside
        channels = [self._axis(f"{naming.conv(2 * b)}{naming.weight}", 0) for b in range(blocks)]
        yield "constant", (naming.constant, (channels[0], 4, 4))
        for k in range(2 * blocks - 1):
            block = (k + 1) // 2
            outside, inside = channels[block], channels[block - 1] if k % 2 else channels[block]
            prefix = naming.conv(k)
            yield f"conv.{k}.weight", (f"{prefix}{naming.weight}", (outside, inside, 3, 3))
            yield f"conv.{k}.bias", (f"{prefix}{naming.bias}", (outside,))
            yield f"conv.{k}.style.weight", (f"{prefix}{naming.style}.weight", (inside, w_dim))
            yield f"conv.{k}.style.bias", (f"{prefix}{naming.style}.bias", (inside,))
            if noise or f"{prefix}{naming.strength}" in self.members:
                yield f"conv.{k}.strength", (f"{prefix}{naming.strength}", ())
            if noise:
                yield f"conv.{k}.noise", (naming.noise(k), (4 << block, 4 << block))
        for b in range(blocks):
            prefix = naming.rgb(b)
            yield f"rgb.{b}.weight", (f"{prefix}{naming.rgb_weight}", (3, channels[b]))
            yield f"rgb.{b}.bias", (f"{prefix}.bias", (3,))
            yield f"rgb.{b}.style.weight", (f"{prefix}{naming.style}.weight", (channels[b], w_dim))
            yield f"rgb.{b}.style.bias", (f"{prefix}{naming.style}.bias", (channels[b],))

    def _check(self, key: str, shape: tuple[int, ...]) -> None:
        found = self._shape(key)
        if found != tuple(size for size in shape if size != 1):
            raise CheckpointError(
                f"{key} has shape {self.members[key].shape}, expected {shape} up to axes of length 1",
                where=self.where,
            )
        self._used.add(key)

    def _check_rest(self) -> None:
        """Whatever else is there must be known, or the network is not the one that we would draw with."""
        for key in sorted(self.members.keys() - self._used):
            if not self.naming.ignored.fullmatch(key):
                raise CheckpointError(f"it has {shown(key)}, which a plain StyleGAN2 does not have", where=self.where)
            if key.endswith((".kernel", ".resample_filter")):
                self._check_filter(key)

    def _check_filter(self, key: str) -> None:
        if self._shape(key) == (4, 4):
            values = self.members[key].read(f"{self.where}, {key}").reshape(4, 4)
            if values.sum() and np.allclose(values / values.sum(), _FILTER, atol=1e-5):
                return
        raise CheckpointError(f"{key} is not the filter 1 3 3 1 that StyleGAN2 has", where=self.where)

    def _read(self, name: str, key: str, shape: tuple[int, ...]) -> Floats:
        values = self.members[key].read(f"{self.where}, {key}").reshape(shape)
        if self.naming.flipped and re.fullmatch(r"conv\.\d*[13579]\.weight", name):
            values = np.ascontiguousarray(values[:, :, ::-1, ::-1])
        if self.naming.style_offset and name.endswith(".style.bias"):
            values = values + np.float32(self.naming.style_offset)
        return values
