"""The encoder: what is kept of a photo (pose, outline, light, colour) as style vectors."""

from anonymix_plugin.encoder._e4e import E4eEncoder, load_e4e, load_own_encoder
from anonymix_plugin.encoder._encoder import Encoder, as_input, channels_last, load_encoder, save_encoder
from anonymix_plugin.encoder._network import GROUPS, INPUT_SIZE, EncoderNetwork

__all__ = [
    "GROUPS",
    "INPUT_SIZE",
    "E4eEncoder",
    "Encoder",
    "EncoderNetwork",
    "as_input",
    "channels_last",
    "load_e4e",
    "load_encoder",
    "load_own_encoder",
    "save_encoder",
]
