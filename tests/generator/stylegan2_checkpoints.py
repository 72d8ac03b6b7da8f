"""Small random StyleGAN2 generators, and files of them as the published code bases write them."""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

RATE = 0.01
KERNEL = torch.tensor([1.0, 3.0, 3.0, 1.0])[:, None] * torch.tensor([1.0, 3.0, 3.0, 1.0]) / 64


@dataclass(frozen=True)
class Plan:
    """What a generator looks like."""

    resolution: int = 64
    width: int = 32
    layers: int = 3
    channels: tuple[int, ...] = field(default=())

    @property
    def blocks(self) -> int:
        return self.resolution.bit_length() - 2

    def of(self, block: int) -> int:
        return self.channels[block] if self.channels else max(4, 12 - block)


Weights = dict[str, torch.Tensor]


def random_weights(plan: Plan, seed: int = 1) -> Weights:
    """Draw weights the way networks are initialised, but with noise and biases that matter."""
    random = np.random.Generator(np.random.Philox(seed))

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.from_numpy(np.asarray(random.standard_normal(shape) * scale, np.float32))

    made: Weights = {"constant": normal(plan.of(0), 4, 4), "centre": normal(plan.width, scale=0.1)}
    for i in range(plan.layers):
        made[f"mapping.{i}.weight"] = normal(plan.width, plan.width, scale=1 / RATE)
        made[f"mapping.{i}.bias"] = normal(plan.width, scale=0.1 / RATE)
    for k in range(2 * plan.blocks - 1):
        block = (k + 1) // 2
        outside, inside = plan.of(block), plan.of(block - 1) if k % 2 else plan.of(block)
        made[f"conv.{k}.weight"] = normal(outside, inside, 3, 3)
        made[f"conv.{k}.bias"] = normal(outside, scale=0.1)
        made[f"conv.{k}.style.weight"] = normal(inside, plan.width)
        made[f"conv.{k}.style.bias"] = 1 + normal(inside, scale=0.1)
        made[f"conv.{k}.strength"] = normal(scale=0.2)
        made[f"conv.{k}.noise"] = normal(4 << block, 4 << block)
    for block in range(plan.blocks):
        made[f"rgb.{block}.weight"] = normal(3, plan.of(block))
        made[f"rgb.{block}.bias"] = normal(3, scale=0.1)
        made[f"rgb.{block}.style.weight"] = normal(plan.of(block), plan.width)
        made[f"rgb.{block}.style.bias"] = 1 + normal(plan.of(block), scale=0.1)
    return made


def depth_of(weights: Weights) -> int:
    return sum(name.startswith("mapping.") and name.endswith(".bias") for name in weights)


def convolutions_of(weights: Weights) -> range:
    return range(sum(name.startswith("conv.") and name.endswith(".strength") for name in weights))


def rosinality_state(weights: Weights) -> OrderedDict[str, torch.Tensor]:
    """The state dict of stylegan2-pytorch's generator."""
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    for i in range(depth_of(weights)):
        state[f"style.{i + 1}.weight"] = weights[f"mapping.{i}.weight"]
        state[f"style.{i + 1}.bias"] = weights[f"mapping.{i}.bias"]
    state["input.input"] = weights["constant"][None]
    for k in convolutions_of(weights):
        ours, theirs = f"conv.{k}", f"convs.{k - 1}" if k else "conv1"
        state[f"{theirs}.conv.weight"] = weights[f"{ours}.weight"][None]
        if k % 2:
            state[f"{theirs}.conv.blur.kernel"] = KERNEL * 4
        state[f"{theirs}.conv.modulation.weight"] = weights[f"{ours}.style.weight"]
        state[f"{theirs}.conv.modulation.bias"] = weights[f"{ours}.style.bias"]
        state[f"{theirs}.noise.weight"] = weights[f"{ours}.strength"].reshape(1)
        state[f"{theirs}.activate.bias"] = weights[f"{ours}.bias"]
        state[f"noises.noise_{k}"] = weights[f"{ours}.noise"][None, None]
    for block in range((len(convolutions_of(weights)) + 1) // 2):
        ours, theirs = f"rgb.{block}", f"to_rgbs.{block - 1}" if block else "to_rgb1"
        state[f"{theirs}.conv.weight"] = weights[f"{ours}.weight"][None, :, :, None, None]
        state[f"{theirs}.conv.modulation.weight"] = weights[f"{ours}.style.weight"]
        state[f"{theirs}.conv.modulation.bias"] = weights[f"{ours}.style.bias"]
        state[f"{theirs}.bias"] = weights[f"{ours}.bias"].reshape(1, 3, 1, 1)
        if block:
            state[f"{theirs}.upsample.kernel"] = KERNEL * 4
    return state


def rosinality(weights: Weights) -> dict[str, Any]:
    """What stylegan2-pytorch's converter saves."""
    return {"g_ema": rosinality_state(weights), "latent_avg": weights["centre"]}


def genforce_state(weights: Weights) -> OrderedDict[str, torch.Tensor]:
    """The state dict of genforce's generator: kernels and style biases as TensorFlow had them."""
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    for i in range(depth_of(weights)):
        state[f"mapping.dense{i}.weight"] = weights[f"mapping.{i}.weight"]
        state[f"mapping.dense{i}.bias"] = weights[f"mapping.{i}.bias"]
    state["truncation.w_avg"] = weights["centre"]
    state["synthesis.early_layer.const"] = weights["constant"][None]
    for k in convolutions_of(weights):
        kernel = weights[f"conv.{k}.weight"]
        state[f"synthesis.layer{k}.weight"] = kernel.flip(2, 3) if k % 2 else kernel
        state[f"synthesis.layer{k}.bias"] = weights[f"conv.{k}.bias"]
        state[f"synthesis.layer{k}.noise_strength"] = weights[f"conv.{k}.strength"]
        state[f"synthesis.layer{k}.noise"] = weights[f"conv.{k}.noise"][None, None]
        if k % 2:
            state[f"synthesis.layer{k}.filter.kernel"] = (KERNEL * 4)[None, None]
        state[f"synthesis.layer{k}.style.weight"] = weights[f"conv.{k}.style.weight"]
        state[f"synthesis.layer{k}.style.bias"] = weights[f"conv.{k}.style.bias"] - 1
    for block in range((len(convolutions_of(weights)) + 1) // 2):
        state[f"synthesis.output{block}.weight"] = weights[f"rgb.{block}.weight"][:, :, None, None]
        state[f"synthesis.output{block}.bias"] = weights[f"rgb.{block}.bias"]
        state[f"synthesis.output{block}.style.weight"] = weights[f"rgb.{block}.style.weight"]
        state[f"synthesis.output{block}.style.bias"] = weights[f"rgb.{block}.style.bias"] - 1
    state["synthesis.upsample.kernel"] = (KERNEL * 4)[None, None]
    return state


def genforce(weights: Weights) -> dict[str, Any]:
    """What genforce's converter saves."""
    state = genforce_state(weights)
    return {"generator": state, "discriminator": {"x": torch.ones(1)}, "generator_smooth": state}


def e4e(weights: Weights, encoder: Mapping[str, torch.Tensor], kind: str = "Encoder4Editing") -> dict[str, Any]:
    """What e4e's and pSp's trainers save."""
    state = OrderedDict((f"encoder.{name}", value) for name, value in encoder.items())
    state.update((f"decoder.{name}", value) for name, value in rosinality_state(weights).items())
    inputs = len(convolutions_of(weights)) + 1
    options = {
        "encoder_type": kind,
        "start_from_latent_avg": True,
        "dataset_type": "ffhq_encode",
        "device": "cuda:0",
        "checkpoint_path": None,
        "lpips_lambda": 0.8,
        "progressive_steps": [0, 20000],
    }
    return {"state_dict": state, "opts": options, "latent_avg": weights["centre"].repeat(inputs, 1)}


SOURCE = "import pathlib; pathlib.Path({marker!r}).write_text('the source was run')\n"


class Network(nn.Module):
    """A module that pickles as NVIDIA's persistent classes do: with its source, and as a call."""

    source = ""

    def __init__(self, kind: str, **attributes: Any) -> None:
        super().__init__()
        self.__dict__["_kind"] = kind
        for name, value in attributes.items():
            if isinstance(value, torch.Tensor) and name in {"noise_const", "resample_filter", "w_avg"}:
                self.register_buffer(name, value)
            elif isinstance(value, torch.Tensor):
                self.register_parameter(name, nn.Parameter(value, requires_grad=False))
            else:
                setattr(self, name, value)

    def __reduce__(self) -> Any:
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj  # type: ignore[attr-defined]
        state = {name: value for name, value in self.__dict__.items() if name != "_kind"}
        meta = {
            "type": "class",
            "version": 6,
            "module_src": Network.source,
            "class_name": self._kind,
            "state": state,
        }
        return rebuild, (meta,), None


@contextmanager
def nvidia_modules(source: str) -> Iterator[Callable[..., Any]]:
    """The modules that NVIDIA's pickles name, as long as one is written; yields EasyDict."""

    def module(name: str, member: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        member.__module__, member.__qualname__ = name, member.__name__
        setattr(made, member.__name__, member)
        return made

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("nobody may call this")

    class EasyDict(dict):  # type: ignore[type-arg]
        pass

    added = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": module("torch_utils.persistence", _reconstruct_persistent_obj),
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": module("dnnlib.util", EasyDict),
    }
    sys.modules.update(added)
    Network.source = source
    try:
        yield EasyDict
    finally:
        for name in added:
            del sys.modules[name]


def nvidia_network(weights: Weights, clamp: float | None, rate: float, easy: Callable[..., Any]) -> Network:
    """stylegan2-ada-pytorch's generator as a tree of modules."""

    def dense(weight: torch.Tensor, bias: torch.Tensor, activation: str, multiplier: float) -> Network:
        gain = multiplier / np.sqrt(weight.shape[1])  # a numpy number in the original, too
        return Network(
            "FullyConnectedLayer",
            weight=weight,
            bias=bias,
            activation=activation,
            weight_gain=gain,
            bias_gain=multiplier,
        )

    def style(name: str) -> Network:
        return dense(weights[f"{name}.style.weight"], weights[f"{name}.style.bias"], "linear", 1)

    def layer(k: int) -> Network:
        return Network(
            "SynthesisLayer",
            weight=weights[f"conv.{k}.weight"].to(memory_format=torch.channels_last),
            bias=weights[f"conv.{k}.bias"],
            noise_const=weights[f"conv.{k}.noise"],
            noise_strength=weights[f"conv.{k}.strength"],
            resample_filter=KERNEL,
            affine=style(f"conv.{k}"),
            activation="lrelu",
            act_gain=np.sqrt(2),
            conv_clamp=clamp,
            up=2 if k % 2 else 1,
        )

    blocks = (len(convolutions_of(weights)) + 1) // 2
    synthesis = Network("SynthesisNetwork", block_resolutions=[4 << b for b in range(blocks)])
    for b in range(blocks):
        parts: dict[str, Any] = {"conv1": layer(2 * b)}
        if b:
            parts["conv0"] = layer(2 * b - 1)
        else:
            parts["const"] = weights["constant"]
        parts["torgb"] = Network(
            "ToRGBLayer",
            weight=weights[f"rgb.{b}.weight"][:, :, None, None],
            bias=weights[f"rgb.{b}.bias"],
            affine=style(f"rgb.{b}"),
            conv_clamp=clamp,
        )
        block = Network("SynthesisBlock", resample_filter=KERNEL, architecture="skip", use_fp16=b > 1, **parts)
        setattr(synthesis, f"b{4 << b}", block)
    mapping = Network("MappingNetwork", w_avg=weights["centre"], num_layers=depth_of(weights))
    for i in range(depth_of(weights)):
        scale = RATE / rate  # the same function under another multiplier
        fully = dense(weights[f"mapping.{i}.weight"] * scale, weights[f"mapping.{i}.bias"] * scale, "lrelu", rate)
        setattr(mapping, f"fc{i}", fully)
    width = weights["centre"].shape[0]
    return Network(
        "Generator",
        z_dim=width,
        c_dim=0,
        w_dim=width,
        img_channels=3,
        synthesis=synthesis,
        mapping=mapping,
        _init_args=(),
        _init_kwargs=easy(mapping_kwargs=easy(num_layers=depth_of(weights)), synthesis_kwargs=easy()),
    )


def write_nvidia(
    path: Path,
    weights: Weights,
    *,
    marker: Path,
    clamp: float | None = None,
    rate: float = RATE,
    protocol: int = 3,
    change: Callable[[Network], None] | None = None,
) -> Path:
    """Write a snapshot as stylegan2-ada-pytorch's training loop does; its source would write `marker`."""
    with nvidia_modules(SOURCE.format(marker=str(marker))) as easy:
        network = nvidia_network(weights, clamp, rate, easy)
        if change is not None:
            change(network)
        snapshot = {
            "training_set_kwargs": easy(class_name="training.dataset.ImageFolderDataset", use_labels=False),
            "G": network,
            "D": Network("Discriminator", c_dim=0),
            "G_ema": network,
            "augment_pipe": None,
        }
        path.write_bytes(pickle.dumps(snapshot, protocol=protocol))
    return path


def write(path: Path, content: Any, *, legacy: bool = False) -> Path:
    """Save by torch, in its zip format or in the one it had before version 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path
