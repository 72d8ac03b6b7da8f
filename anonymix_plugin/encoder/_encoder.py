"""Loading the shipped encoder and running it on photos."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from anonymix_plugin.encoder._network import INPUT_SIZE, EncoderNetwork
from anonymix_plugin.errors import BadArrayError, DamagedModelError
from anonymix_plugin.files import content_of, safetensors_of
from anonymix_plugin.generator import as_pictures
from anonymix_plugin.values import Floats, Pixels

SHIPPED = Path(__file__).parents[1] / "weights" / "encoder.safetensors"


class Encoder:
    """Photo to style vectors.

    Args:
        network: The network, trained.
        centre: (512,) float32, mean style vector of the generator.
        basis: (512, 512) float32, whitened coordinates -> style vector.
        generator_hash: Hash of the generator that it was trained for.
        sha256: Hash of the file, for the fingerprint.
    """

    def __init__(
        self, network: EncoderNetwork, centre: Floats, basis: Floats, *, generator_hash: str, sha256: str = ""
    ) -> None:
        self.network = network.eval()
        self.centre, self.basis = centre, basis[:, : network.latent]
        self.generator_hash, self.sha256 = generator_hash, sha256

    def encode(self, crops: Pixels) -> Floats:
        """Encode FFHQ-aligned crops.

        Args:
            crops: (N, S, S, 3) uint8 RGB in FFHQ framing; any S, scaled to 128 by area averaging.

        Returns:
            (N, 3, 512) float32 style vectors for the coarse, the identity and the fine layers.

        Raises:
            BadArrayError: On another shape or dtype.
        """
        if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
            raise BadArrayError(f"crops are (N, S, S, 3) uint8, not {crops.shape} {crops.dtype}", where="crops")
        with torch.inference_mode():
            latent = self.network(as_input(crops)).numpy()
        styles: Floats = (self.centre + latent @ self.basis.T).astype(np.float32)
        return styles


def as_input(crops: Pixels) -> torch.Tensor:
    """Turn (N, S, S, 3) uint8 RGB into what the network takes, (N, 3, 128, 128) float32 in [-1, 1]."""
    if crops.shape[1:3] != (INPUT_SIZE, INPUT_SIZE):
        size = (INPUT_SIZE, INPUT_SIZE)
        crops = np.stack([cv2.resize(crop, size, interpolation=cv2.INTER_AREA) for crop in crops])
    return as_pictures(crops).contiguous(memory_format=torch.channels_last)


def channels_last(network: EncoderNetwork) -> EncoderNetwork:
    """Lay the weights out so that convolutions on a CPU need no reordering; changes the network in place."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def save_encoder(
    network: EncoderNetwork,
    path: Path,
    *,
    centre: Floats,
    basis: Floats,
    generator_hash: str,
    about: dict[str, str],
) -> None:
    """Write an encoder as safetensors, weights in float16, with `about` as metadata.

    Half precision halves the file; the codes move by less than a thousandth of a standard deviation.
    """
    tensors = {
        f"network.{name}": value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in network.state_dict().items()
    }
    tensors["latent.centre"] = torch.from_numpy(centre)
    tensors["latent.basis"] = torch.from_numpy(np.ascontiguousarray(basis[:, : network.latent]))
    shape = {"latent": str(network.latent), "width": str(network.width)}
    save_file(tensors, path, {**shape, "generator": generator_hash, "about": json.dumps(about, sort_keys=True)})


def load_encoder(path: Path = SHIPPED) -> Encoder:
    """Read an encoder.

    Raises:
        DamagedModelError: The file is missing, no safetensors file, or does not fit the network.
    """
    try:
        content = content_of(path)
        digest = hashlib.sha256(content).hexdigest()
        tensors, metadata = safetensors_of(content)
        network = EncoderNetwork(int(metadata["latent"]), int(metadata["width"]))
        prefix = "network."
        state = {
            name.removeprefix(prefix): value.float() if value.is_floating_point() else value
            for name, value in ((name, torch.from_numpy(array)) for name, array in tensors.items())
            if name.startswith(prefix)
        }
        network.load_state_dict(state)
        network.requires_grad_(requires_grad=False)
        centre, basis = tensors["latent.centre"], tensors["latent.basis"]
        generator_hash = metadata["generator"]
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DamagedModelError(
            f"the encoder's weights can't be read ({error})",
            where=str(path),
            fix="reinstall anonymix-plugin" if path == SHIPPED else "make them: anonymix train encoder",
        ) from error
    return Encoder(channels_last(network), centre, basis, generator_hash=generator_hash, sha256=digest)
