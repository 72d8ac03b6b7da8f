"""Making the generator that this machine should use."""

from __future__ import annotations

from typing import Literal

from anonymix_plugin.generator.mobilestylegan import MobileStyleGan
from anonymix_plugin.generator.openvino_engine import OpenVinoGenerator
from anonymix_plugin.generator.protocol import Generator
from anonymix_plugin.models import locate

Engine = Literal["openvino", "torch"]


def load_reference_generator() -> MobileStyleGan:
    """Load MobileStyleGAN in torch: differentiable, slow.

    Raises:
        MissingModelError: The weights are not on this machine.
        DamagedModelError: They are not the registry's.
    """
    files = {name: locate("mobilestylegan", name) for name in _FILES}
    return MobileStyleGan(files["MappingNetwork.xml"], files["SynthesisNetwork.xml"])


def load_generator(engine: Engine = "openvino", *, threads: int = 0) -> Generator:
    """Load the generator on one of its engines.

    Args:
        engine: "openvino" is several times faster on a CPU; "torch" is the reference and has gradients.
        threads: CPU threads of the OpenVINO engine, 0 for its own choice.

    Raises:
        MissingModelError: The weights are not on this machine.
        DamagedModelError: They are not the registry's.
    """
    reference = load_reference_generator()
    return reference if engine == "torch" else OpenVinoGenerator(reference, threads=threads)


_FILES = ("MappingNetwork.xml", "MappingNetwork.bin", "SynthesisNetwork.xml", "SynthesisNetwork.bin")
