"""e4e and pSp for a StyleGAN2 of one's own: an encoder out of the checkpoint that its generator came in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, get_args

import cv2
import numpy as np
import torch

from anonymix_plugin.encoder._e4e_network import INPUT, E4eNetwork, Kind, shape_of
from anonymix_plugin.encoder._encoder import Encoder, load_encoder
from anonymix_plugin.errors import BadArrayError, CheckpointError
from anonymix_plugin.generator import as_pictures
from anonymix_plugin.generator.checkpoint import Array, CheckpointFile, Tensor, open_checkpoint, shown
from anonymix_plugin.generator.protocol import LayerGroups
from anonymix_plugin.generator.stylegan2 import stylegan2_layers
from anonymix_plugin.generator.stylegan2_formats import stylegan2_weights
from anonymix_plugin.values import Floats, Pixels

_PREFIX: Final = "encoder."
_MAX_WIDTH: Final = 2048


class E4eEncoder(Encoder):
    """Photo to style vectors, behind the interface of the shipped encoder.

    Args:
        network: The network, with its weights.
        offset: (heads, w_dim) float32, what is added to its answers: the mean style vector.
        layers: The generator's groups of layers.
        generator_hash: `weights_hash()` of the generator that it was trained for.
        sha256: Hash of the file, for the fingerprint.
    """

    def __init__(
        self,
        network: E4eNetwork,
        offset: Floats,
        layers: LayerGroups,
        *,
        generator_hash: str,
        sha256: str = "",
    ) -> None:
        self._trunk, self._offset, self._layers = network.eval(), offset, layers
        self.generator_hash, self.sha256 = generator_hash, sha256

    def encode(self, crops: Pixels) -> Floats:
        """Encode FFHQ-aligned crops to one style vector for each group of layers.

        It is the mean of the group's vectors: the mixer gives each group one vector. For e4e, which learned
        to keep them close together, that is little of a loss.

        Args:
            crops: (N, S, S, 3) uint8 RGB in FFHQ framing; any S, scaled to 256 px by area averaging.

        Returns:
            (N, 3, w_dim) float32 style vectors for the coarse, the identity and the fine layers.

        Raises:
            BadArrayError: On another shape or dtype.
        """
        code = self.encode_layers(crops)
        groups = (self._layers.coarse, self._layers.identity, self._layers.fine)
        return np.stack([code[:, group.start : group.stop].mean(axis=1) for group in groups], axis=1)

    def encode_layers(self, crops: Pixels) -> Floats:
        """Encode FFHQ-aligned crops to whole W+ codes, (N, heads, w_dim) float32; else as `encode`."""
        if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
            raise BadArrayError(f"crops are (N, S, S, 3) uint8, not {crops.shape} {crops.dtype}", where="crops")
        with torch.inference_mode():
            code: Floats = self._trunk(_as_input(crops)).numpy()
        return np.asarray(code + self._offset, np.float32)


def load_e4e(path: Path) -> E4eEncoder:
    """Load the encoder out of a checkpoint of e4e or pSp, without running anything in it.

    Raises:
        MissingModelError: There is no such file.
        CheckpointError: It can't be read, or encoder or generator in it are missing or of an unknown kind;
            the error says what is wrong.
    """
    file = open_checkpoint(path)
    where = str(path)
    weights = stylegan2_weights(file)
    if weights.format != "e4e":
        raise CheckpointError("it has a generator and no encoder", where=where, fix="use e4e_ffhq_encode.pt")
    state = {
        name.removeprefix(_PREFIX): value
        for name, value in file.content["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    network = _network(state, _kind(file), where)
    heads = len(network.styles)
    if heads != weights.style_inputs:
        raise CheckpointError(
            f"its encoder has {heads} heads for a generator of {weights.style_inputs} style inputs",
            where=where,
        )
    offset = np.zeros((heads, weights.w_dim), np.float32)
    if file.content["opts"].get("start_from_latent_avg", True):
        offset = _offset(file, heads, weights.w_dim)
    return E4eEncoder(
        network,
        offset,
        stylegan2_layers(heads),
        generator_hash=weights.sha256(),
        sha256=file.sha256,
    )


def load_own_encoder(path: Path) -> Encoder:
    """Load an encoder of the user's, whichever it is.

    Args:
        path: A safetensors file made by `anonymix train encoder`, or a checkpoint of e4e or pSp.

    Raises:
        DamagedModelError: A safetensors file is missing or damaged.
        CheckpointError: A checkpoint can't be read, or has no encoder.
    """
    try:
        if not path.is_file():
            return load_encoder(path)  # which says what is wrong
        with path.open("rb") as stream:
            begin = stream.read(9)
    except OSError:
        return load_encoder(path)
    # A safetensors file begins with the length of its header, eight bytes of which the last four are zero.
    is_safetensors = begin[4:] == b"\0\0\0\0{"
    is_checkpoint = begin[:4] == b"PK\x03\x04" or begin[:1] == b"\x80"
    return load_e4e(path) if is_checkpoint and not is_safetensors else load_encoder(path)


def _kind(file: CheckpointFile) -> Kind:
    """How heads become a code. The tensors of both kinds have the same names, so the file must say it."""
    options = file.content.get("opts")
    kind = options.get("encoder_type") if isinstance(options, dict) else None
    kinds: dict[str, Kind] = {known: known for known in get_args(Kind)}
    if not isinstance(kind, str) or kind not in kinds:
        raise CheckpointError(
            f"its opts name no encoder that is known, but {shown(kind)!r}",
            where=str(file.path),
            fix="supported: " + ", ".join(kinds),
        )
    return kinds[kind]


def _offset(file: CheckpointFile, heads: int, width: int) -> Floats:
    value = file.content.get("latent_avg")
    where = f"{file.path}, latent_avg"
    if not isinstance(value, Tensor | Array) or value.shape not in {(heads, width), (width,), (1, width)}:
        raise CheckpointError("the mean style vector that its answers start from is missing", where=where)
    return np.ascontiguousarray(np.broadcast_to(value.read(where), (heads, width)))


def _network(state: dict[str, Any], kind: Kind, where: str) -> E4eNetwork:
    """Build the network that the shapes describe, and fill it once everything fits."""
    if not all(isinstance(value, Tensor | Array) for value in state.values()):
        raise CheckpointError("its encoder holds something that is no tensor", where=where)
    shapes = {name: value.shape for name, value in state.items()}
    large = [name for name, shape in shapes.items() if any(not 0 < n <= _MAX_WIDTH for n in shape)]
    if large:
        raise CheckpointError(f"{_PREFIX}{shown(large[0])} has shape {shapes[large[0]]}", where=where)
    try:
        shape = shape_of(shapes)
    except KeyError as error:
        raise CheckpointError(f"{_PREFIX}{error.args[0]} is missing", where=where) from error
    except (IndexError, ValueError) as error:
        raise CheckpointError(f"its encoder is no IR-SE-50: {error}", where=where) from error
    with torch.device("meta"):
        network = E4eNetwork(shape, kind)
    expected = network.state_dict()
    for name in sorted(expected.keys() | shapes.keys()):
        if name not in shapes or name not in expected:
            wrong = "is missing" if name in expected else "is there, which no IR-SE-50 has"
            raise CheckpointError(f"{_PREFIX}{shown(name)} {wrong}", where=where)
        if math.prod(expected[name].shape) != math.prod(shapes[name]) or (
            expected[name].ndim > 1 and tuple(expected[name].shape) != shapes[name]
        ):
            raise CheckpointError(
                f"{_PREFIX}{name} has shape {shapes[name]}, expected {tuple(expected[name].shape)}",
                where=where,
            )
    values = {
        name: torch.from_numpy(value.read(f"{where}, {_PREFIX}{name}")).reshape(expected[name].shape)
        for name, value in state.items()
    }
    counters = {name: value.long() for name, value in values.items() if not expected[name].is_floating_point()}
    network.load_state_dict(values | counters, assign=True)
    network.requires_grad_(requires_grad=False)
    return network


def _as_input(crops: Pixels) -> torch.Tensor:
    if crops.shape[1:3] != (INPUT, INPUT):
        crops = np.stack([cv2.resize(crop, (INPUT, INPUT), interpolation=cv2.INTER_AREA) for crop in crops])
    return as_pictures(crops)
