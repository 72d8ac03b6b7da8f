"""A StyleGAN2 of one's own on the engines that there are."""

from __future__ import annotations

from pathlib import Path

from anonymix_plugin.generator.protocol import Generator
from anonymix_plugin.generator.stylegan2 import StyleGan2, load_stylegan2
from anonymix_plugin.generator.stylegan2_openvino import OpenVinoStyleGan2


def on_engine(reference: StyleGan2, engine: str = "auto", *, threads: int = 0) -> Generator:
    """Put a generator on an engine.

    Args:
        reference: The torch module.
        engine: "torch" is the reference itself, with gradients; "cuda" draws on a GPU; "openvino" and "auto"
            draw on the CPU, compiled.
        threads: CPU threads of the compiled engine, 0 for its own choice.

    Raises:
        UsageError: The engine needs a device that is not there.
    """
    if engine == "torch":
        return reference
    if engine == "cuda":
        from anonymix_plugin.generator.torch_engine import TorchGenerator

        return TorchGenerator(reference)  # type: ignore[arg-type]  # it needs no more of its reference than this has
    return OpenVinoStyleGan2(reference, threads=threads)


def load_own_generator(path: Path, engine: str = "auto", *, threads: int = 0) -> Generator:
    """Load a checkpoint and put it on an engine; see `load_stylegan2` and `on_engine`."""
    return on_engine(load_stylegan2(path), engine, threads=threads)
