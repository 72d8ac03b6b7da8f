"""A StyleGAN2 of one's own on the engines that there are."""

from __future__ import annotations

from pathlib import Path

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator._load import prepared
from anonymix_plugin.generator.checkpoint import open_checkpoint
from anonymix_plugin.generator.protocol import Generator
from anonymix_plugin.generator.stylegan2 import StyleGan2
from anonymix_plugin.generator.stylegan2_formats import stylegan2_weights
from anonymix_plugin.generator.stylegan2_openvino import OpenVinoStyleGan2
from anonymix_plugin.generator.stylegan2_weights import StyleGan2Weights


def on_engine(weights: StyleGan2Weights, engine: str = "auto", *, threads: int = 0) -> Generator:
    """Put a generator on an engine.

    Args:
        weights: The generator's.
        engine: "torch" is the reference, with gradients; "cuda" is the reference on a GPU, in batches;
            "openvino" is compiled for the processor; "auto" takes OpenVINO, and the reference where OpenVINO
            can't be had on this machine.
        threads: CPU threads of the OpenVINO engine, 0 for its own choice.

    Raises:
        UsageError: There is no such engine, or it can't run here and was asked for by name.
    """
    if engine == "torch":
        return StyleGan2(weights)
    if engine == "cuda":
        from anonymix_plugin.generator.torch_engine import TorchGenerator

        # In half precision an activation times its style can leave the range of numbers.
        reference = StyleGan2(weights)
        return TorchGenerator(reference, precision="float32")  # type: ignore[arg-type]  # all it asks for is there
    if engine == "openvino-bf16":
        raise UsageError(f"{engine} draws MobileStyleGAN alone", where="engine", fix="use the engine auto")
    return prepared(OpenVinoStyleGan2(weights, threads=threads), engine, lambda: StyleGan2(weights))


def load_own_generator(path: Path, engine: str = "auto", *, threads: int = 0) -> Generator:
    """Load a checkpoint and put it on an engine; see `stylegan2.load_stylegan2` and `on_engine`."""
    return on_engine(stylegan2_weights(open_checkpoint(path)), engine, threads=threads)
