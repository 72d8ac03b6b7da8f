"""The generator: latent codes in, faces out."""

from anonymix_plugin.generator._load import Engine, load_generator, load_reference_generator
from anonymix_plugin.generator.mobilestylegan import MobileStyleGan
from anonymix_plugin.generator.openvino_engine import OpenVinoGenerator
from anonymix_plugin.generator.protocol import Generator, LayerGroups

__all__ = [
    "Engine",
    "Generator",
    "LayerGroups",
    "MobileStyleGan",
    "OpenVinoGenerator",
    "load_generator",
    "load_reference_generator",
]
