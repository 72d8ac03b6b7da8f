"""The encoder: what is kept of a photo (pose, outline, light, colour) as style vectors."""

from anonymix_plugin.encoder._encoder import Encoder, as_input, channels_last, load_encoder, save_encoder
from anonymix_plugin.encoder._network import GROUPS, INPUT_SIZE, EncoderNetwork

__all__ = [
    "GROUPS",
    "INPUT_SIZE",
    "Encoder",
    "EncoderNetwork",
    "as_input",
    "channels_last",
    "load_encoder",
    "save_encoder",
]
