"""The generator: latent codes in, faces out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anonymix_plugin.by_need import imported_by_need
from anonymix_plugin.generator._load import (
    Engine,
    GeneratorName,
    load_generator,
    load_reference_generator,
)
from anonymix_plugin.generator.openvino_engine import OpenVinoGenerator
from anonymix_plugin.generator.protocol import (
    ArrayGenerator,
    Generator,
    LayerGroups,
    as_pictures,
    pictures_of,
    styles_of,
)
from anonymix_plugin.generator.published_weights import PublishedWeights, read_published

if TYPE_CHECKING:
    from anonymix_plugin.generator.mobilestylegan import MobileStyleGan
    from anonymix_plugin.generator.stylegan2 import StyleGan2, load_stylegan2
    from anonymix_plugin.generator.torch_engine import TorchGenerator

__all__ = [
    "ArrayGenerator",
    "Engine",
    "Generator",
    "GeneratorName",
    "LayerGroups",
    "MobileStyleGan",
    "OpenVinoGenerator",
    "PublishedWeights",
    "StyleGan2",
    "TorchGenerator",
    "as_pictures",
    "load_generator",
    "load_reference_generator",
    "load_stylegan2",
    "pictures_of",
    "read_published",
    "styles_of",
]

# These import torch, which takes seconds and which the fast method does without.
__getattr__ = imported_by_need(
    __name__,
    {
        "MobileStyleGan": "anonymix_plugin.generator.mobilestylegan",
        "StyleGan2": "anonymix_plugin.generator.stylegan2",
        "TorchGenerator": "anonymix_plugin.generator.torch_engine",
        "load_stylegan2": "anonymix_plugin.generator.stylegan2",
    },
)
