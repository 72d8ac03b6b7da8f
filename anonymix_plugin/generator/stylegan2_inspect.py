"""What there is to say about a checkpoint before one uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.generator.checkpoint import CheckpointFile, open_checkpoint, shown
from anonymix_plugin.generator.stylegan2 import StyleGan2
from anonymix_plugin.generator.stylegan2_formats import stylegan2_weights

LICENCE = (
    "unknown: a checkpoint does not say; ask whoever published it (NVIDIA's FFHQ weights and what was "
    "trained from them are non-commercial)"
)


@dataclass(frozen=True)
class Inspection:
    """A checkpoint in plain values.

    Attributes:
        file: Its path.
        bytes: Its size.
        file_sha256: SHA-256 of the file.
        container: How the file is packed.
        format: Whose format it is.
        resolution: Side in pixels that the network draws.
        sizes: Sizes that `synthesise` takes.
        style_inputs: Length of a W+ code.
        layers: Group -> "first-last" style input.
        z_dim: Size of a Gaussian code.
        w_dim: Size of a style vector.
        mapping_layers: Depth of the mapping network.
        channels: Channels of each block, from 4 px on.
        parameters: How many numbers are learned, noise maps left out.
        noise_maps: Whether it has noise maps.
        activation_bound: Bound of activations, None for none.
        has_centre: Whether the file has the mean style vector.
        encoder: Kind of the encoder in the file, "" where there is none.
        weights_hash: The hash that enters the mixer fingerprint.
        mixer_weights: Whether the mixer weights that were asked about, or the shipped ones, belong to it.
        licence: What is known about it.
    """

    file: str
    bytes: int
    file_sha256: str
    container: str
    format: str
    resolution: int
    sizes: tuple[int, ...]
    style_inputs: int
    layers: dict[str, str]
    z_dim: int
    w_dim: int
    mapping_layers: int
    channels: tuple[int, ...]
    parameters: int
    noise_maps: bool
    activation_bound: float | None
    has_centre: bool
    encoder: str
    weights_hash: str
    mixer_weights: str
    licence: str


def inspect_checkpoint(path: Path, mixer_weights: Path | None = None) -> Inspection:
    """Read a checkpoint and say what it is.

    Args:
        path: The checkpoint.
        mixer_weights: Mixer weights that may belong to it; the shipped ones by default.

    Raises:
        MissingModelError: There is no such file.
        CheckpointError: It can't be read, or is no StyleGAN2.
        DamagedModelError: The mixer weights can't be read.
    """
    file = open_checkpoint(path)
    weights = stylegan2_weights(file)
    generator = StyleGan2(weights)
    groups = {name: getattr(generator.layers, name) for name in ("coarse", "identity", "fine")}
    blocks = (weights.style_inputs + 1) // 2
    learned = [values.size for name, values in weights.tensors.items() if not name.endswith(".noise")]
    return Inspection(
        file=str(path),
        bytes=path.stat().st_size,
        file_sha256=file.sha256,
        container=file.container,
        format=weights.format,
        resolution=weights.resolution,
        sizes=generator.sizes,
        style_inputs=weights.style_inputs,
        layers={name: f"{group.start}-{group.stop - 1}" for name, group in groups.items()},
        z_dim=weights.z_dim,
        w_dim=weights.w_dim,
        mapping_layers=weights.depth,
        channels=tuple(int(weights.tensors[f"rgb.{block}.weight"].shape[1]) for block in range(blocks)),
        parameters=sum(learned),
        noise_maps=weights.noise,
        activation_bound=weights.clamp,
        has_centre=weights.centre is not None,
        encoder=_encoder_kind(file),
        weights_hash=generator.weights_hash(),
        mixer_weights=_belongs(generator.weights_hash(), mixer_weights),
        licence=LICENCE,
    )


def _encoder_kind(file: CheckpointFile) -> str:
    content: Any = file.content
    options = content.get("opts") if isinstance(content, dict) else None
    kind = options.get("encoder_type") if isinstance(options, dict) else None
    members = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(members, dict) or not any(str(name).startswith("encoder.") for name in members):
        return ""
    return shown(kind) if isinstance(kind, str) else "of a kind that the file does not name"


def _belongs(generator_hash: str, path: Path | None) -> str:
    from safetensors import SafetensorError, safe_open

    if path is None:
        return "the shipped ones belong to another generator; train some: anonymix train mapper --generator"
    try:
        with safe_open(path, framework="np") as file:
            known = (file.metadata() or {}).get("generator", "")
    except (OSError, SafetensorError) as error:
        raise DamagedModelError(f"can't be read ({error})", where=str(path)) from error
    return f"{path} " + ("belong to it" if known == generator_hash else "belong to another generator")
