"""The generator: latent codes in, faces out."""

from anonymix_plugin.generator._load import Engine, load_generator, load_reference_generator
from anonymix_plugin.generator.mobilestylegan import MobileStyleGan
from anonymix_plugin.generator.openvino_engine import OpenVinoGenerator
from anonymix_plugin.generator.protocol import Generator, LayerGroups
from anonymix_plugin.generator.stylegan2 import StyleGan2, load_stylegan2

__all__ = [
    "Engine",
    "Generator",
    "LayerGroups",
    "MobileStyleGan",
    "OpenVinoGenerator",
    "StyleGan2",
    "load_generator",
    "load_reference_generator",
    "load_stylegan2",
]
